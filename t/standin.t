#!/usr/bin/perl

# The stand-in for the OpenAI API, t/lib/openai: what the other tests rely on.

use warnings;
use strict;

use FindBin;
use JSON::PP;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(openai => ['--retired', 'gpt-3.5-turbo']);
my $api = $t->openai;

# what it answers

my $reply = call('hi');
is(status($reply), 200, 'status');
like(header($reply, 'x-request-id'), qr/^req_/, 'request id');
like(answer($reply), qr/^answer 1: hi$/, 'first answer');
is(json($reply)->{choices}[0]{finish_reason}, 'stop', 'finish reason');
ok(json($reply)->{usage}{total_tokens} > 0, 'usage');
is(answer(call('hi')), 'answer 2: hi', 'counts');
is($api->calls, 2, 'calls');
$api->reset;
is(answer(call('hi')), 'answer 1: hi', 'reset');
like(http(request(GET => '/v1/models', headers => key()), at()),
	qr/"id":"gpt-6-luna"/, 'models');

my ($first, $second) = split /(?<=\})(?=HTTP)/,
	http(raw('one') =~ s/Connection: close\r\n//r . raw('two'), at());
like($first, qr/: one/, 'keep-alive');
like($second, qr/: two/, 'pipelined');
is($api->connections, 3, 'connections');

# what it refuses

like(call('hi', key => undef), qr/ 401 .*You didn't provide an API key/s,
	'no key');
like(call('hi', key => 'sk-other'), qr/ 401 .*"invalid_api_key"/s, 'wrong key');
like(call('hi', body => '{"model":'), qr/ 400 .*could not parse the JSON/s,
	'no JSON');
like(call('hi', body => "{\"model\":\"\xff\"}"), qr/ 400 .*could not parse/s,
	'no UTF-8');
like(call('hi', type => 'text/plain'), qr/ 400 .*unsupported_content_type/s,
	'content type');
like(call('hi', model => undef), qr/ 400 .*must provide a model/s, 'no model');
like(call('hi', model => 'gpt-9'), qr/ 404 .*model_not_found/s,
	'unknown model');
like(call('hi', model => 'gpt-3.5-turbo'), qr/ 404 .*has been deprecated/s,
	'retired model');
like(call('hi', messages => $_->[1]), qr/ 400 .*"$_->[0]"/s, "no $_->[0]")
	for ['messages', undef], ['messages', []], ['messages', 'hi'],
		['messages\[0\].role', [{ role => 'bot', content => '' }]],
		['messages\[0\].content', [{ role => 'user' }]];
like(call('hi', stream_options => {}), qr/ 400 .*only allowed when 'stream'/s,
	'stream options');
like(get('/v1/chat/completions', at()), qr/ 405 /, 'method');
like(get('/v1/other', at()), qr/ 404 .*Invalid URL \(GET \/v1\/other\)/s,
	'path');
is(status(call('hi', temperature => 0.5, seed => 7, stop => ['a'])), 200,
	'parameters');
is($api->calls, 4, 'refused calls are not counted as calls');
is($api->refused, 15, 'but as refused');

# failures on demand

like(call('[status 429] [header Retry-After: 1]'),
	qr/ 429 .*Retry-After: 1\r.*rate_limit_exceeded/s, 'status, header');
like(call('[error code=insufficient_quota message=no money]'),
	qr/ 429 .*"insufficient_quota".*"no money"/s, 'error');
is(join(' ', map { status(call('[status 500 x1] [status 503 x2]')) } 1 .. 3),
	'500 503 200', 'for a number of times');
is(call('[close]'), '', 'close');
is(call('[reset]'), '', 'reset');
is(call('[silent]', timeout => 0.2), '', 'silent');
my $half = call('[stall]', timeout => 0.2);
like($half, qr/"choices"/, 'stall, first half');
is(json($half), undef, 'stall, no second half');
is(json(call('[half]')), undef, 'half');
like(answer(call('[cut 100]')), qr/^answer/, 'cut');
like(answer(call('[trickle 0.01]')), qr/^answer/, 'trickle');
call('[delay 0.3]');
cmp_ok(slowest(), '>=', 0.3, 'delay');
is(length answer(call('[size 200000]')), 200000, 'size');
ok(length call('[endless]', timeout => 0.2) > 1e6, 'endless');
is(json(call('[garbage]')), undef, 'garbage');
like(call('[html]'), qr/ 200 .*text\/html.*<html>/s, 'html');
like(call('[redirect]'), qr/ 307 .*Location: /s, 'redirect');
is_deeply(json(call('[nochoice]'))->{choices}, [], 'no choice');
is(answer(call('[empty]')), '', 'empty');
is(answer(call('[null]')), undef, 'null');
like(json(call('[refusal]'))->{choices}[0]{message}{refusal}, qr/sorry/,
	'refusal');
like(call('[finish length]'), qr/"finish_reason":"length"/, 'finish reason');
like(call('[nul]'), qr/\\u0000/, 'nul');
like(call('[surrogate]'), qr/\\ud800"/, 'surrogate');
like(call('[badutf8]'), qr/\xff\xc0\xaf/, 'bad UTF-8');
like(answer(call('[blank]')), qr/^\s+answer.*\s+$/s, 'blank');
is(call('[together 2]', timeout => 0.2), '', 'together, alone');
like(answer(call('[words 3]')), qr/\] 1 2 3$/, 'words');
ok(length call('[bigheader]') > 400000, 'big header');
like(answer(call('what does [foo] mean?')), qr/: what does \[foo\] mean\?$/,
	'other brackets');

# streams

$reply = call('hi there', stream => \1,
	stream_options => { include_usage => \1 });
like($reply, qr/text\/event-stream/, 'stream');
like($reply, qr/data: \[DONE\]\n\n\r\n0\r\n\r\n$/, 'stream is done');
like(streamed($reply), qr/^answer \d+: hi there$/, 'stream, text');
like($reply, qr/"choices":\[\],.*"usage":\{/, 'stream, usage');
like(streamed(call('a b [slowstream 0.01]', stream => \1)), qr/: a b /,
	'slow stream');
like(call('[status 200] [error message=oh]', stream => \1),
	qr/"content":"answer".*data: \{"error":\{[^}]*"oh"/s, 'error in the middle');
unlike(call('[half]', stream => \1), qr/\[DONE\]/, 'half a stream');

# many at once

$api->reset;
my @replies = $t->many({ port => $api->{port}, timeout => 30 },
	map { raw("[together 1000] question $_") } 1 .. 1000);
is(scalar(grep { status($_) == 200 } @replies), 1000, 'a thousand at once');
like($replies[499], qr/question 500"/, 'each its own');
is($api->max_in_flight, 1000, 'in flight');
is($api->in_flight, 0, 'none left');

my @received = $api->requests;
is($received[0]{json}{messages}[0]{content}, 'hi', 'log of requests');

done_testing();

###############################################################################

# Options: key, type, body, timeout; all else are members of the request's body.
sub call {
	my ($text, %opt) = @_;
	return http(raw($text, %opt), at(), map { $_ => $opt{$_} }
		grep { exists $opt{$_} } 'timeout');
}

sub raw {
	my ($text, %opt) = @_;

	my @key = exists $opt{key} && !defined $opt{key} ? () : @{key($opt{key})};
	return request('POST', '/v1/chat/completions', headers => [@key,
		'Content-Type: ' . ($opt{type} // 'application/json')],
		body => $opt{body} // chat($text, %opt));
}

sub chat {
	my ($text, %members) = @_;

	delete @members{qw/ key type timeout /};
	%members = (model => 'gpt-6-luna', messages => [{ role => 'user',
		content => $text }], %members);
	return JSON::PP->new->utf8->encode({ map { $_ => $members{$_} }
		grep { defined $members{$_} } keys %members });
}

sub key { ['Authorization: Bearer ' . ($_[0] // 'sk-test')] }
sub at { return (port => $api->{port}) }
sub answer { json($_[0])->{choices}[0]{message}{content} }

sub streamed {
	my @events = body($_[0]) =~ /^data: (\{.*)/mg;
	return join '', map { $_->{choices}[0]{delta}{content} // '' }
		map { JSON::PP->new->utf8->decode($_) } @events;
}
