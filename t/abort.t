#!/usr/bin/perl

# The client leaves early: its question is paid for, so the answer is cached and
# recorded.

use warnings;
use strict;

use Socket qw/ IPPROTO_TCP TCP_CORK /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_redis_timeout 10s;
chatbot_postgres %%POSTGRES%%;

server {
    listen 127.0.0.1:%%PORT%%;
    listen 127.0.0.1:%%PORT_2%% http2;

    location /chat {
        chatbot_pass %%API%%;
    }

    location /cancel {
        chatbot_pass %%API%%;
        chatbot_abandoned cancel;
    }

    location /status {
        stub_status;
    }

    chatbot_heartbeat 500ms;

    location /action {
        chatbot_pass %%API%%;
        set $n $arg_n;
        post_action /after;
    }

    location /after {
        internal;
        proxy_pass http://127.0.0.1:%%PORT%%/chat?query=[delay%202]%20after$n;
    }
}
EOF

my ($api, $redis) = ($t->openai, $t->redis);

# while the model thinks

my $client = asks('[delay 0.5] left');
wait_for { $api->in_flight == 1 };
close $client;

is(wait_rows(1), 1, 'recorded');
is(row('[delay 0.5] left'), '499|success|answer 1: [delay 0.5] left|MISS|t',
	'its row');
like(ask('[delay 0.5] left'), qr/answer 1: .*"cache"/, 'cached');
is($api->calls, 1, 'asked once');

# while others wait for the same

$client = asks('[delay 0.7] together');
wait_for { $api->in_flight == 1 };
my $other = asks('[delay 0.7] together');
wait_for { writing() == 2 };
close $client;

like(join('', <$other>), qr/ 200 .*collapsed.*answer 2: /s, 'who stays');
is(wait_rows(4), 4, 'both recorded');
is($t->postgres->sql("select http_status, cache_status from request_logs where"
	. " request_text ~ 'together' order by 1"), "200|COLLAPSED\n499|MISS",
	'both rows');

# a failure

$client = asks('[delay 0.5] [status 400] failed');
wait_for { $api->in_flight == 1 };
close $client;

is(wait_rows(5), 5, 'failure recorded');
like(row('[delay 0.5] [status 400] failed'), qr/^499\|error\|Error: .*\|MISS/,
	'row of a failure');

# a POST

$client = dial();
print $client request(POST => '/chat', body => '{"query": "[delay 0.5] POST"}',
	headers => ['Content-Type: application/json']);
wait_for { $api->in_flight == 1 };
close $client;

is(wait_rows(6), 6, 'POST recorded');
like(row('[delay 0.5] POST'), qr/^499\|success\|/, 'row of a POST');
like(ask('[delay 0.5] POST'), qr/"cache"/, 'POST cached');

# half a POST is no question

$client = dial();
print $client request(POST => '/chat', body => '{"query":',
	headers => ['Content-Type: application/json'])
	=~ s/Content-Length: \K\d+/100/r;
$client->flush;
close $client;

# HTTP/2: one of two questions is taken back, the other's connection ends

$client = dial(port => port(2));
print $client "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, ''),
	map { frame(1, 5, $_, headers("/chat?query=[delay%200.7]%20stream%20$_")) }
		1, 3;
wait_for { $api->in_flight == 2 };
print $client frame(3, 0, 1, pack 'N', 8);
ok(wait_for { writing() == 1 }, 'HTTP/2, taken back');
is($api->in_flight, 2, 'HTTP/2, the calls go on');
close $client;

is(wait_rows(9), 9, 'HTTP/2, recorded');
like(row("[delay 0.7] stream $_"), qr/^499\|success\|/, "HTTP/2, row $_")
	for 1, 3;

# before Redis answers

$redis->freeze;
my @clients = map { asks("early $_") } 1 .. 20;
wait_for { writing() == 20 };
close $_ for @clients;
wait_for { writing() == 0 };
$redis->thaw;

is(wait_rows(29), 29, 'early, recorded');
is($t->postgres->sql("select http_status, status, count(*) from request_logs"
	. " where request_text ~ 'early' group by 1, 2"), '499|success|20',
	'early, rows');
like(ask('early 20'), qr/"cache"/, 'early, cached');

# a FIN that comes in the same packet as the request

my $together = dial();
setsockopt $together, IPPROTO_TCP, TCP_CORK, 1;
print $together request(GET => '/chat?query=[delay%201]%20fin');
close $together;
ok(wait_for { $api->in_flight == 1 }, 'FIN, asked');
ok(wait_for { writing() == 0 }, 'FIN, noticed');
is($api->in_flight, 1, 'FIN, the call goes on');
is(wait_rows(31), 31, 'FIN, recorded');
like(row('[delay 1] fin'), qr/^499\|success\|/, 'FIN, row');

# in the middle of the answer

$client = asks('[size 900000] large');
read $client, my $begin, 1000;
close $client;
ok(wait_for { row('[size 900000] large') }, 'large');

# a post_action is what the request goes on with

$client = asks('[delay 1] action', '/action');
wait_for { $api->in_flight == 1 };
close $client;
ok(wait_for { $api->in_flight == 2 }, 'post_action');

is(wait_rows(34), 34, 'that was all');
like(row('[delay 2] after'), qr/^200\|/, 'post_action, in peace');

$client = asks('[slowstream 0.3] [words 10]&stream=1&n=2', '/action');
wait_for { $api->in_flight == 1 };
close $client;
ok(wait_for { $api->in_flight == 2 }, 'post_action of a stream');
is(wait_rows(36), 36, 'post_action of a stream, rows');
like(row('[delay 2] after2'), qr/^200\|/, 'post_action of a stream, in peace');

# "chatbot_abandoned cancel"

my $calls = $api->calls;
$client = asks('[delay 60] cut', '/cancel');
wait_for { $api->in_flight == 1 };
close $client;
ok(wait_for { $api->in_flight == 0 }, 'cancel, the call is cut');
is(wait_rows(37), 37, 'cancel, recorded');
like(row('[delay 60] cut'), qr/^499\|error\|Error: .*\|MISS\|/, 'cancel, row');

$client = asks('[delay 60] both', '/cancel');
wait_for { $api->in_flight == 1 };
$other = asks('[delay 60] both', '/cancel');
wait_for { writing() == 2 };
close $client;
wait_for { writing() == 1 };
is($api->in_flight, 1, 'cancel, but another waits');
close $other;
ok(wait_for { $api->in_flight == 0 }, 'cancel, nobody waits');
is(wait_rows(39), 39, 'cancel, both recorded');
is($t->postgres->sql('select http_status, cache_status from request_logs where'
	. " request_text ~ 'both' order by 2"), "499|COLLAPSED\n499|MISS",
	'cancel, both rows');

my $stream = dial();
print $stream request(GET => '/cancel?stream=text&query=[slowstream%201]%20[words%2050]');
ok(wait_for { $api->in_flight == 1 }, 'cancel, a stream');
close $stream;
ok(wait_for { $api->in_flight == 0 }, 'cancel, the stream is cut');
is($api->calls, $calls + 3, 'cancel, three calls');

done_testing();

###############################################################################

sub asks {
	my ($text, $uri) = (@_, '/chat');

	my $socket = dial();
	$text =~ s/ /%20/g;
	print $socket request(GET => "$uri?query=$text");
	$socket->flush;
	return $socket;
}

# HTTP/2: of type, flags, stream; a GET request's headers.
sub frame { substr(pack('N', length $_[3]), 1) . pack('CCN a*', @_) }
sub headers { pack('C2 (C C/a*)2', 0x82, 0x86, 0x04, $_[0], 0x01, 'localhost') }

# How many requests nginx works on, other than this one.
sub writing { get('/status') =~ /Writing: (\d+)/ ? $1 - 1 : -1 }

sub row {
	my ($text) = @_;
	return $t->postgres->sql('select http_status, status, left(response_text,'
		. ' 100), cache_status, duration_ms >= 400 from request_logs'
		. " where request_text = '$text' order by id limit 1");
}
