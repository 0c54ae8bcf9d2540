#!/usr/bin/perl

# "make bench": what the module costs, as ratios within one run.
#
# Hits:    wrk asks 1,000 different questions, all of them cached, of one worker;
#          compared with "return 200" of as many bytes in the same nginx.
#          Rounds alternate, the medians are compared.  A first round is not
#          counted, and each that is begins with an empty table: a PostgreSQL
#          that was just started zeroes fresh memory for each page it writes.
# misses.pl measures misses, flights.pl many of them at once.
#
# Environment: ROUNDS (5), SECONDS each (3), CONNECTIONS (64 256), one or more.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture wait_for /;

my $rounds = $ENV{ROUNDS} // 5;
my $seconds = $ENV{SECONDS} // 3;
my @connections = split ' ', $ENV{CONNECTIONS} // '64 256';
my $questions = 1000;

my $conf = <<'EOF';
	location /static {
		default_type application/json;
		return 200 '{"response": "answer 1000: question 1000", "source": "cache"}';
	}
	location /chat {
		chatbot_pass %%API%%;
		chatbot_redis %%REDIS%%;
		chatbot_postgres %%LOG%%;
	}
EOF

bench_hits('hits from Redis', 'off', 'chatbot_log_journal off;')->quit;
bench_hits('hits from Redis, rows in PostgreSQL', '%%POSTGRES%%')->quit;

pass('measured');
done_testing();

###############################################################################

sub bench_hits {
	my ($name, $log, @http) = @_;

	(my $locations = $conf) =~ s/%%LOG%%/$log/;
	my $t = Test::Chatbot->new(conf => $locations,
		main => 'thread_pool default threads=4;',     # as in nginx.conf
		http => join "\n", 'keepalive_requests 1000000;', @http)->run;
	many(map { "question $_" } 1 .. $questions);

	measure($t, $name, $log ne 'off', $_) for @connections;
	return $t;
}

sub measure {
	my ($t, $name, $rows, $connections) = @_;
	my (@static, @hits);

	for (0 .. $rounds) {
		push @static, wrk($t, '/static', $connections);
		push @hits, wrk($t, '/chat', $connections);
		empty_table($t) if $rows;
	}
	shift @static;
	shift @hits;

	my ($static, $hits) = (median(@static), median(@hits));
	diag(sprintf '%-38s %7.0f/s', "return 200, $connections connections",
		$static);
	diag(sprintf '%-38s %7.0f/s  %.2f of return 200', $name, $hits,
		$hits / $static);
}

# Requests a second.
sub wrk {
	my ($t, $location, $connections) = @_;

	my $script = $t->dir . '/wrk.lua';
	open my $fh, '>', $script or die "$script: $!";
	print $fh <<"EOF";
local requests, n = {}, 0
function init()
	for i = 1, $questions do
		requests[i] = wrk.format("GET", "$location?query=question+" .. i)
	end
end
function request()
	n = n % $questions + 1
	return requests[n]
end
EOF
	close $fh;

	my $out = capture('wrk', '-t', 1, '-c', $connections, '-d', "${seconds}s",
		'-s', $script, 'http://127.0.0.1:' . $t->port);
	die $out if $out =~ /Non-2xx|Socket errors/
		|| $out !~ m{Requests/sec:\s+(\S+)};
	return $1;
}

# When all rows have arrived.
sub empty_table {
	my ($t) = @_;
	wait_for { !grep { -s } glob $t->dir . '/chatbot-journal/log-*' } 60
		or die 'rows did not arrive';
	$t->postgres->sql('truncate request_logs');
}

sub median {
	return (sort { $a <=> $b } @_)[@_ / 2];
}
