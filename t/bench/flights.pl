#!/usr/bin/perl

# Many calls in flight in one worker: questions to a model that takes 2 s, so
# many at once that all are on their way together, beside direct calls.  They
# begin evenly over the first 2 s, as those of so many people would.
#
# Shown are the latency (2 s is ideal), and what a call costs the worker: CPU
# and memory, at its peak, the client's connection included.
#
# Environment: FLIGHTS (100 1000 9000), SECONDS each (10), OLD_MODULE, a path.
# 9,000 take 20,000 descriptors.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Bench;

my $seconds = $ENV{SECONDS} // 10;
my @flights = split ' ', $ENV{FLIGHTS} // '100 1000 9000';

my $upstream = model_in_nginx();
my $api = 'http://127.0.0.1:' . $upstream->port . '/2000/v1';

for my $flights (@flights) {
	measure('direct', $upstream, $flights, <<'EOT');
request = function()
	return wrk.format("POST", "/2000/v1/chat/completions", {}, '"stream":true')
end
EOT
	measure('new', front(), $flights, questions('new', $flights));
	measure('old', front(module => $ENV{OLD_MODULE}), $flights,
		questions('old', $flights)) if $ENV{OLD_MODULE};
}

pass('measured');
done_testing();

###############################################################################

sub front {
	return Test::Chatbot->new(@_, with => $upstream, conf => <<"EOT",
location /chat {
    chatbot_pass $api;
    chatbot_model m;
}
EOT
		main => 'thread_pool default threads=4;', http => <<'EOT')->run;
keepalive_requests 1000000;
chatbot_log_journal off;
chatbot_redis %%REDIS%%;
EOT
}

sub questions {
	my ($name, $flights) = @_;
	return <<"EOT";
local n = 0
request = function()
	n = n + 1
	return wrk.format("GET", "/chat?query=$name+$flights+" .. n)
end
EOT
}

sub measure {
	my ($name, $t, $flights, $script) = @_;

	my $spread = <<"EOT";
local begun = 0
delay = function()
	begun = begun + 1
	return begun <= $flights and begun * 2000 / $flights or 0
end
EOT
	my $memory = kib($t, 'VmRSS');
	my %load = wrk($t, connections => $flights, seconds => $seconds,
		script => $spread . $script);
	diag(sprintf '%6d in flight, %-6s %6d calls: p50 %.2f s, p99 %.2f, max %.2f;'
		. ' %4d us of CPU, %3d KiB a call', $flights, $name, $load{calls},
		(map { $_ / 1e6 } @load{qw/ p50 p99 max /}), $load{cpu} / ($load{calls} || 1),
		(kib($t, 'VmHWM') - $memory) / $flights);
}
