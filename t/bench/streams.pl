#!/usr/bin/perl

# Many streams at once in one worker, at 20 pieces a second each: answers to
# different questions; listeners on one flight; the same with a client beside
# them that reads nothing.
#
# wrk reads the streams.  One more client, a listener of its own, notes how long
# after a piece left the model it came: a piece is the time at which it left.
# Shown are the pieces a second that the clients were sent, what a piece costs
# the worker in CPU, and a stream in memory at its peak.
#
# Environment: STREAMS (1 1000), LISTENERS (1000), SECONDS (5) of a stream, RATE
# in pieces a second (20).  10,000 streams take 20,000 descriptors.

use warnings;
use strict;

use FindBin;
use POSIX qw/ _exit /;
use Test::More;
use Time::HiRes qw/ time /;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Bench;

my @streams = split ' ', $ENV{STREAMS} // '1 1000';
my @listeners = split ' ', $ENV{LISTENERS} // '1000';
my $seconds = $ENV{SECONDS} // 5;
my $rate = $ENV{RATE} // 20;
my $pieces = $seconds * $rate;

my $upstream = model_in_nginx(http => <<'EOT', conf => <<"EOT2");
init_by_lua_block {
    local ffi = require "ffi"
    ffi.cdef [[typedef struct { long s, us; } timeval_t;
               int gettimeofday(timeval_t *, void *);]]
    local tv = ffi.new("timeval_t")
    function now()
        ffi.C.gettimeofday(tv, nil)
        return tonumber(tv.s) + tonumber(tv.us) / 1e6
    end
}
EOT
location = /v1/chat/completions {
    content_by_lua_block {
        ngx.header["Content-Type"] = "text/event-stream"
        local from = now()
        for i = 1, $pieces do
            ngx.sleep(math.max(0, from + i / $rate - now()))
            ngx.print(string.format('data: {"id":"a","object":' ..
                '"chat.completion.chunk","created":1,"model":"m","choices":' ..
                '[{"index":0,"delta":{"content":"<%.6f> "},' ..
                '"finish_reason":null}]}\\n\\n', now()))
            ngx.flush()
        end
        ngx.print('data: {"id":"a","object":"chat.completion.chunk",' ..
            '"created":1,"model":"m","choices":[{"index":0,"delta":{},' ..
            '"finish_reason":"stop"}]}\\n\\ndata: [DONE]\\n\\n')
    }
}
EOT2
my $api = 'http://127.0.0.1:' . $upstream->port . '/v1';

measure($_, 'different answers') for @streams;
measure($_, 'one flight', same => 1) for @listeners;
measure($_, 'one flight, one client stalled', same => 1, stalled => 1)
	for @listeners;

pass('measured');
done_testing();

###############################################################################

sub measure {
	my ($streams, $what, %opt) = @_;

	my $t = Test::Chatbot->new(with => $upstream, conf => <<"EOT",
location /chat {
    chatbot_pass $api;
    chatbot_model m;
    chatbot_redis off;
}
EOT
		main => 'thread_pool default threads=4;',
		http => 'chatbot_log_journal off;')->run;
	my $bytes = length(get('/chat?stream=1&query=warm', timeout => 60)) / $pieces;
	my $memory = kib($t, 'VmRSS');

	my $stalled = $opt{stalled} && stream($t);
	my $probe = probe($t);
	my $next = $opt{same} ? '' : 'n = n + 1';
	my %load = wrk($t, connections => $streams, seconds => $seconds + 1,
		script => <<"EOT");
local n = 0
request = function()
	$next
	return wrk.format("GET", "/chat?stream=1&query=question+" .. n)
end
EOT
	my @delays = sort { $a <=> $b } split ' ', do { local $/; <$probe> };

	my $sent = $load{bytes} / $bytes;
	diag(sprintf '%5d streams, %s: %d pieces, %.0f/s; delay p50 %.2f ms,'
		. ' p99 %.2f, max %.2f; %.0f us of CPU a piece, %d KiB a stream',
		$streams, $what, $sent, $sent / $load{us} * 1e6,
		(map { $delays[$_ * $#delays] * 1e3 } .5, .99, 1),
		$load{cpu} / $sent, (kib($t, 'VmHWM') - $memory) / $streams);
	$t->quit;
}

sub stream {
	my ($t) = @_;
	my $client = $t->dial;
	print $client request('GET', '/chat?stream=1&query=question+0');
	return $client;
}

# A process that prints the delays of one stream in seconds.
sub probe {
	my ($t) = @_;
	my $client = stream($t);

	my $pid = open(my $delays, '-|') // die "fork: $!";
	return $delays if $pid;

	while (sysread $client, my $bytes, 65536) {
		my $now = time();
		print $now - $_, "\n" for $bytes =~ /"text": " ?<(\d+\.\d+)>/g;
	}
	close STDOUT;
	_exit(0);
}
