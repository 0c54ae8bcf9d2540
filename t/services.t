#!/usr/bin/perl

# A table of services: how each writes a reply, a stream, an error, a missing
# model, the natural end and an error inside a 200, and what becomes of it.

use warnings;
use strict;

use JSON::PP qw/ encode_json /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Upstream;

###############################################################################

my %services = services();
my $upstream = Test::Chatbot::Upstream->new(sub {
	my ($request) = @_;
	my ($name, $aspect) = split ' ', $request->{question};
	my $service = $services{$name};

	return whole(completion('fine'))
		if $aspect eq 'missing' && $request->{json}{model} eq 'm'
		|| $aspect =~ /^(error|inside)$/ && $request->{nth} > 1;
	return $service->{$aspect};
});

my $locations = join '', map { <<"EOF" } sort keys %services;
location /$_ {
    chatbot_pass ${\$upstream->url};
    chatbot_model bad-$_ m;
}
EOF
my $t = Test::Chatbot->new(http => 'chatbot_retries 1; chatbot_postgres off;',
	conf => "chatbot_redis %%REDIS%%;\n$locations")->run;

for my $name (sort keys %services) {
	is(asked($name, $_), '200 fine api, 1 calls', "$name, $_"),
		is(asked($name, $_), '200 fine cache, 0 calls', "$name, $_, kept")
		for qw/ reply stream end /;
	is(asked($name, $_), '200 fine api, 2 calls', "$name, $_")
		for qw/ error inside missing /;
	like($t->error_log, qr/\[warn\].*"bad-$name"/, "$name, missing, in the log");
}

done_testing();

###############################################################################

# What became of it, and how often the upstream was asked.
sub asked {
	my ($name, $aspect) = @_;

	$upstream->reset;
	my $reply = ask("$name $aspect", uri => "/$name");
	my $json = json($reply);
	return join ' ', status($reply), $json->{response} // 'none',
		($json->{source} // 'none') . ',', $upstream->calls, 'calls';
}

sub stream { whole(join('', @_), type => 'text/event-stream',
	headers => ['Retry-After-Ms: 1']) }
sub event { 'data: ' . encode_json($_[0]) . "\n\n" }

# An error that goes away, or one of a model that is missing.
sub failed {
	my ($status, $error) = @_;
	return failing($status, $error, 'Retry-After-Ms: 1');
}

sub services {
	my $done = "data: [DONE]\n\n";
	my $pieces = delta('fi') . delta('ne');
	my $stop = delta('', finish_reason => 'stop');
	my $usage = event({ choices => [], usage => { prompt_tokens => 5,
		completion_tokens => 2, total_tokens => 7 } });
	my $role = event({ choices => [{ index => 0,
		delta => { role => 'assistant', content => '' } }] });
	my $end = sub { whole(completion('fine', finish_reason => $_[0])) };

	return (
		openai => {
			reply => whole(completion('fine', logprobs => undef)),
			stream => stream($role, $pieces, $stop, $usage, $done),
			end => $end->('stop'),
			error => failed(429, { error => { message =>
				'Rate limit reached for m', type => 'requests',
				param => undef, code => 'rate_limit_exceeded' } }),
			inside => stream($role, event({ error => { message =>
				'The server had an error while processing your request',
				type => 'server_error', param => undef, code => undef } })),
			missing => failed(404, { error => { message => 'The model'
				. ' `bad-openai` does not exist or you do not have access to'
				. ' it.', type => 'invalid_request_error', param => undef,
				code => 'model_not_found' } }),
		},
		azure => {
			reply => whole(completion('fine', content_filter_results => {
				hate => { filtered => JSON::PP::false, severity => 'safe' } })),
			stream => stream(event({ choices => [], id => '', model => '',
				prompt_filter_results => [{ prompt_index => 0 }] }), $role,
				$pieces, $stop, $done),
			end => $end->('stop'),
			error => failed(429, { error => { code => '429', message =>
				'Requests have exceeded call rate limit. Please retry after'
				. ' 1 second.' } }),
			inside => stream(event({ error => { code => 'InternalServerError',
				message => 'Internal server error' } })),
			missing => failed(404, { error => { code => 'DeploymentNotFound',
				message => 'The API deployment for this resource does not'
				. ' exist.' } }),
		},
		openrouter => {
			reply => whole(completion('fine', native_finish_reason => 'stop')),
			stream => stream(": OPENROUTER PROCESSING\n\n" x 3, $pieces,
				$stop, $usage, $done),
			end => $end->('stop'),
			error => failed(429, { error => { code => 429, message =>
				'Provider returned error', metadata => { raw => 'busy' } },
				user_id => 'user_1' }),
			inside => whole(completion('', finish_reason => 'error',
				error => { code => 502, message => 'Upstream error' }),
				headers => ['Retry-After-Ms: 1']),
			missing => failed(400, { error => { code => 400, message =>
				'bad-openrouter is not a valid model ID' } }),
		},
		mistral => {
			reply => whole(completion('fine')),
			stream => stream($role, delta('fi'), event({ choices => [{
				index => 0, delta => { content => 'ne' },
				finish_reason => 'stop' }], usage => { prompt_tokens => 5,
				completion_tokens => 2 } }), $done),
			end => $end->('stop'),
			error => failed(429, { object => 'error', message =>
				'Service tier capacity exceeded for this model.',
				type => 'service_tier_capacity_exceeded', param => undef,
				code => '3505' }),
			inside => stream(event({ object => 'error', message =>
				'Service unavailable.', type => 'internal_server_error',
				param => undef, code => '3000' })),
			missing => failed(400, { object => 'error', message =>
				'Invalid model: bad-mistral', type => 'invalid_model',
				param => undef, code => '1500' }),
		},
		vllm => {
			reply => whole(completion('fine', stop_reason => undef)),
			stream => stream($role, $pieces, $stop, $usage, $done),
			end => $end->('stop'),
			error => failed(500, { object => 'error', message =>
				'EngineCore encountered an issue.', type =>
				'InternalServerError', param => undef, code => 500 }),
			inside => stream(event({ error => { object => 'error', message =>
				'EngineCore encountered an issue.', type =>
				'InternalServerError', param => undef, code => 500 } }), $done),
			missing => failed(404, { object => 'error', message =>
				'The model `bad-vllm` does not exist.', type =>
				'NotFoundError', param => undef, code => 404 }),
		},
		ollama => {
			reply => whole(completion('fine')),
			stream => stream($role, $pieces, $stop, $done),
			end => $end->('stop'),
			error => failed(503, { error => { message => 'server busy, please'
				. ' try again.  maximum pending requests exceeded',
				type => 'api_error', param => undef, code => undef } }),
			inside => whole('{"error":"llama runner process has terminated"}',
				headers => ['Retry-After-Ms: 1']),
			missing => failed(404, { error => { message => 'model'
				. ' "bad-ollama" not found, try pulling it first', type =>
				'api_error', param => undef, code => undef } }),
		},
		litellm => {
			reply => whole(completion('fine')),
			stream => stream($pieces, $stop, $done),
			end => $end->('eos'),
			error => failed(429, { error => { message =>
				'litellm.RateLimitError: No deployments available', type =>
				'None', param => 'None', code => '429' } }),
			inside => stream(event({ error => { message =>
				'litellm.InternalServerError: connection error', type => 'None',
				param => 'None', code => '500' } })),
			missing => failed(400, { error => { message => '/chat/completions:'
				. ' Invalid model name passed in model=bad-litellm. Call'
				. ' `/v1/models` to view available models for your key.',
				type => 'invalid_request_error', param => undef,
				code => '400' } }),
		},
		anthropic => {
			reply => whole(completion('fine', finish_reason => 'stop')),
			stream => stream("event: ping\ndata: {\"type\": \"ping\"}\n\n",
				$pieces, $stop, $done),
			end => $end->('end_turn'),
			error => failed(529, { type => 'error', error => { type =>
				'overloaded_error', message => 'Overloaded' } }),
			inside => stream("event: error\n" . event({ type => 'error',
				error => { type => 'overloaded_error',
					message => 'Overloaded' } })),
			missing => failed(404, { type => 'error', error => { type =>
				'not_found_error', message => 'model: bad-anthropic' } }),
		},
		gemini => {
			reply => whole(completion('fine')),
			stream => stream(event({ choices => [{ index => 0, delta => {
				role => 'assistant', content => 'fine' },
				finish_reason => 'stop' }] }), $done),
			end => $end->('STOP'),
			error => failed(503, [{ error => { code => 503, message =>
				'The model is overloaded.', status => 'UNAVAILABLE' } }]),
			inside => whole(encode_json([{ error => { code => 503, message =>
				'The model is overloaded.', status => 'UNAVAILABLE' } }]),
				headers => ['Retry-After-Ms: 1']),
			missing => failed(404, [{ error => { code => 404, message =>
				'models/bad-gemini is not found for API version v1main, or is'
				. ' not supported for generateContent.',
				status => 'NOT_FOUND' } }]),
		},
	);
}
