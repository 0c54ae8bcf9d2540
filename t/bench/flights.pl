#!/usr/bin/perl

# Many calls in flight in one worker: questions to a model that takes 2 s, so
# many at once that all are on their way together, beside direct calls.  They
# begin evenly over the first 2 s, as those of so many people would.
#
# h2load asks by HTTP/2, so 10,000 questions take 10,000 descriptors (to the
# model) and a few, and a client's connection hardly counts.
#
# Shown are the latency (2 s is ideal), and what a call costs the worker: CPU,
# and memory at its peak.
#
# Environment: FLIGHTS (100 1000 10000), OLD_MODULE, a path.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Bench;
use Test::Chatbot::Server qw/ capture read_file /;

my $connections = 100;
my @flights = split ' ', $ENV{FLIGHTS} // '100 1000 10000';

my $upstream = model_in_nginx(server => 'listen 127.0.0.1:%%PORT_1%% http2;');
my $model = '/2000/v1';

for my $flights (@flights) {
	measure('direct', $upstream, $flights, $upstream->port(1),
		"$model/chat/completions", '-d', body_file());
	measure('new', front(), $flights);
	measure('old', front(module => $ENV{OLD_MODULE}), $flights)
		if $ENV{OLD_MODULE};
}

pass('measured');
done_testing();

###############################################################################

# No two questions are equal.
sub front {
	my $api = 'http://127.0.0.1:' . $upstream->port . $model;
	return Test::Chatbot->new(@_, with => $upstream, conf => <<"EOT",
server {
    listen 127.0.0.1:%%PORT%% http2;
    location /chat {
        chatbot_pass $api;
        chatbot_model m;
        chatbot_query \$request_id;
    }
}
EOT
		main => 'thread_pool default threads=4;', http => <<'EOT')->run;
keepalive_requests 1000000;
chatbot_log_journal off;
chatbot_redis %%REDIS%%;
EOT
}

sub body_file {
	my $file = $upstream->dir . '/body.json';
	open my $fh, '>', $file or die "$file: $!";
	print $fh '{"model":"m","messages":[{"role":"user","content":"hi"}],'
		. '"stream":true}';
	close $fh;
	return $file;
}

sub measure {
	my ($name, $t, $flights, $port, $path, @more) = @_;

	my $log = $t->dir . '/h2load.log';
	my $memory = kib($t, 'VmRSS');
	my $cpu = cpu_us($t);
	my $out = capture('h2load', '-t', 1, '-c', $connections,
		'-m', $flights / $connections, '-n', 4 * $flights,
		'-r', 1, '--rate-period', 2000 / $connections . 'ms',
		"--log-file=$log", @more,
		'http://127.0.0.1:' . ($port // $t->port) . ($path // '/chat'));
	$cpu = cpu_us($t) - $cpu;

	# Of each request: when it began, its status, and the time it took, in us.
	my @calls = map { [split] } split /\n/, read_file($log);
	die $out if @calls != 4 * $flights || grep { $_->[1] != 200 } @calls;
	unlink $log;

	my @s = sort { $a <=> $b } map { $_->[2] / 1e6 } @calls;
	diag(sprintf '%6d in flight, %-6s %6d calls: p50 %.2f s, p99 %.2f, max %.2f;'
		. ' %4d us of CPU, %3d KiB a call', $flights, $name, scalar @calls,
		@s[@s * .5, @s * .99, -1], $cpu / @calls,
		(kib($t, 'VmHWM') - $memory) / $flights);
}
