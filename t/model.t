#!/usr/bin/perl

# What the API is asked, and what becomes of its replies.

use warnings;
use strict;

use IO::Socket::INET;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(openai => ['--retired', 'gpt-3.5-turbo'],
	conf => <<'EOF')->run;

chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}

location /plain {
    chatbot_pass %%API%%/plain/;
    chatbot_model gpt-6-luna;
    chatbot_system_prompt "";
}

location /params {
    chatbot_pass %%API%%;
    chatbot_model gpt-6-luna;
    chatbot_system_prompt "Отвечай \"коротко\".";
    chatbot_param temperature 0.2;
    chatbot_param max_completion_tokens 100;
    chatbot_param store false;
    chatbot_param stop '["\n", "END"]';
    chatbot_param user '"42"';
    chatbot_param reasoning_effort low;
    chatbot_param metadata '{"a": "b"}';
    chatbot_param seed 1234567890123456789;
}

location /no_key {
    chatbot_pass %%API%%;
    chatbot_api_key "";
}

location /unknown {
    chatbot_pass %%API%%/unknown;
    chatbot_model gpt-9 gpt-10;
}

location /third {
    chatbot_pass %%API%%/third;
    chatbot_model gpt-9 gpt-3.5-turbo gpt-6-luna;
}

location /unstreamed {
    chatbot_pass %%API%%;
    chatbot_upstream_stream wanted;
}

location /once {
    chatbot_pass %%API%%;
    chatbot_retries 0;
}

location /small {
    chatbot_pass %%API%%;
    chatbot_answer_max_size 1k;
}

location /impatient {
    chatbot_pass %%API%%;
    chatbot_read_timeout 500ms;
}

location /short {
    chatbot_pass %%API%%;
    chatbot_timeout 1s;
}

location /far {
    chatbot_pass http://127.0.0.1:%%PORT_1%%/v1;
    chatbot_connect_timeout 200ms;
    chatbot_retries 0;
}
EOF

my $quick = '[header Retry-After-Ms: 20]';
my $sent = 0;

# the request

like(ask('hi'), qr/"answer 1: hi"/, 'answer');
my ($missing, $asked) = sent();
is($missing->{json}{model}, 'gpt-3.5-turbo', 'first model');
is($asked->{json}{model}, 'gpt-6-luna', 'second model');
is($asked->{method} . ' ' . $asked->{path}, 'POST /v1/chat/completions',
	'path');
is($asked->{headers}{authorization}, 'Bearer sk-test', 'key');
like($asked->{headers}{'content-type'}, qr{^application/json}, 'type');
is(messages($asked), 'system: You are a helpful assistant. user: hi',
	'messages');
is($asked->{json}{reasoning_effort}, 'none', 'does not think by default');
is($missing->{json}{reasoning_effort}, undef, 'another model is not told so');
is_deeply([sort keys %{$asked->{json}}],
	[qw/ messages model reasoning_effort stream stream_options /],
	'nothing else');

ask('unstreamed', uri => '/unstreamed');
ok(!(sent())[0]{json}{stream}, 'chatbot_upstream_stream wanted');
get('/unstreamed?query=streamed&stream=1');
ok((sent())[0]{json}{stream}, 'chatbot_upstream_stream wanted, and it is');

# models

ask('another');
is(join(' ', map { $_->{json}{model} } sent()), 'gpt-6-luna',
	'missing model is passed over');
is(warnings('gpt-3.5-turbo'), 1, 'and warned of once');
is(status(ask('hi', uri => '/third')), 200, 'third model');
is(join(' ', map { $_->{json}{model} } sent()),
	'gpt-9 gpt-3.5-turbo gpt-6-luna', 'all models in their order');
is(status(ask('hi', uri => '/unknown')), 502, 'no model');
is(join(' ', map { $_->{json}{model} } sent()), 'gpt-9 gpt-10',
	'no model, all were asked');
ask('again', uri => '/unknown');
sent();
is(warnings('gpt-10'), 1, 'no model, warned of once');

# prompt, parameters, key

ask('  "Как" так?\\ ', uri => '/plain');
($asked) = sent();
is($asked->{path}, '/v1/plain/chat/completions', 'slash at the end of the URL');
is(messages($asked), 'user:   "Как" так?\\ ', 'no prompt');

like(ask('hi', uri => '/params'), qr/"answer/, 'parameters');
($asked) = sent();
is(messages($asked), 'system: Отвечай "коротко". user: hi', 'prompt');
like($asked->{body}, qr/\Q$_\E[,}]/, "parameter $_")
	for '"temperature":0.2', '"max_completion_tokens":100',
		'"store":false', '"stop":["\n", "END"]', '"user":"42"',
		'"reasoning_effort":"low"', '"metadata":{"a": "b"}',
		'"seed":1234567890123456789';

is(status(ask('who?', uri => '/no_key')), 502, 'no key');
is((sent())[0]{headers}{authorization}, undef, 'no key, no header');

# retries

is(tried("[status 429 x2] $quick"), '200, 3 calls', '429 twice');
is(tried("[status 429] $quick"), '503, 3 calls', '429 for ever');
is(tried("[status 500] $quick"), '502, 3 calls', '500 for ever');
is(tried("[status $_ x1] $quick"), '200, 2 calls', "$_ once")
	for 408, 409, 500, 502, 503, 504, 529;
is(tried("[status $_]"), '502, 1 calls', "$_ is final")
	for 400, 401, 403, 422;
is(tried('[status 404]', uri => '/plain'), '502, 1 calls', '404 is final');
is(tried("[status 400 x1] $quick [header x-should-retry: true]"),
	'200, 2 calls', 'x-should-retry: true');
is(tried("[status 500] [header x-should-retry: false]"), '502, 1 calls',
	'x-should-retry: false');
is(tried("[error code=$_]"), '502, 1 calls', $_)
	for 'insufficient_quota', 'billing_hard_limit_reached',
		'organization_spend_limit_exceeded';
is(tried_all({ uri => '/impatient' }, '[silent]', '[stall]'),
	'504 504, 2 calls', 'read timeout');
is(tried("[status 500] $quick", uri => '/once'), '502, 1 calls',
	'chatbot_retries 0');

is(tried_all({}, '[reset x1]', '[close x1]', '[half x1]', '[status 500 x1]',
	'[status 429 x1] [header Retry-After: 1]'), '200 200 200 200 200, 10 calls',
	'lost connections, no Retry-After, Retry-After');
cmp_ok(slowest(), '>=', 1, 'Retry-After is honoured');

# not in vain

is(tried('[status 429] [header Retry-After: 3600]'), '503, 1 calls',
	'long Retry-After');
is(tried('[status 429] [header Retry-After: 59]', uri => '/short'),
	'503, 1 calls', 'Retry-After beyond chatbot_timeout');
cmp_ok(slowest(), '<', 30, 'is not waited for');
is(header(ask('[status 429] [header Retry-After: 8]', uri => '/short'),
	'Retry-After'), 8, 'but handed on');

# timeouts

is(status(ask('[trickle 0.02]', uri => '/impatient')), 200,
	'chatbot_read_timeout, slow bytes');
is(tried_all({ uri => '/short' }, '[trickle 0.2]', '[silent]'),
	'504 504, 2 calls', 'chatbot_timeout');
cmp_ok(slowest(), '<', 20, 'chatbot_timeout, in time');

my @crowd = crowd(port(1));
is(status(ask('how far?', uri => '/far')), 503, 'chatbot_connect_timeout');
cmp_ok(slowest(), '<', 20, 'chatbot_connect_timeout, in time');

# answers that are not kept

for my $how ('refusal', 'finish length', 'finish content_filter') {
	like(ask("[$how]"), qr/chatbot; fwd=miss\r.*"api"/s, "[$how]");
	like(ask("[$how]"), qr/chatbot; fwd=miss\r.*"api"/s, "[$how], again");
}

like(ask('[finish stop]'), qr/fwd=miss\r.*"api"/s, '[finish stop]');
like(ask('[finish stop]'), qr/hit.*"cache"/s, '[finish stop], kept');
like(ask('[refusal]'), qr/"response": "I'm sorry/, 'the refusal');

# no answers

is(tried("[$_]"), '502, 1 calls', "[$_]")
	for qw/ empty null nochoice garbage html redirect bigheader /;
is(tried('[endless]', uri => '/small'), '502, 1 calls', '[endless]');
is(tried('[size 1024]', uri => '/small'), '200, 1 calls', 'largest answer');
is(tried('[size 1025]', uri => '/small'), '502, 1 calls', 'larger answer');
is(tried('[size 100000]', uri => '/small'), '502, 1 calls', 'large answer');
is(tried('[size 1048577]'), '502, 1 calls', 'larger answer by default');

# bytes

for my $how (qw/ badutf8 nul surrogate /) {
	my $reply = ask("[$how]");
	my $text = qr/answer \d+: \[$how\](\xEF\xBF\xBD)+/;
	like($reply, qr/"$text"/, "[$how]");
	like(row($reply), qr/^$text$/, "[$how], row");
}
like(ask('[cut 300]'), qr/"answer/, 'cut');

my $log = $t->error_log;
like($log, qr/\[error\].*$_/, "error log: $_")
	for 'answered 500', 'no JSON', 'without text', 'sent nothing for 500 ms',
		'no answer within 1000 ms', 'could not be reached within 200 ms';

done_testing();

###############################################################################

# What was sent to the API since the last time.
sub sent {
	my @requests = $t->openai->requests;
	return @requests[(my $from = $sent) .. ($sent = @requests) - 1];
}

sub messages {
	my ($request) = @_;
	my $text = join ' ', map { "$_->{role}: $_->{content}" }
		@{$request->{json}{messages}};

	utf8::encode($text);
	return $text;
}

# The status, and how often the API was asked.
sub tried {
	my ($text, %opt) = @_;
	return tried_all(\%opt, $text);
}

sub tried_all {
	$t->openai->reset;
	my $statuses = join ' ', map { status($_) } many(@_);
	my $counters = $t->openai->counters;
	return "$statuses, " . ($counters->{calls} + $counters->{refused})
		. ' calls';
}

sub warnings {
	my ($model) = @_;
	return scalar(() = $t->error_log =~
		/\[warn\].*"\Q$model\E" is passed over/g);
}

sub row {
	my $sql = sprintf "select response_text from request_logs"
		. " where request_id = '%s'", header($_[0], 'X-Request-ID');

	wait_for { $t->postgres->sql($sql) ne '' };
	return $t->postgres->sql($sql);
}

# Connections to a port until it takes no more.
sub crowd {
	my ($port) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
		LocalPort => $port, Listen => 1, ReuseAddr => 1) or die "listen: $!";

	my @sockets = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $port, Blocking => 0) } 1 .. 8;
	return ($listener, @sockets);
}
