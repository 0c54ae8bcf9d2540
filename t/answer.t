#!/usr/bin/perl

# A question in, an answer out: what the client gets, and the row of it.

use warnings;
use strict;
use utf8;

use HTTP::Tiny;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
location /chat {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
    chatbot_postgres %%POSTGRES%%;

    add_header X-Connection "$connection:$connection_requests" always;
    lingering_timeout 100ms;
}
EOF

# from the API

my $asked = ask('hi');
is(status($asked), 200, 'status');
is(body($asked), '{"response": "answer 1: hi", "source": "api"}', 'body');
is(header($asked, 'Content-Type'), 'application/json', 'type');
is(header($asked, 'Content-Length'), length body($asked), 'length');
is(header($asked, 'Cache-Status'), 'chatbot; fwd=miss', 'miss');
like(header($asked, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, 'request id');

# from the cache

my $cached = ask('hi');
is(status($cached), 200, 'cached, status');
is(body($cached), '{"response": "answer 1: hi", "source": "cache"}',
	'cached, body');
is(header($cached, 'Content-Type'), 'application/json', 'cached, type');
like(header($cached, 'Cache-Status'), qr/^chatbot; hit; ttl=(3600|359\d)$/,
	'hit');
isnt(header($cached, 'X-Request-ID'), header($asked, 'X-Request-ID'),
	'another request id');

# letter case

like(ask('HI'), qr/"answer 1: hi".*"cache"/, 'letter case');
like(ask('что такое nginx?'), qr/"api"/, 'letter case of Unicode, asked');
is(source('ЧТО ТАКОЕ NGINX?'), 'cache', 'letter case of Unicode');
is(source('Straße'), 'api', 'sharp s, asked');
is(source('STRASSE'), 'cache', 'sharp s, folded');
is(source('café'), 'api', 'composed');
is(source("CAFE\x{301}"), 'cache', 'decomposed');
is(source('hi?'), 'api', 'other question');
is($t->openai->calls, 5, 'calls of the API');

# text

is(text("it's a \"test\"\\\n\t\x{1}</script>"),
	"it's a \"test\"\\\n\t\x{1}</script>", 'escaped');
is(text("日本語 \x{1F642} \x{2028}"), "日本語 \x{1F642}", 'Unicode');
is(length json(ask("[size 100000]"))->{response}, 100000, "long");
like(json(ask('[blank]'))->{response}, qr/^answer \d+: \[blank\]$/, 'trimmed');

# conditions are none of ours

for my $condition ('If-Match: "a"', 'If-None-Match: *',
	'If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT',
	'If-Modified-Since: Thu, 01 Jan 2037 00:00:00 GMT')
{
	like(ask('hi', headers => [$condition]), qr/ 200 .*answer 1: hi/s,
		$condition);
}

# methods

my $head = http(request('HEAD', '/chat?query=hi'));
is(status($head), 405, 'HEAD');
is(header($head, 'Allow'), 'GET, POST', 'HEAD, allow');
is(body($head), '', 'HEAD, no body');

for my $method (qw/ PUT DELETE OPTIONS PATCH /) {
	my $reply = http(request($method, '/chat?query=hi'));
	is(status($reply), 405, $method);
	is(header($reply, 'Allow'), 'GET, POST', "$method, allow");
}

like(http("GET /chat?query=hi HTTP/1.0\r\n\r\n"), qr/"answer 1: hi"/,
	'HTTP/1.0');

# several requests on a connection

my $http = HTTP::Tiny->new(http_proxy => undef);
my $uri = 'http://127.0.0.1:' . port() . '/chat';

is(join(' ', map { on_connection($_) } '?query=hi', '?query=another',
	'?query=', '?query=hi'), '200#1 200#2 422#3 200#4', 'keep-alive');

my @replies = pipelined('/chat?query=hi', '/chat?query=one more', '/chat',
	'/chat?query=hi');
is(join(' ', map { status($_) } @replies), '200 200 422 200', 'pipelined');
is(header($replies[3], 'X-Connection') =~ s/.*://r, 4, 'on one connection');
like($replies[1], qr/: one more"/, 'in their order');

# a GET with a body that comes late

my $late = dial();
print $late "GET /chat?query=%5Bdelay%200.3%5D%20late HTTP/1.1\r\n"
	. "Host: localhost\r\nContent-Length: 4\r\n\r\n";
select undef, undef, undef, 0.05;
print $late 'body';
sysread $late, my $answer, 4096;
like($answer, qr/ 200 .*late"/s, 'late body');
print $late request(GET => '/chat?query=hi');
like(join('', <$late>), qr/ 200 .*"answer 1: hi"/s,
	'late body, and another request');

# rows

is(row($asked), 'hi|answer 1: hi|success|MISS|200|gpt-6-luna|1|4', 'row');
is(row($cached), 'hi|answer 1: hi|cached|HIT|200|gpt-6-luna|1|4',
	'row, cached');
is(row(ask('HI')), 'HI|answer 1: hi|cached|HIT|200|gpt-6-luna|1|4',
	'row, the question as it was asked');
is(row(ask('[status 400]')),
	'[status 400]|Error: The model failed to answer.|error|MISS|502|||',
	'row, error');

my $id = header($cached, 'X-Request-ID');
is($t->postgres->sql("select ip_address, now() - timestamp < '1 minute',"
	. " duration_ms between 0 and 10000 from request_logs"
	. " where request_id = '$id'"), '127.0.0.1|t|t', 'row, address and times');
is($t->postgres->sql('select count(*) = count(distinct request_id)'
	. " and count(*) = max(id) from request_logs"), 't', 'rows, ids');
is($t->postgres->sql("select bool_and(request_id ~"
	. " '^[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}\$'), bool_and(left("
	. 'request_id, 12) = lpad(to_hex((extract(epoch from timestamp) * 1000)'
	. "::bigint), 12, '0')) from request_logs"), 't|t',
	'rows, ids are UUIDs that begin with the time');

done_testing();

###############################################################################

sub source { json(ask(@_))->{source} }

# The answer, less its "answer N: ".
sub text { json(ask(@_))->{response} =~ s/^answer \d+: //r }

sub on_connection {
	my $reply = $http->get($uri . $_[0]);
	return "$reply->{status}#" . $reply->{headers}{'x-connection'} =~ s/.*://r;
}

sub pipelined {
	my @requests = map { request('GET', s/ /+/gr) } @_;
	s/Connection: close\r\n// for @requests[0 .. $#requests - 1];
	return split /(?<=\})(?=HTTP)/, http(join '', @requests);
}

# The row of a request that was answered.
sub row {
	my $id = header($_[0], 'X-Request-ID');
	my $sql = "select request_text, response_text, status, cache_status,"
		. " http_status, model, prompt_tokens, completion_tokens"
		. " from request_logs where request_id = '$id'";

	wait_for { $t->postgres->sql($sql) ne '' };
	return $t->postgres->sql($sql);
}
