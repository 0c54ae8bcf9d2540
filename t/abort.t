#!/usr/bin/perl

# The client leaves early: its question is paid for, so the answer is cached and
# recorded.

use warnings;
use strict;

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

location /chat {
    chatbot_pass %%API%%;
}

location /status {
    stub_status;
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

# before Redis answers

$redis->freeze;
my @clients = map { asks("early $_") } 1 .. 20;
wait_for { writing() == 20 };
close $_ for @clients;
wait_for { writing() == 0 };
$redis->thaw;

is(wait_rows(27), 27, 'early, recorded');
is($t->postgres->sql("select http_status, status, count(*) from request_logs"
	. " where request_text ~ 'early' group by 1, 2"), '499|success|20',
	'early, rows');
like(ask('early 20'), qr/"cache"/, 'early, cached');

# in the middle of the answer

$client = asks('[size 900000] large');
read $client, my $begin, 1000;
close $client;
ok(wait_for { row('[size 900000] large') }, 'large');

is(wait_rows(29), 29, 'that was all');

done_testing();

###############################################################################

sub asks {
	my ($text) = @_;

	my $socket = dial();
	$text =~ s/ /%20/g;
	print $socket request(GET => "/chat?query=$text");
	$socket->flush;
	return $socket;
}

# How many requests nginx works on, other than this one.
sub writing { get('/status') =~ /Writing: (\d+)/ ? $1 - 1 : -1 }

sub row {
	my ($text) = @_;
	return $t->postgres->sql('select http_status, status, left(response_text,'
		. ' 100), cache_status, duration_ms >= 400 from request_logs'
		. " where request_text = '$text' order by id limit 1");
}
