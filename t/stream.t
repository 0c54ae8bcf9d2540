#!/usr/bin/perl

# An answer that is sent while it is written: as events, as text; joined,
# continued, from the cache, to slow clients, with failures.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_retries 0;

gzip on;
gzip_min_length 1;
gzip_types *;

server {
    listen 127.0.0.1:%%PORT%%;
    listen 127.0.0.1:%%PORT_2%% http2;

    location /chat {
        chatbot_pass %%API%%;
    }

    location /quick {
        chatbot_pass %%API%%;
        chatbot_heartbeat 100ms;
    }

    location /fallback {
        chatbot_pass http://127.0.0.1:1;
        chatbot_heartbeat 100ms;
        error_page 503 = @another;
    }

    location @another {
        chatbot_pass %%API%%;
        chatbot_heartbeat 100ms;
    }

    location /impatient {
        chatbot_pass %%API%%;
        chatbot_read_timeout 500ms;
    }

    location /rate {
        chatbot_pass %%API%%;
        limit_rate 40k;
    }

    location /outer {
        proxy_pass http://127.0.0.1:%%PORT%%/chat;
    }

    location /page {
        ssi on;
        ssi_types *;
        alias %%TEST%%/page;
    }
}
EOF

my $api = $t->openai;

# events

my $reply = streamed('hi');
is(status($reply), 200, 'status');
is(header($reply, 'Content-Type'), 'text/event-stream', 'type');
is(header($reply, 'Cache-Control'), 'no-cache, no-transform', 'Cache-Control');
is(header($reply, 'X-Accel-Buffering'), 'no', 'X-Accel-Buffering');
is(header($reply, 'Cache-Status'), 'chatbot; fwd=miss', 'Cache-Status');
ok(header($reply, 'X-Request-ID'), 'X-Request-ID');
like(body($reply), qr/^retry: 3000\nid: [\w-]+\.12\nevent: delta\n/, 'retry');
is(told($reply), 'delta: answer 1: hi | done: answer 1: hi (api)', 'events');
is((events($reply))[-1]{id}, name_of($reply) . '.done', 'id of the end');
wait_rows(1);
is(row('hi'), '200|success|answer 1: hi|MISS', 'row');

my $cached = 'delta: answer 1: hi | done: answer 1: hi (cache)';
is(told(streamed('hi')), $cached, 'from the cache');
like(ask('hi'), qr/"answer 1: hi", "source": "cache"/, 'the same as JSON');

is(told(get('/chat?query=hi', headers => ['Accept: text/event-stream'])),
	$cached, 'Accept');
is(told(post_json({ query => 'hi', stream => JSON::PP::true })), $cached,
	'JSON');
is(told(post_form({ query => 'hi', stream => 1 })), $cached, 'form');
like(get('/chat?query=hi&stream=0'), qr/"source": "cache"/, 'stream=0');
like(get('/chat?query=hi&stream=maybe'), qr/ 422 .*stream/s, 'stream=maybe');
is(status(http(request(HEAD => '/chat?query=hi&stream=1'))), 405, 'HEAD');

# text

$reply = get('/chat?query=hi&stream=text');
is(header($reply, 'Content-Type'), 'text/plain; charset=utf-8', 'text, type');
is(body($reply), 'answer 1: hi', 'text');
is(body(http(request(GET => '/chat?query=hi&stream=text')
	=~ s{HTTP/1\.1}{HTTP/1.0}r)), 'answer 1: hi', 'text, HTTP/1.0');
like(`curl -sS --http2-prior-knowledge 'http://127.0.0.1:${\port(2)}/chat?query=hi&stream=1'`,
	qr/event: delta\n.*event: done\n/s, 'HTTP/2');

# each piece leaves at once

my $socket = asks('[slowstream 0.3] one two');
my $first = read_until($socket, qr/event: delta\n.*\n\n/);
unlike($first, qr/event: done/, 'the first piece is there before the end');
is($api->in_flight, 1, 'while the model writes');

my $joined = streamed('[slowstream 0.3] one two');
is(text_of($joined),
	text_of($first . read_until($socket, qr/event: done\n.*\n\n/)), 'joined');
like($joined, qr/fwd=miss; collapsed/, 'joined, Cache-Status');

$socket = asks('[slowstream 0.3] by proxy', uri => '/outer');
unlike(read_until($socket, qr/event: delta\n/), qr/event: done/, 'proxy_pass');
read_until($socket, qr/event: done/);

# pieces of a long answer; characters are never split

$reply = streamed('[size 100000]');
is(length(text_of($reply)), 100_000, 'long');
cmp_ok(scalar(events($reply)), '>', 100, 'long, in pieces');

my $emoji = "\x{1F642}" x 500;
$reply = streamed($emoji);
is(text_of($reply), json(ask($emoji))->{response}, 'characters');

# a client that was cut off goes on

my $id = (grep { $_->{event} eq 'delta' } events($reply))[1]{id};
my ($name, $offset) = split /\./, $id;
my $rest = again($emoji, $id);
is(bytes_of($rest), substr(bytes_of($reply), $offset), 'goes on');
unlike($rest, qr/event: reset/, 'goes on, no reset');

like(again('hi', 'another.3'), qr/event: reset\n.*event: delta\n/s,
	'another answer starts over');
like(again('hi', name_of(streamed('hi')) . '.999'), qr/event: reset/,
	'an offset behind the end');
is(status(again('hi', 'whatever.done')), 204, 'finished');
is(told(again('hi', 'nonsense')), $cached, 'no id of ours');

$socket = asks('[slowstream 0.3] cut off');
$first = read_until($socket, qr/event: delta\n.*\n\n/);
close $socket;
$rest = again('[slowstream 0.3] cut off', (events($first))[-1]{id});
unlike($rest, qr/event: reset/, 'goes on in mid-flight');
is(text_of($first) . text_of($rest),
	json(ask('[slowstream 0.3] cut off'))->{response}, 'nothing twice');

# silence

$socket = asks('[delay 0.5] silence', uri => '/quick');
like(read_until($socket, qr/event: done/),
	qr/\r\n\r\n.*retry: 3000\n:\n\n.*:\n\n.*event: delta/s, 'heartbeat');

# failures

$reply = streamed('[status 400]');
is(status($reply), 502, 'a failure before the first piece');
is(header($reply, 'Content-Type'), 'application/problem+json', 'a problem');

$reply = get('/fallback?stream=1&query=' . escaped('[delay 0.5] other'));
like(told($reply), qr/^delta: .* other \| done: .* other \(api\)$/,
	'error_page, no heartbeat of before');

my $half = '[stall] one two three four five';
my $uri = '/impatient?query=' . escaped($half);
$reply = get("$uri&stream=1");
is(status($reply), 200, 'a failure after the first piece');
like(body($reply), qr/event: error\ndata: \{.*"status": 504/, 'event: error');
unlike(body($reply), qr/event: done/, 'and no end');
ok(wait_for { row($half) }, 'its row');
like(row($half), qr/^504\|error\|Error: /, 'its row, an error');
like(get("$uri&stream=1"), qr/fwd=miss\r/, 'not cached');
unlike(get("$uri&stream=text"), qr/\r\n0\r\n\r\n$/,
	'text that is not whole has no end');

# a slow client delays nobody

my $slow = asks('[size 1000000]');
ok(wait_for { row('[size 1000000]') }, 'a client that does not read');
is(length(text_of(streamed('[size 1000000]'))), 1_000_000, 'another does');
is(length(text_of(read_until($slow, qr/event: done\n.*\n\n/))), 1_000_000,
	'slow, and whole');
is(length(body(get('/rate?stream=text&query=' . escaped('[size 60000]')))),
	60_000, 'limit_rate');

# a client that leaves

$socket = asks('[slowstream 0.2] left');
read_until($socket, qr/event: delta/);
close $socket;
ok(wait_for { row('[slowstream 0.2] left') }, 'left, its row');
like(row('[slowstream 0.2] left'), qr/^499\|success\|/, 'left, whole');

# a subrequest gets the whole

open my $page, '>', $t->dir . '/page' or die $!;
print $page '<!--# include virtual="/chat?query=hi&stream=1" -->';
close $page;
like(get('/page'), qr/\{"response": "answer 1: hi", "source": "cache"\}/,
	'subrequest');

# many streams of one flight

my $calls = $api->calls;
my @all = many(map { request(GET => '/chat?stream=1&query='
	. escaped('[slowstream 0.05] the same')) } 1 .. 100);
is(scalar(grep { /event: done/ && text_of($_) eq text_of($all[0]) } @all), 100,
	'100 streams');
is($api->calls - $calls, 1, '100 streams, one call');

done_testing();

###############################################################################

sub escaped { Test::Chatbot::escaped(@_) }

sub streamed {
	my ($question) = @_;
	return get('/chat?stream=1&query=' . escaped($question));
}

sub again {
	my ($question, $id) = @_;
	return get('/chat?stream=1&query=' . escaped($question),
		headers => ["Last-Event-ID: $id"]);
}

# A connection on which a stream was asked for.
sub asks {
	my ($question, %opt) = @_;
	my $socket = dial();
	print $socket request(GET => ($opt{uri} // '/chat') . '?stream=1&query='
		. escaped($question));
	return $socket;
}

# What comes until it looks so, or all.
sub read_until {
	my ($socket, $pattern) = @_;
	my $text = '';
	while ($text !~ $pattern) {
		vec(my $readable = '', fileno $socket, 1) = 1;
		last if !select $readable, undef, undef, 20;
		sysread($socket, $text, 65536, length $text) or last;
	}
	return $text;
}

# The events of a response, whole or begun, each with its fields.
sub events {
	my ($reply) = @_;
	my (undef, $body) = split /\r\n\r\n/, $reply, 2;
	$body =~ s/\r\n[0-9a-f]+\r\n//g if $body =~ s/^[0-9a-f]+\r\n//;
	return grep { $_->{event} } map {
		+{ map { /^(\w+): ?(.*)/ ? ($1, $2) : () } split /\n/ }
	} split /\n\n/, $body;
}

sub told {
	my ($reply) = @_;
	return status($reply) if status($reply) != 200;
	return join ' | ', map {
		my $data = decode_json($_->{data});
		"$_->{event}: " . ($data->{text} // "$data->{response} ($data->{source})")
	} events($reply);
}

sub text_of {
	return join '', map { decode_json($_->{data})->{text} }
		grep { $_->{event} eq 'delta' } events($_[0]);
}

sub bytes_of {
	my $text = text_of(@_);
	utf8::encode($text);
	return $text;
}

# ANSWER of the ids.
sub name_of { ((events($_[0]))[0]{id} // '') =~ /^(.+)\.\w+$/ ? $1 : '' }

sub row {
	my ($question) = @_;
	return $t->postgres->sql("select http_status, status, response_text,"
		. " cache_status from request_logs where request_text = '$question'"
		. ' order by id limit 1');
}
