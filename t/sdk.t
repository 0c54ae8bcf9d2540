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
use Test::Chatbot::Sdk;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $modules = "$FindBin::Bin/../build/sdk/node_modules";
plan skip_all => 'no SDKs' if !-d "$modules/openai";

my $t = api_for_sdks(qw/ openai vercel langchain /);
my $json = JSON::PP->new->canonical->utf8;
my ($api, $postgres) = ($t->openai, $t->postgres);
my %said;

# OpenAI's

%said = ask_sdk('openai');
answers_openai_sdk(%said);
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

like($said{response_broken}{error}, qr/^(APIError|InternalServerError)$/,
	 'one that broke off');

is($said{limited_at_once}{error}, 'RateLimitError', 'limited');
is($said{limited_at_once}{code}, 'rate_limit_exceeded', 'its code');

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
	return said('node', sdk_scripts() . '/ask.js',
		'http://127.0.0.1:' . port(), $modules, $sdk);
}
