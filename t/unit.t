#!/usr/bin/perl

# The unit tests of the core, t/unit/*_test.cpp, which make has built beside the
# module; with a Redis and a PostgreSQL for those that want one.

use warnings;
use strict;

use File::Basename qw/ dirname /;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;

my $build = dirname($ENV{CHATBOT_MODULE} || "$FindBin::Bin/../build/module");

my $t = Test::Chatbot->new;
$ENV{TEST_REDIS} = $t->redis->path;
$ENV{TEST_POSTGRES} = sprintf 'host=127.0.0.1 port=%d user=postgres'
	. ' dbname=postgres', $t->postgres->port;

# GoogleTest's report, as TAP
my ($output, $running) = ('', '');
my $command = join ' ', $ENV{CHATBOT_VALGRIND} // (), "$build/unit_tests";
open my $tests, '-|', "$command 2>&1"
	or die "$command: $!";

while (<$tests>) {
	if (/^\[ RUN      \] (.*)/) {
		($output, $running) = ('', $1);

	} elsif (/^\[  (     OK|FAILED |SKIPPED) \] (\w+(?:\/\w+)*\.[\w\/]+)(.*ms\))/) {
		SKIP: {
			skip "$2: $output", 1 if $1 eq 'SKIPPED';
			ok($1 ne 'FAILED ', $2) or diag($output);
		}
		$output = '';

	} else {
		$output .= $_;
	}
}

cmp_ok(Test::More->builder->current_test, '>', 0, 'tests were run');
ok(close $tests, 'exit status') or diag("$running: $output");

done_testing();
