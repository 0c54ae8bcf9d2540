#!/usr/bin/perl

# "make worst": how long one request can hold the event loop, for the worst
# requests that a client can send with the shipped limits.
#
# What is measured is the CPU time that the worker's event loop takes for all of
# a request, from accept() to close(): the least and the median of several
# runs.  It may be cut into several turns, so this is an upper bound.
#
# Environment: RUNS (30).

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot qw/ http request status /;
use Test::Chatbot::Server qw/ read_file wait_for /;

my $runs = $ENV{RUNS} // 30;

my $t = Test::Chatbot->new(http => <<'HTTP', conf => <<'EOF')->run;
large_client_header_buffers 4 64k;
client_max_body_size 112k;
HTTP
location /chat {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
}
location /unlimited {
    client_max_body_size 0;
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
}
location /v1 {
    client_max_body_size 256k;
    chatbot_pass %%API%%;
    chatbot_protocol openai;
    chatbot_model gpt-6-luna;
    chatbot_redis %%REDIS%%;
}
EOF

my $max_body = 7 * 16384;
my ($worker) = $t->workers;
my $number = 0;

worst('a short question', question('hi'));
worst('16k of ASCII', question('A' x 16000));
worst('16k of letters with two marks', question("\x{1F82}" x 5400));
worst('16k of combining marks, not in order', question(marks(16000)));
worst('16k as \u0061', json_text('\u0061' x 16000));
worst('20 messages before, 64k of ASCII', conversation('A' x 3200));
worst('20 messages before, 64k of marks, not in order',
	conversation(marks(3200)));
worst('a stream asked for again, by a name of 60k', request('GET',
	'/chat?query=NUMBER&stream=1', headers => [
		'Last-Event-ID: ' . 'a' x 60_000 . '.1']));
worst('4000 numbers', padded('[' . '0,' x 3990 . '0]'));
worst('4000 members without a name',
	padded('{' . '"":0,' x 3990 . '"":0}'));
worst('4000 strings', padded('[' . '"\u0061",' x 3990 . '0]'));
worst('4000 arrays, 110 levels deep',
	padded('[' . join(',', ('[' x 110 . ']' x 110) x 36) . ']'));
worst('112k of numbers: too many', padded('[' . '0,' x 56000 . '0]'));
worst('112k of escapes, then a fault',
	padded('["' . '\u0061' x 19000 . '\ud800"]'));
worst('a form of 57000 fields', form('a&' x 57000));
worst('a form of 14000 fields "query"', form('query=a&' x 14000));
worst('a form, 16k as %61', form('query=' . '%61' x 16000));
worst('2000 parts', parts(part('a', '') x 2000));
worst('a part of 55000 lines', parts(part('query', "\r\n" x 55000)));
worst('a part of 28000 delimiters but one byte',
	parts(part('a', "\r\n--" x 28000)));
worst('a JSON body of 1 MB, chunked', chunked('/unlimited', '[0,' x 350_000));
worst('a URI of 60k, 16k as %61', request('GET', '/chat?query=' . '%61' x 16000
	. '&a' x 6000));
worst('four headers of 60k', request('GET', '/chat?query=hi', headers => [
	map { "X-$_: " . 'a' x 60_000 } 1 .. 4]));

worst('API: 19,000 values', api('hi', '"tools": [' . '0,' x 19000 . '0],'));
worst('API: 16,000 members, not in order', api('hi', '"tools": {'
	. join(',', map { sprintf '"%d":0', 99999 - $_ } 1 .. 16000) . '},'));
worst('API: 128 tools of 8 parameters', api('hi', '"tools": ['
	. join(',', map { tool($_) } 1 .. 128) . '],'));

my $logprobs = '"logprobs": true, "top_logprobs": 20, ';
worst('API: 2 MB of logprobs from the cache', api('[words 2000]', $logprobs));
worst('API: the same as a stream',
	api('[words 2000]', "$logprobs\"stream\": true,"));
worst('API: 1 MB of text from the cache', api('[size 1000000]', ''));
worst('API: the same as a stream', api('[size 1000000]', '"stream": true,'));

pass('measured');
done_testing();

###############################################################################

sub worst {
	my ($name, $request) = @_;
	my @taken;

	my $status;
	for (1 .. $runs) {
		my $before = event_loop_ns();
		$status = status(http($request =~ s/NUMBER/sprintf '%08d', ++$number/er));
		push @taken, event_loop_ns() - $before;
	}

	@taken = sort { $a <=> $b } @taken;
	diag(sprintf '%-42s %3d  %6.2f ms, median %6.2f ms', $name, $status,
		map { $_ / 1e6 } @taken[0, @taken / 2]);
}

# The CPU time of the worker's first thread, once the worker is idle.
sub event_loop_ns {
	my $last = -1;
	my $now = 0;
	wait_for {
		$last = $now;
		($now) = split ' ', read_file("/proc/$worker/task/$worker/schedstat");
		$now == $last;
	};
	return $now;
}

sub marks {
	my ($size) = @_;
	my @marks = ("\x{345}", "\x{35D}", "\x{35C}", "\x{315}", "\x{301}",
		"\x{316}", "\x{31B}", "\x{327}", "\x{334}");
	return join '', 'a', map { $_ x ($size / 2 / @marks) } @marks;
}

# Each question is another one, so that each is folded, looked up and asked.
sub question {
	my ($text) = @_;
	utf8::encode($text);
	return json_text($text);
}

sub json_text { json_request(qq({"query": "NUMBER $_[0]"})) }

sub conversation {
	my ($text) = @_;
	utf8::encode($text);
	return json_request('{"messages": [' . join(',', map { sprintf
		'{"role": "%s", "content": "%s"}', $_ % 2 ? 'assistant' : 'user', $text
		} 0 .. 19) . ', {"role": "user", "content": "NUMBER"}]}');
}

# The answer is in the cache from the second run on.
sub api {
	my ($text, $members) = @_;
	my $data = qq({"model": "gpt-6-luna", $members
		"messages": [{"role": "user", "content": "$text"}]});
	return request('POST', '/v1/chat/completions', headers => [
		'Content-Type: application/json'], body => $data);
}

sub tool {
	my ($n) = @_;
	return qq({"type": "function", "function": {"name": "tool_$n", "parameters": )
		. '{"type": "object", "properties": {' . join(',', map { qq("p$_": )
		. '{"type": "string", "description": "what it is"}' } 1 .. 8) . '}}}}';
}

sub padded { json_request(qq({"query": "NUMBER", "a": $_[0]})) }

sub json_request { post('application/json', @_) }

sub form { post('application/x-www-form-urlencoded', "query=NUMBER&$_[0]") }

sub parts {
	my ($parts) = @_;
	return post('multipart/form-data; boundary=X', $parts
		. part('query', 'NUMBER') . "--X--");
}

sub part {
	my ($name, $value) = @_;
	return "--X\r\nContent-Disposition: form-data; name=$name\r\n\r\n$value\r\n";
}

sub post {
	my ($type, $data) = @_;
	$data =~ s/NUMBER/00000000/;
	die "$type: the body is too long" if length $data > $max_body;
	return request('POST', '/chat', headers => ["Content-Type: $type"],
		body => $data) =~ s/00000000/NUMBER/r;
}

sub chunked {
	my ($uri, $data) = @_;
	return request('POST', $uri, headers => ['Transfer-Encoding: chunked',
		'Content-Type: application/json'])
		. sprintf "%x\r\n%s\r\n0\r\n\r\n", length $data, $data;
}
