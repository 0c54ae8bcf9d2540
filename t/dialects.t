#!/usr/bin/perl

# Services that are compatible with the OpenAI API, each in its own way: what
# becomes of their replies, streams, errors and ends.

use warnings;
use strict;

use IO::Compress::Gzip qw/ gzip /;
use JSON::PP qw/ encode_json /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Upstream;

###############################################################################

# The first word of the question names the reply.  "missing" in it is for the
# model of this name only, "once" for the first call only.
my %reply = replies();
my $upstream = Test::Chatbot::Upstream->new(sub {
	my ($request) = @_;
	my ($name) = $request->{question} =~ /^(\S+)/;
	my $fine = whole(completion('fine'));

	return $fine if $name =~ /^missing/
		&& $request->{json}{model} ne 'org/bad';
	return $fine if $name =~ /^once/ && $request->{nth} > 1;
	return @{$reply{$name} // die};
});

my $t = Test::Chatbot->new(http => 'chatbot_retries 1; chatbot_postgres off;',
	conf => <<"EOF")->run;
location = /chat {
    chatbot_pass ${\$upstream->url};
    chatbot_model m;
    chatbot_redis %%REDIS%%;
}

location /models {
    chatbot_pass ${\$upstream->url};
    chatbot_model org/bad m;
    chatbot_redis off;
}

location = /whole_url {
    chatbot_pass ${\$upstream->url}/chat/completions/;
    chatbot_model m;
    chatbot_redis off;
}

location = /query {
    chatbot_pass ${\$upstream->url}/chat/completions/?api-version=1&a=b;
    chatbot_model m;
    chatbot_redis off;
}

location = /proxy {
    chatbot_pass http://no-such-host.invalid/v1;
    chatbot_proxy http://me:secret\@127.0.0.1:${\$upstream->port};
    chatbot_model m;
    chatbot_redis off;
}

location = /small {
    chatbot_pass ${\$upstream->url};
    chatbot_model m;
    chatbot_redis off;
    chatbot_answer_max_size 1k;
}
EOF

# replies that are read, and kept

for my $name (qw/ gzip bom spaces json_type_text stream stream_as_json
	stream_pings stream_bom stream_crlf stream_cr stream_no_space
	stream_null_end stream_usage stream_one_event stream_no_empty_lines
	end_COMPLETE end_eos end_eos_token end_end_turn end_STOP
	end_null end_empty end_none error_null /)
{
	is(answered($name), 'fine api', $name);
	is(answered($name), 'fine cache', "$name, kept");
}

# answers that are not kept

for my $name (qw/ end_length end_odd stream_odd /) {
	is(answered($name), 'fine api', $name);
	is(answered($name), 'fine api', "$name, not kept");
}

# errors, also inside a 200

is(tried($_), '200, 2 calls', $_)
	for qw/ once_429 once_top once_string once_choice once_choice_only
		once_event once_named once_gzip once_base_resp once_no_choices
		once_bare /;
is(tried($_), '502, 1 calls', $_)
	for qw/ money money_gzip money_inside refused_inside bomb garbage coding /;
is(tried('busy'), '503, 2 calls', 'busy inside a 200');
is(header(ask('later'), 'Retry-After'), 3600, 'Retry-After of a 200');
is(tried('bomb', uri => '/small'), '502, 1 calls', 'bomb, small answers');

# models that are missing

my @missing = grep { /^missing/ } sort keys %reply;
for my $i (0 .. $#missing) {
	ok($t->reload, 'a worker that knows nothing') if $i;
	is(tried($missing[$i], uri => '/models'), '200, 2 calls', $missing[$i]);
}
is(tried("no_$_", uri => '/models'), '502, 1 calls', "not missing: $_")
	for qw/ feature path /;

# the query of chatbot_pass, and a proxy

is(tried('fine', uri => '/query'), '200, 1 calls', 'a query');
is(($upstream->requests)[0]{path}, '/v1/chat/completions?api-version=1&a=b',
	'is kept');
is(tried('fine', uri => '/proxy'), '200, 1 calls', 'chatbot_proxy');
is(($upstream->requests)[0]{path},
	'http://no-such-host.invalid/v1/chat/completions', 'the proxy is asked');

# what the error log says

is(tried('fine', uri => '/whole_url'), '200, 1 calls',
	'/chat/completions at the end of chatbot_pass');
is(tried('redirect'), '502, 1 calls', 'redirect');
my $log = $t->error_log;
my $where = "upstream 127.0.0.1:${\$upstream->port}/v1/chat/completions";
like($log, qr{\Q$where answered 308 with a redirect to https://example.com/v1\E,
	.*\(request\ id\ req-7\)}x, 'redirect in the log');
unlike($log, qr/secret/, 'without its query');
like($log, qr/\Q$where\E answered 404: .*no such path/, 'path in the log');
like($log, qr/\Q$where\E answered 200: error 503/,
	'error inside a 200 in the log');
like($log, qr/content encoding/i, 'coding in the log');
is(tried('html'), '502, 1 calls', 'a page instead of a reply');
is(tried('empty'), '502, 1 calls', 'nothing instead of a reply');
is(tried('broken'), '502, 1 calls', 'a reply that is cut');
is(tried('gateway'), '502, 1 calls', 'a stream that is cut');
$log = $t->error_log;
like($log, qr/no JSON: <html>Sign in/, 'page in the log');
like($log, qr/an empty reply/, 'empty reply in the log');
unlike($log, qr/part of an answer/, 'no part of an answer in the log');
like($log, qr/ended before the answer did: upstream connect error/,
	'what the gateway said in the log');

# a proxy in the environment

$t = Test::Chatbot->new(http => 'chatbot_postgres off; chatbot_redis off;',
	env => { https_proxy => 'http://127.0.0.1:' . $upstream->port,
		http_proxy => 'http://127.0.0.1:' . $upstream->port,
		NO_PROXY => 'localhost,127.0.0.1', OPENAI_ORG_ID => 'org-1',
		OPENAI_PROJECT_ID => 'proj-1' },
	conf => <<"EOF")->run;
location = /chat {
    chatbot_pass http://no-such-host.invalid/v1;
}

location = /direct {
    chatbot_pass ${\$upstream->url};
}

location = /off {
    chatbot_pass http://no-such-host.invalid/v1;
    chatbot_proxy off;
    chatbot_retries 0;
}
EOF

is(tried('fine'), '200, 1 calls', 'http_proxy');
my ($request) = $upstream->requests;
is($request->{path}, 'http://no-such-host.invalid/v1/chat/completions',
	'the proxy is asked');
is("@{$request->{headers}}{qw/ openai-organization openai-project /}",
	'org-1 proj-1', 'OPENAI_ORG_ID, OPENAI_PROJECT_ID');
is(tried('fine', uri => '/direct'), '200, 1 calls', 'NO_PROXY');
is(($upstream->requests)[0]{path}, '/v1/chat/completions', 'asked directly');
is(tried('fine', uri => '/off'), '503, 0 calls', 'chatbot_proxy off');

done_testing();

###############################################################################

sub answered {
	my $reply = json(ask(@_)) or return 'none';
	return join ' ', map { $_ // 'none' } @$reply{qw/ response source /};
}

# The status, and how often the upstream was asked.
sub tried {
	my ($question, %opt) = @_;

	$upstream->reset;
	my $status = status(ask($question, %opt));
	return "$status, " . $upstream->calls . ' calls';
}

sub stream {
	my ($body, $type) = @_;
	return [whole($body, type => $type // 'text/event-stream')];
}

sub ending {
	my ($reason) = @_;
	return [whole(completion('fine', finish_reason => $reason))];
}

sub compressed {
	my ($body, %opt) = @_;

	gzip(\$body, \my $bytes);
	return [whole($bytes, %opt,
		headers => ['Content-Encoding: gzip', @{$opt{headers} // []}])];
}

sub error {
	my ($status, %error) = @_;
	return [failing($status, { error => \%error })];
}

sub replies {
	my $bom = "\xEF\xBB\xBF";
	my $fine = completion('fine');
	my $stop = delta('', finish_reason => 'stop');
	my $done = "data: [DONE]\n\n";
	my $events = delta('fi') . delta('ne') . $stop . $done;
	my @soon = (headers => ['Retry-After-Ms: 1']);
	my $money = encode_json({ error => { code => 'insufficient_quota' } });

	return (
		fine => [whole($fine)],
		gzip => compressed($fine),
		bom => [whole($bom . $fine)],
		spaces => [whole("\n" x 50 . $fine)],
		json_type_text => [whole($fine, type => 'text/plain')],
		stream => stream($events),
		stream_as_json => stream($events, 'application/json'),
		stream_pings => stream(": hello\n\ndata: ping\n\nevent: ping\ndata:\n\n"
			. ($events =~ s/\n\n/\n\n:\n\nretry: 5\n\n/r)),
		stream_bom => stream($bom . $events),
		stream_crlf => stream($events =~ s/\n/\r\n/gr),
		stream_cr => stream($events =~ s/\n/\r/gr),
		stream_no_space => stream($events =~ s/data: /data:/gr),
		stream_null_end => stream(delta('fine') . $done),
		stream_usage => stream(delta('fine') . $stop
			. qq(data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n$done)),
		stream_one_event => stream("data: $fine\n\n"),
		stream_no_empty_lines => stream($events =~ s/\n\n/\n/gr),
		end_COMPLETE => ending('COMPLETE'),
		end_eos => ending('eos'),
		end_eos_token => ending('eos_token'),
		end_end_turn => ending('end_turn'),
		end_STOP => ending('STOP'),
		end_null => ending(undef),
		end_empty => ending(''),
		end_none => [whole('{"choices":[{"message":{"content":"fine"}}]}')],
		error_null => [whole($fine =~ s/^\{/{"error":null,/r)],

		end_length => ending('length'),
		end_odd => ending('odd'),
		stream_odd => stream("data: {odd}\n\n$events"),

		once_429 => [failing(429, '{}', 'Retry-After-Ms: 1')],
		once_top => [whole('{"error":{"code":429,"message":"slow"}}', @soon)],
		once_string => [whole('{"error":"Overloaded"}', @soon)],
		once_choice => [whole(completion('', finish_reason => 'error',
			error => { code => 502, message => 'gone' }), @soon)],
		once_choice_only => [whole(completion('', finish_reason => 'error'),
			@soon)],
		once_event => [whole('data: {"error":{"code":503}}' . "\n\n",
			type => 'text/event-stream', @soon)],
		once_named => [whole("event: error\ndata: Overloaded\n\n",
			type => 'text/event-stream', @soon)],
		once_base_resp => [whole('{"choices":null,"base_resp":'
			. '{"status_code":1002,"status_msg":"rate limit"}}', @soon)],
		once_no_choices => [whole('{"message":"Too many requests"}', @soon)],
		once_bare => [whole(delta('half') . '{"error":{"code":503}}',
			type => 'text/event-stream', @soon)],
		once_gzip => compressed('{"error":{"message":"slow"}}', status => 429,
			@soon),
		money => [failing(429, $money)],
		money_gzip => compressed($money, status => 429),
		money_inside => [whole($money)],
		refused_inside => error(200, type => 'invalid_request_error'),
		busy => [whole('{"error":{"code":"503"}}',
			headers => ['Retry-After-Ms: 1'])],
		later => [whole('{"error":{"code":503}}',
			headers => ['Retry-After: 3600'])],
		bomb => compressed('{"x":"' . 'x' x 20_000_000),
		garbage => compressed('<html>'),
		html => [whole('<html>Sign in</html>', type => 'text/html')],
		empty => [whole('')],
		broken => [whole('{"choices":[{"message":{"content":"part of an answer')],
		gateway => [whole(delta('half') . "data: upstream connect error\n\n",
			type => 'text/event-stream')],
		coding => [whole($fine, headers => ['Content-Encoding: x-odd'])],
		redirect => [whole('', status => 308, headers => ['X-Request-ID: req-7',
			'Location: https://me:secret@example.com/v1?secret=1'])],

		missing_openai => error(404, code => 'model_not_found'),
		missing_deepseek => error(400, message => 'Model Not Exist'),
		missing_ollama => [failing(404,
			{ error => 'model "org/bad" not found, try pulling it first' })],
		missing_mistral => [failing(400, { object => 'error',
			message => 'Invalid model: org/bad', type => 'invalid_model' })],
		missing_openrouter => error(404,
			message => 'No endpoints found for org/bad.'),
		missing_gemini => [failing(404, [{ error => { code => 404,
			message => 'models/org/bad is not found for API version v1' } }])],
		missing_azure => error(404, code => 'DeploymentNotFound',
			message => 'The API deployment for this resource does not exist.'),
		missing_inside => error(200, code => 404,
			message => 'org/bad is not a valid model ID'),
		missing_key => error(401, type => 'key_model_access_denied',
			message => 'key not allowed to access model.'),
		missing_channel => error(503,
			message => 'No available channel for model org/bad'),
		missing_detail => [failing(404,
			{ detail => { error => 'Model is not available' } })],
		no_feature => error(400,
			message => 'org/bad is not supported with tools'),
		no_path => error(404, message => 'no such path'),
	);
}
