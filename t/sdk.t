#!/usr/bin/perl

# The SDKs of OpenAI and of Vercel, with their base URL alone changed.

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

my $t = Test::Chatbot->new(conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_retries 0;

location /v1/ {
    chatbot_pass %%API%%;
    chatbot_protocol openai;
    chatbot_clients clients;
}
EOF

open my $fh, '>', $t->dir . '/clients' or die $!;
print $fh "sdk sk-sdk\n";
close $fh;
$t->run;

my @lines = split /\n/, capture('node', "$FindBin::Bin/lib/sdk/ask.js",
	'http://127.0.0.1:' . port() . '/v1', 'sk-sdk', $modules);
my %said = map { ref ? ($_->{question} => $_) : () }
	map { eval { decode_json($_) } // diag($_) } @lines;

like($said{answer}{text}, qr/^answer \d+: sdk$/, 'an answer');
cmp_ok($said{answer}{tokens}, '>', 0, 'its tokens');
like($said{answer}{id}, qr/^[0-9a-f]{32}$/, 'its request id');
like($said{stream}{text}, qr/: a stream of words$/, 'a stream');
ok($said{stream}{pieces} && $said{stream}{tokens}, 'in pieces, and its tokens');
is($said{$_}{name} . $said{$_}{arguments}, 'weather{"city":"Paris"}', $_)
	for qw/ tool final_tool /;
like($said{response}{text}, qr/: sdk response$/, 'a response');
like($said{response_stream}{text}, qr/: a streamed response$/, 'its stream');
is($said{response_stream}{end}, 'response.completed', 'to its end');
like($said{response_broken}{error}, qr/^(APIError|InternalServerError)$/,
	 'one that broke off');
is("@{ $said{models}{names} // [] }", 'gpt-6-luna', 'models');
is($said{missing}{error}, 'NotFoundError', 'a missing model');
is($said{missing}{code}, 'model_not_found', 'its code');
is($said{stranger}{error}, 'AuthenticationError', 'a wrong key');
like($said{retried}{text}, qr/again$/, 'tried again');
ok($said{aborted}{ended}, 'aborted');
is($said{timeout}{error}, 'APIConnectionTimeoutError', 'a timeout');
like($said{vercel}{text}, qr/: vercel$/, 'the AI SDK');
like($said{vercel}{all}, qr/: a vercel stream$/, 'its stream');

done_testing();
