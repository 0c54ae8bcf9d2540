package Test::Chatbot::Sdk;

# What the tests of SDKs share: the API as a user has it, and what an SDK says.
#
#     my $t = api_for_sdks('openai', 'vercel');     clients, with keys sk-NAME
#     my %said = said('node', 'ask.js', ...);
#
# The program prints one line of JSON for each of its questions; said() returns
# these by the name of the question.  It runs in its own process, so that an SDK
# is tried as it is.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use Exporter qw/ import /;
use File::Basename qw/ dirname /;
use JSON::PP;
use Test::More;

use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

our @EXPORT = qw/ answers_openai_sdk api_for_sdks obeyed said sdk_scripts /;

# The folder of the programs.
sub sdk_scripts { abs_path(dirname(__FILE__) . '/../../sdk') }

# /v1/, and /limited/v1/ with a request each 2 s.
sub api_for_sdks {
	my @clients = @_;

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
	print $fh map { "$_ sk-$_\n" } @clients;
	close $fh;
	return $t->run;
}

sub said {
	my @command = @_;
	my $said = capture(@command);

	diag($said) if $ENV{TEST_VERBOSE};
	return map { ref ? ($_->{question} => $_) : () }
		map { eval { decode_json($_) } // diag($_) } split /\n/, $said;
}

# What OpenAI's SDKs of any language say alike.
sub answers_openai_sdk {
	my %said = @_;

	like($said{answer}{text}, qr/^answer \d+: sdk$/, 'an answer');
	cmp_ok($said{answer}{tokens}, '>', 0, 'its tokens');
	like($said{answer}{id}, qr/^[0-9a-f]{32}$/, 'its request id');
	like($said{stream}{text}, qr/: a stream of words$/, 'a stream');
	cmp_ok($said{stream}{pieces}, '>', 1, 'in pieces');
	cmp_ok($said{stream}{tokens}, '>', 0, 'its tokens');

	like($said{response}{text}, qr/: sdk response$/, 'a response');
	like($said{response}{id}, qr/^[0-9a-f]{32}$/, 'its request id');
	like($said{response_stream}{text}, qr/: a streamed response$/, 'its stream');
	is($said{response_stream}{end}, 'response.completed', 'to its end');
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

	like($said{aborted}{text}, qr/^answer/, 'aborted in mid-stream');
	unlike($said{aborted}{text}, qr/ 200$/, 'not at its end');
}

# A second request is sent when the Retry-After of the first has passed.
sub obeyed {
	my ($said) = @_;
	my @waits = @{ $said->{waits} // [] };

	is(scalar(@waits), 2, 'tried again once');
	cmp_ok($waits[1] // 0, '>=', 1990, 'when Retry-After says');
}

1;
