#!/usr/bin/perl

# "make bench": what the module costs, as ratios within one run.
#
# Hits:    wrk asks 1,000 different questions, all of them cached, of one worker;
#          compared with "return 200" of as many bytes in the same nginx.
#          Rounds alternate, the medians are compared.
# Misses:  questions asked one after another of a model that takes 20 ms;
#          compared with the same calls made directly.
#
# Environment: ROUNDS (5), SECONDS each (3), CONNECTIONS (64).

use warnings;
use strict;

use FindBin;
use HTTP::Tiny;
use List::Util qw/ sum /;
use Test::More;
use Time::HiRes qw/ time /;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture wait_for /;

my $rounds = $ENV{ROUNDS} // 5;
my $seconds = $ENV{SECONDS} // 3;
my $connections = $ENV{CONNECTIONS} // 64;
my $questions = 1000;

my $t = Test::Chatbot->new(conf => <<'EOF_CONF', http => <<'EOF_HTTP')->run;
	location /static {
		default_type application/json;
		return 200 '{"response": "answer 1000: question 1000", "source": "cache"}';
	}
	location /cached {
		chatbot_pass %%API%%;
		chatbot_redis %%REDIS%%;
	}
	location /recorded {
		chatbot_pass %%API%%;
		chatbot_redis %%REDIS%%;
		chatbot_postgres %%POSTGRES%%;
	}
EOF_CONF
	keepalive_requests 1000000;
EOF_HTTP

bench_hits();
bench_misses();

pass('measured');
done_testing();

###############################################################################

sub bench_hits {
	# the same journal serves both: what is not shipped is still written
	many({ uri => '/recorded' }, map { "question $_" } 1 .. $questions);

	my %rate;
	for (1 .. $rounds) {
		for my $location (qw{ /static /cached /recorded }) {
			push @{$rate{$location}}, wrk($location);
			settle();
		}
	}

	my ($static, $cached, $recorded)
		= map { median(@{$rate{$_}}) } qw{ /static /cached /recorded };

	diag(sprintf '%-40s %7.0f/s', 'return 200', $static);
	diag(sprintf '%-40s %7.0f/s  %.2f of return 200', @$_, $_->[1] / $static)
		for ['hits from Redis, in the journal', $cached],
			['hits from Redis, in PostgreSQL', $recorded];
}

sub bench_misses {
	my $n = 200;
	my $http = HTTP::Tiny->new;
	my (@direct, @asked);

	for my $i (1 .. $n) {
		push @direct, timed(sub { $http->post($t->openai->url
			. '/chat/completions', { headers => {
				'Authorization' => 'Bearer sk-test',
				'Content-Type' => 'application/json' },
			content => '{"model": "gpt-6-luna", "messages":'
				. '[{"role": "user", "content": "[delay 0.02] direct ' . $i
				. '"}]}' }) });
		push @asked, timed(sub { $http->get('http://127.0.0.1:' . port()
			. "/recorded?query=[delay 0.02]+asked+$i") });
	}

	my ($direct, $asked) = map { 1000 * median(@$_) } \@direct, \@asked;
	diag(sprintf '%-40s %7.2f ms', 'a call of the model', $direct);
	diag(sprintf '%-40s %7.2f ms  %+.2f ms', 'a miss', $asked,
		$asked - $direct);
}

# Requests a second.
sub wrk {
	my ($location) = @_;

	my $script = $t->dir . '/wrk.lua';
	open my $fh, '>', $script or die "$script: $!";
	print $fh <<"EOF_LUA";
local n = 0
request = function()
	n = n % $questions + 1
	return wrk.format("GET", "$location?query=question+" .. n)
end
EOF_LUA
	close $fh;

	my $out = capture('wrk', '-t', 1, '-c', $connections, '-d', "${seconds}s",
		'-s', $script, 'http://127.0.0.1:' . port());
	die $out if $out =~ /Non-2xx|Socket errors/ || $out !~ m{Requests/sec:\s+(\S+)};
	return $1;
}

# Each round starts with all rows arrived.
sub settle {
	wait_for { !grep { -s } glob $t->dir . '/chatbot-journal/log-*' } 60
		or die 'rows did not arrive';
}

sub timed {
	my ($code) = @_;
	my $start = time();
	my $response = $code->();
	die $response->{content} unless $response->{success};
	return time() - $start;
}

sub median {
	return (sort { $a <=> $b } @_)[@_ / 2];
}
