#!/usr/bin/perl

# The SDKs of OpenAI and of Vercel, and LangChain, with their base URL and their
# key alone changed.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $modules = "$FindBin::Bin/../build/sdk/node_modules";
plan skip_all => 'no SDKs' if !-d "$modules/openai";

my $t = Test::Chatbot->new(
	http => "limit_req_zone \$chatbot_user zone=user:1m rate=30r/m;\n"
		. "map \$status \$api_retry { 429 2; }\n",
	conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_protocol openai;
chatbot_clients clients;
chatbot_read_timeout 2s;
chatbot_retries 0;

location /v1/ {
    chatbot_pass %%API%%;
}

location /limited/v1/ {
    chatbot_pass %%API%%;
    limit_req zone=user;
    limit_req_status 429;
    add_header Retry-After $api_retry always;
}
EOF

open my $fh, '>', $t->dir . '/clients' or die $!;
print $fh map { "$_ sk-$_\n" } qw/ openai vercel langchain /;
close $fh;
$t->run;

my $json = JSON::PP->new->canonical->utf8;
my ($api, $postgres) = ($t->openai, $t->postgres);
my %said;

# OpenAI's

%said = ask_sdk('openai');
like($said{answer}{text}, qr/^answer \d+: sdk$/, 'an answer');
cmp_ok($said{answer}{tokens}, '>', 0, 'its tokens');
like($said{answer}{id}, qr/^[0-9a-f]{32}$/, 'its request id');
like($said{stream}{text}, qr/: a stream of words$/, 'a stream');
cmp_ok($said{stream}{pieces}, '>', 1, 'in pieces');
cmp_ok($said{stream}{tokens}, '>', 0, 'its tokens');
is($said{$_}{name} . $said{$_}{arguments}, 'weather{"city":"Paris"}', $_)
	for qw/ tool final_tool response_tool /;
like($said{tools_run}{text}, qr/and what it says$/, 'a tool is called');
is($said{tools_run}{city}, 'Paris', 'with its arguments');

for (qw/ cached cached_stream cached_forms /) {
	my ($first, @others) = map { $json->encode($_) }
		@{ $said{$_}{replies} // [$said{$_}] };
	ok(@others, "$_, all came");
	is($others[$_ - 1], $first, "the same, member by member") for 1 .. @others;
}
my @kept = map { [$json->encode($_->{json}{messages}) =~ /(kept[^"]*)/] }
	$api->requests;
is(scalar(grep { @$_ } @kept), 3, 'each from the model but once');

like($said{response}{text}, qr/: sdk response$/, 'a response');
like($said{response}{id}, qr/^[0-9a-f]{32}$/, 'its request id');
like($said{response_stream}{text}, qr/: a streamed response$/, 'its stream');
is($said{response_stream}{end}, 'response.completed', 'to its end');
like($said{response_broken}{error}, qr/^(APIError|InternalServerError)$/,
	 'one that broke off');
is("@{ $said{models}{names} // [] }", 'gpt-6-luna', 'models');

is($said{missing}{error}, 'NotFoundError', 'a missing model');
is($said{missing}{code}, 'model_not_found', 'its code');
is($said{stranger}{error}, 'AuthenticationError', 'a wrong key');
is($said{wrong}{error}, 'BadRequestError', 'a wrong member');
is($said{wrong}{param}, 'messages', 'which');
like($said{retried}{text}, qr/again$/, 'tried again');
is($said{not_retried}{status}, 502, 'what may have been paid for');
is($said{not_retried}{times}, 1, 'is not tried again');
like($said{limited}{text}, qr/the second$/, 'limited, and then answered');
obeyed($said{limited});
is($said{limited_at_once}{error}, 'RateLimitError', 'limited');
is($said{limited_at_once}{code}, 'rate_limit_exceeded', 'its code');

like($said{aborted}{text}, qr/^answer/, 'aborted in mid-stream');
unlike($said{aborted}{text}, qr/ 200$/, 'not at its end');
is($said{aborted_early}{error}, 'APIUserAbortError', 'aborted before');
is($said{timeout}{error}, 'APIConnectionTimeoutError', 'a timeout of its own');
is($said{late_model}{error}, 'InternalServerError', 'a timeout of the model');
is($said{late_model}{status}, 504, 'its status');

# Vercel's

%said = ask_sdk('vercel');
like($said{answer}{text}, qr/: vercel$/, 'Vercel, an answer');
is($said{answer}{end}, 'stop', 'its end');
cmp_ok($said{answer}{tokens}, '>', 0, 'its tokens');
like($said{stream}{text}, qr/: a vercel stream$/, 'a stream');
cmp_ok($said{stream}{pieces}, '>', 1, 'in pieces');
cmp_ok($said{stream}{tokens}, '>', 0, 'its tokens');
for (qw/ tools streamed_tools /) {
	like($said{$_}{text}, qr/vercel's/, "$_, the answer");
	is($said{$_}{city}, 'Paris', 'after a call of a tool');
}
is($said{missing}{status}, 404, 'a missing model');
like($said{missing}{message}, qr/gpt-99/, 'which');
like($said{limited}{text}, qr/vercel's second$/, 'limited, and then answered');
obeyed($said{limited});
like($said{aborted}{text}, qr/^answer/, 'aborted in mid-stream');
unlike($said{aborted}{text}, qr/ 200$/, 'not at its end');
like($said{broken}{error}, qr/\boh$/, 'an error in mid-stream');

# LangChain

SKIP: {
	skip 'LangChain needs Node.js 20', 1
		if capture('node', '--version') =~ /^v1?\d\./ || !-d "$modules/\@langchain";

	%said = ask_sdk('langchain');
	like($said{answer}{text}, qr/: chain$/, 'LangChain, an answer');
	is($said{answer}{end}, 'stop', 'its end');
	cmp_ok($said{answer}{tokens}, '>', 0, 'its tokens');
	like($said{stream}{text}, qr/: a chain's stream$/, 'a stream');
	cmp_ok($said{stream}{pieces}, '>', 1, 'in pieces');
	cmp_ok($said{stream}{tokens}, '>', 0, 'its tokens');
	is($said{tool}{name} . $said{tool}{city}, 'weatherParis', 'a tool');
	is($said{batch}{text}, 'one of a batch; two of a batch', 'several at once');
	like($said{response}{text}, qr/: chain response$/, 'by POST responses');
	is($said{missing}{status}, 404, 'a missing model');
	like($said{limited}{text}, qr/chain's second$/, 'limited, and then answered');
	obeyed($said{limited});
	like($said{aborted}{text}, qr/^answer/, 'aborted in mid-stream');
	unlike($said{aborted}{text}, qr/ 200$/, 'not at its end');
}

# who left is recorded, too

my $row = sub { $postgres->sql("select status, client_name from request_logs"
	. " where request_text like '%$_[0]'") };
is(wait_for { $row->('abort early') }, 'success|openai', 'one who left');
ok(wait_for { $api->in_flight == 1 }, 'only the silent call is left');

done_testing();

###############################################################################

# What it was told, by the names of the questions.
sub ask_sdk {
	my ($sdk) = @_;
	my $said = capture('node', "$FindBin::Bin/lib/sdk/ask.js",
		'http://127.0.0.1:' . port(), $modules, $sdk);

	diag($said) if $ENV{TEST_VERBOSE};
	return map { ref ? ($_->{question} => $_) : () }
		map { eval { decode_json($_) } // diag($_) } split /\n/, $said;
}

# A second request is sent when the Retry-After of the first has passed.
sub obeyed {
	my ($said) = @_;
	my @waits = @{ $said->{waits} // [] };

	is(scalar(@waits), 2, 'tried again once');
	cmp_ok($waits[1] // 0, '>=', 1990, 'when Retry-After says');
}
