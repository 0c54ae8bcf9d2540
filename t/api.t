#!/usr/bin/perl

# "chatbot_protocol openai": what any SDK of OpenAI speaks.

use warnings;
use strict;

use Digest::SHA qw/ sha256_hex /;
use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(
	http => "limit_req_zone \$chatbot_user zone=user:1m rate=1r/m;\n"
		. "map \$status \$api_retry { 429 1; }\n",
	conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_retries 0;

location /v1/ {
    chatbot_pass %%API%%;
    chatbot_protocol openai;
    chatbot_clients clients;
    chatbot_model_alias gpt-4o gpt-6-luna;
    add_header X-Cache "$chatbot_cache_status $chatbot_user" always;
}

location /open/ {
    chatbot_pass %%API%%;
    chatbot_protocol openai;
    chatbot_cache_lock off;
    chatbot_redis off;
}

location /limited/ {
    chatbot_pass %%API%%;
    chatbot_protocol openai;
    chatbot_clients clients;
    limit_req zone=user;
    limit_req_status 429;
    add_header Retry-After $api_retry always;
}

location /closed/ {
    chatbot_pass %%API%%;
    chatbot_protocol openai;
    chatbot_clients env:CHATBOT_CLIENTS;
}

location /outer/ {
    chatbot_clients clients;

    location /outer/closed/ {
        chatbot_pass %%API%%;
        chatbot_protocol openai;
        chatbot_clients env:CHATBOT_CLIENTS;
    }
}

location /chat {
    chatbot_pass %%API%%;
}
EOF

write_file(clients => "# who may\nann key-of-ann\n\n"
	. "bob  sha256:" . sha256_hex('key-of-bob') . "\n");
$t->run;

my $json = JSON::PP->new->canonical->utf8;
my ($api, $postgres) = ($t->openai, $t->postgres);

# a reply in one piece

my $body = { model => 'gpt-6-luna', temperature => 0.5, seed => 1,
	messages => [{ role => 'system', content => 'Be brief.' },
		{ role => 'user', content => 'What is nginx?' }] };
my $first = completions($body);
is(status($first), 200, 'a reply');
is(header($first, 'Content-Type'), 'application/json', 'its type');
my $reply = reply($first);
is($reply->{choices}[0]{message}{content}, 'answer 1: What is nginx?', 'text');
is($reply->{object}, 'chat.completion', 'object');
ok(exists $reply->{choices}[0]{logprobs}, 'all members are kept');
like(header($first, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, 'request id');
is(header($first, 'X-Cache'), 'MISS ann', 'a miss of ann');

my $sent = asked();
is($json->encode($sent), $json->encode($body), 'the body goes as it came');

# it is cached, member by member, whatever the order and the form

my $second = completions('{ "seed":1, "user":"me", "messages" : '
	. $json->encode($body->{messages}) . ', "temperature":0.5,'
	. ' "model":"gpt-4o" }', key => 'key-of-bob');
is(body($second), body($first), 'the very same');
is(header($second, 'X-Cache'), 'HIT bob', 'a hit of bob, by an alias');
like(header($second, 'Cache-Status'), qr/^chatbot; hit/, 'Cache-Status');
is($api->calls, 1, 'one call');

my @events = events(completions({ %$body, stream => JSON::PP::true }));
is($events[-1], '[DONE]', 'as a stream, its end');
is(join('', map { content($_) } @events), 'answer 1: What is nginx?',
	'as a stream');
is(scalar(grep { /"usage"/ } @events), 0, 'without usage');
@events = events(completions({ %$body, stream => JSON::PP::true,
	stream_options => { include_usage => JSON::PP::true } }));
is($json->encode(decode_json($events[-2])->{usage}),
	$json->encode($reply->{usage}), 'with usage');
is($api->calls, 1, 'still one call');

isnt(reply(completions({ %$body, messages => [{ role => 'user',
	content => 'WHAT IS nginx?' }] }))->{choices}[0]{message}{content},
	'answer 1: What is nginx?', 'letter case counts');

# a stream

my $stream = { model => 'gpt-6-luna', stream => JSON::PP::true,
	messages => [{ role => 'user', content => [{ type => 'text',
		text => 'one two three' }] }] };
my $streamed = completions($stream);
is(status($streamed), 200, 'a stream');
is(header($streamed, 'Content-Type'), 'text/event-stream', 'its type');
@events = events($streamed);
is(join('', map { content($_) } @events), 'answer 3: one two three',
	'its text');
cmp_ok(scalar(@events), '>', 4, 'in pieces');
is($events[-1], '[DONE]', 'its end');
is(scalar(grep { /"choices":\[\]/ } @events), 0, 'no usage unless asked for');
ok(asked()->{stream_options}{include_usage}, 'but the upstream is asked for it');

my $joined = reply(completions({ %$stream, stream => JSON::PP::false }));
is($joined->{choices}[0]{message}{content}, 'answer 3: one two three',
	'the same in one piece');
is($joined->{choices}[0]{finish_reason}, 'stop', 'its end');
cmp_ok($joined->{usage}{completion_tokens}, '>', 0, 'its usage');
is($joined->{object}, 'chat.completion', 'its object');

# all a choice has, from a stream to one piece and back, however large

my $likely = { model => 'gpt-6-luna', logprobs => JSON::PP::true,
	top_logprobs => 3, messages => [{ role => 'user',
		content => '[words 2000] how likely is' }] };
my @streamed = events(completions({ %$likely, stream => JSON::PP::true }));
my @split = events(completions({ %$likely, stream => JSON::PP::true }));
$joined = reply(completions($likely));
is(tokens($joined->{choices}[0]), $joined->{choices}[0]{message}{content},
	'joined: the tokens are the text');
is(join('', map { tokens(decode_json($_)->{choices}[0]) } grep { /"logprobs"/ }
	@$_), $joined->{choices}[0]{message}{content}, 'events: as well')
	for \@streamed, \@split;
cmp_ok(scalar(@split), '<', 5, 'split anew');

# calls of tools

for my $streams (JSON::PP::false, JSON::PP::true) {
	my $tools = { model => 'gpt-6-luna', stream => $streams,
		tools => [{ type => 'function', function => { name => 'weather' } }],
		messages => [{ role => 'user', content => "[tool] $streams" }] };
	for my $form ($streams, !$streams) {
		my $got = completions({ %$tools, stream => $form
			? JSON::PP::true : JSON::PP::false });
		my $call = $form ? tool_call(events($got))
			: reply($got)->{choices}[0]{message}{tool_calls}[0]{function};
		is($call->{name}, 'weather', "a tool, $streams as " . ($form ? 1 : 0));
		is($call->{arguments}, '{"city":"Paris"}', 'its arguments');
	}
}

# equal ones at once

my $calls = $api->calls;
my @requests = map { completion_request({ model => 'gpt-6-luna',
	stream => $_ % 2 ? JSON::PP::true : JSON::PP::false,
	messages => [{ role => 'user', content => '[delay 0.3] at once' }] })
} 1 .. 100;
my @all = many(@requests);
is(scalar(grep { status($_) == 200 && /at once|once/ } @all), 100, 'all at once');
is($api->calls, $calls + 1, 'one call for all of them');

# models

my $models = reply(get('/v1/models', headers => [auth()]));
is(join(' ', map { $_->{id} } @{ $models->{data} }), 'gpt-6-luna gpt-4o',
	'models');

# POST responses

my $responses = sub {
	my ($input, %more) = @_;
	return completions({ model => 'gpt-4o', input => $input, %more },
		uri => '/v1/responses');
};
my $response = $responses->('one response', instructions => 'Be brief.');
is(status($response), 200, 'a response');
like(reply($response)->{output}[0]{content}[0]{text},
	qr/^answer \d+: one response$/, 'its text');
is($json->encode(asked()), $json->encode({ model => 'gpt-6-luna',
	input => 'one response', instructions => 'Be brief.' }), 'the body as it came');
like(($api->requests)[-1]{path}, qr{/responses$}, 'the path');
is(header($response, 'Cache-Status'), 'chatbot; fwd=bypass', 'its Cache-Status');
isnt(body($responses->('one response')), body($response), 'not cached');

my @parts = ({ role => 'user', content => 'before' },
	{ type => 'function_call_output', call_id => 'a', output => '1' },
	{ role => 'user', content => [{ type => 'input_text', text => 'a response' },
		{ type => 'input_text', text => ' in pieces' }] });
$response = $responses->(\@parts, stream => JSON::PP::true,
	stream_options => { include_obfuscation => JSON::PP::false });
is(header($response, 'Content-Type'), 'text/event-stream', 'a stream');
my @said = map { /^event: (\S+)\ndata: (.*)/ && [$1, decode_json($2)] }
	split /\n\n/, body($response);
is($said[0][0], 'response.created', 'its start');
is($said[-1][0], 'response.completed', 'its end');
like(join('', map { $_->[1]{delta} // '' } @said),
	qr/^answer \d+: a response in pieces$/, 'its text');
is($said[-1][1]{sequence_number}, $#said, 'all events');
ok(exists asked()->{stream_options}{include_obfuscation},
	'stream_options are the client\'s');

my $broke = $responses->('[status 200] [error message=oh] [slowstream 0.05]'
	. ' a b c d e f g h', stream => JSON::PP::true);
is(status($broke), 200, 'one that has begun');
my ($last) = $broke =~ /event: error\s+data: (.*)/;
ok($last && decode_json($last)->{error}{message}, 'ends as an error');
unlike($broke, qr/response\.completed/, 'and nothing but that');

my $failed = $responses->('[status 200] [error message=oh] [finish failed]'
	. ' [slowstream 0.05] a b c d e f', stream => JSON::PP::true);
($last) = $failed =~ /event: response\.failed\s+data: (.*)/;
is($last && decode_json($last)->{response}{error}{message}, 'oh',
	'a failed response as the model told it');
unlike($failed, qr/event: error/, 'told once');

my $half = $responses->('[half] half of a b c d e f g h',
	stream => JSON::PP::true);
like($half, qr/"error": \{"message": "/, 'so does one that breaks off');
unlike($half, qr/response\.completed/, 'whenever it does');
is(status($responses->('[status 400] no')), 400, 'refused upstream');
is(status($responses->('hi', model => 'gpt-99')), 404, 'an unknown model');
is(status(completions({ model => 'gpt-6-luna', input => 'hi' },
	uri => '/v1/responses', key => undef)), 401, 'without a key');
like(body($responses->('[tool] call')), qr/function_call/, 'a tool');

# errors

my %wrong = (
	'no key' => [401, 'invalid_api_key', undef, key => undef],
	'wrong key' => [401, 'invalid_api_key', undef, key => 'key-of-an'],
	'no JSON' => [400, undef, undef, body => '{"model":'],
	'no model' => [400, undef, 'model', body => { messages => [] }],
	'no messages' => [400, undef, 'messages', body => { model => 'gpt-6-luna' }],
	'other model' => [404, 'model_not_found', 'model',
		body => { %$body, model => 'gpt-99' }],
	'upstream, 400' => [400, undef, undef, body => text('[status 400]')],
	'upstream, 400 with a code' => [400, 'too_long', 'messages',
		body => text('[error code=too_long param=messages message=oh]')],
	'upstream, 401' => [502, undef, undef, body => text('[status 401]')],
	'upstream, 500' => [502, undef, undef, body => text('[status 500]')],
	'upstream, 429' => [503, undef, undef, body => text('[status 429]')],
	'compressed' => [415, undef, undef, headers => ['Content-Encoding: gzip']],
);
for my $name (sort keys %wrong) {
	my ($status, $code, $param, %how) = @{ $wrong{$name} };
	my $got = completions($how{body} // $body, %how);
	my $error = eval { reply($got)->{error} };
	is(status($got), $status, $name);
	is($error->{code}, $code, "$name, code");
	is($error->{param}, $param, "$name, param");
	ok($error->{message} && $error->{type}, "$name, in OpenAI's form");
}
is(reply(completions(text('[error code=long message=So long.]')))->{error}
	{message}, 'So long.', 'what is wrong with a request is told');
unlike(body(completions(text('[status 401]'))), qr/sk-|incorrect/i,
	'our key is none of a client\'s business');
my $busy = completions(text('[status 429]'));
is(header($busy, 'x-should-retry'), 'true', 'to be tried again');
like(header($busy, 'Retry-After'), qr/^\d+$/, 'when');
is(status(get('/v1/nothing', headers => [auth()])), 404, 'no such path');
is(reply(get('/v1/nothing', headers => [auth()]))->{error}{type},
	'invalid_request_error', 'in its form, too');
my $get = get('/v1/chat/completions', headers => [auth()]);
is(status($get), 405, 'GET');
is(header($get, 'Allow'), 'POST', 'what is allowed');
is(status(completions({ %$body, many => [(0) x 20000] })), 400,
	'too many values');

my @broken = events(completions({ model => 'gpt-6-luna',
	stream => JSON::PP::true, messages => [{ role => 'user',
		content => '[status 200] [error message=oh] a b c d' }] }));
ok(decode_json($broken[-1])->{error}{message}, 'an error in mid-stream');

completions($body, uri => '/limited/chat/completions');
my $limited = completions($body, uri => '/limited/chat/completions');
is(status($limited), 429, 'limited');
is(reply($limited)->{error}{code}, 'rate_limit_exceeded', 'its code');
is(header($limited, 'Retry-After'), 1, 'when to come again');
is(header($limited, 'x-should-retry'), 'true', 'an SDK does');
is(status(completions($body, uri => '/limited/chat/completions',
	key => 'key-of-bob')), 200, 'another client is not');

is(status(completions($body, uri => '/closed/chat/completions')), 401,
	'closed without a file of clients');
is(status(completions($body, uri => '/outer/closed/chat/completions')), 401,
	'closed, whoever is let in around it');
is(status(completions($body, uri => '/open/chat/completions', key => undef)),
	200, 'open to all');

# nothing of the client's goes upstream but its body

completions(text('headers'), headers => ['Cookie: a=b', 'Origin: http://x']);
unlike($json->encode(($api->requests)[-1]), qr/cookie|origin|key-of-ann/i, 'no header of the client');

# records

my $row = sub { $postgres->sql("select coalesce($_[0]::text, 'null') from"
	. " request_logs where request_text = '$_[1]' order by id limit 1") };
ok(wait_for { $row->('id', 'headers') }, 'recorded');
is($row->('client_name', 'What is nginx?'), 'ann', 'client_name');
is($row->('response_text', 'What is nginx?'), 'answer 1: What is nginx?', 'text');
like($row->('response_text', 'one response'), qr/^answer \d+: one response$/,
	'of a response');
like($row->('prompt_tokens', 'a response in pieces'), qr/^[1-9]/, 'its tokens');
is($row->('status', '[half] half of a b c d e f g h'), 'error',
	'of one that broke off');
like($row->('response_text', '[tool] call'), qr/"weather"/, 'of its tool');
is($row->('response_text', 'one two three'), 'answer 3: one two three',
	'of a stream');
like($row->('response_text', '[tool] 1'), qr/"weather"/, 'of a tool');
is($postgres->sql('select count(*) from request_logs where request_text'
	. " = '[delay 0.3] at once'"), 100, 'each of those at once');
is($postgres->sql("select string_agg(distinct status, ' ' order by status)"
	. ' from request_logs'), 'cached error success', 'statuses');

# beside a chat

is(header(ask('What is nginx?'), 'Content-Type'), 'application/json', 'a chat');
like(ask('What is nginx?'), qr/"source": "cache"/, 'has its own cache');

# wrong configurations

like($t->check("location / {\nchatbot_pass http://a;\nchatbot_protocol $_;\n}"),
	qr/\[emerg\].*"chatbot_protocol"/, "protocol $_") for 'grpc', '""';
like($t->check("location / {\nchatbot_pass http://a;\n"
	. "chatbot_protocol openai;\n}"), qr/\[warn\].*no "chatbot_clients"/,
	'an open door');
for ('ann', 'ann a b', 'ann sha256:abc', '# nobody') {
	write_file(wrong => "$_\n");
	like($t->check("location / {\nchatbot_pass http://a;\n"
		. 'chatbot_clients wrong;' . "\n}"), qr/\[emerg\].*"chatbot_clients"/,
		"clients, $_");
}

done_testing();

###############################################################################

sub auth { 'Authorization: Bearer ' . ($_[0] // 'key-of-ann') }

sub text { { model => 'gpt-6-luna', messages => [{ role => 'user',
	content => $_[0] }] } }

sub completion_request {
	my ($data, %opt) = @_;
	my $key = exists $opt{key} ? $opt{key} : 'key-of-ann';

	return request('POST', $opt{uri} // '/v1/chat/completions',
		headers => ['Content-Type: application/json',
			defined $key ? auth($key) : (), @{ $opt{headers} // [] }],
		body => ref $data ? $json->encode($data) : $data);
}

# Of a choice, those that it tells the likelihood of.
sub tokens {
	return join '', map { $_->{token} } @{ $_[0]{logprobs}{content} // [] };
}

sub completions { $t->http(completion_request(@_)) }

sub reply { decode_json(body($_[0])) }

sub events { map { s/^data: //r } split /\n\n/, body($_[0]) }

sub content {
	my ($event) = @_;
	return '' if $event eq '[DONE]';
	return decode_json($event)->{choices}[0]{delta}{content} // '';
}

# What the deltas of a call of a tool add up to.
sub tool_call {
	my %call;
	for (grep { $_ ne '[DONE]' } @_) {
		my $function = (decode_json($_)->{choices}[0]{delta}{tool_calls}
			// [])->[0]{function} or next;
		$call{$_} .= $function->{$_} // '' for qw/ name arguments /;
	}
	return \%call;
}

# The body of the last request upstream.
sub asked {
	my $text = ($api->requests)[-1]{body};
	utf8::encode($text);
	return decode_json($text);
}

sub write_file {
	my ($name, $text) = @_;

	open my $fh, '>', $t->dir . "/$name" or die "$name: $!";
	print $fh $text;
	close $fh;
}
