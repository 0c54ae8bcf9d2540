#!/usr/bin/perl

# OpenAI's SDK for Python, with its base URL and its key alone changed.
#
# Debian has it from version 13 on.  CHATBOT_PYTHON is a command that runs a Python
# which has it; t/docker/sdk_python.t gives that of a container.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Sdk;

###############################################################################

my @python = split ' ', $ENV{CHATBOT_PYTHON} // '/usr/bin/python3';
plan skip_all => 'no SDK for Python'
	if system("@python -c 'import openai' 2>/dev/null");

my $t = api_for_sdks('python');
my %said = said(@python, sdk_scripts() . '/ask.py',
	'http://127.0.0.1:' . port());
my $json = JSON::PP->new->canonical->utf8;

answers_openai_sdk(%said);
is($said{final_tool}{name} . $said{final_tool}{arguments},
	'weather{"city":"Paris"}', 'a tool, streamed');
for (qw/ cached cached_stream /) {
	my ($first, $second) = @{ $said{$_}{replies} // [] };
	is($json->encode([$second]), $json->encode([$first]), "$_, the same");
	ok($first, 'and one');
}

is($said{retried}{times}, 2, 'tried again once');
is($said{timeout}{error}, 'APITimeoutError', 'a timeout of its own');
is($said{broken}{error}, 'APIError', 'an error in mid-stream');
like(join('; ', @{ $said{together}{texts} // [] }),
	qr/: together; .* two; .* three$/, 'three at once');

is(wait_for { $t->postgres->sql("select status, client_name from request_logs"
	. " where request_text like '%abort'") }, 'success|python', 'who left');

done_testing();
