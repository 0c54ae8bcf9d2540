#!/usr/bin/perl

# Many calls in flight in one worker: questions to a model that takes 2 s, so
# many at once that all are on their way together, beside direct calls.
#
# Shown are the latency (2 s is ideal), and what a call costs the worker: CPU
# and memory, at its peak, the client's connection included.
#
# Environment: FLIGHTS (100 1000 9000), SECONDS each (7), OLD_MODULE, a path.
# 9,000 take 20,000 descriptors.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture read_file /;

my $seconds = $ENV{SECONDS} // 7;
my @flights = split ' ', $ENV{FLIGHTS} // '100 1000 9000';

my $upstream = upstream();
my $api = 'http://127.0.0.1:' . $upstream->port;

for my $flights (@flights) {
	measure('direct', $upstream, $flights, '/v1/chat/completions');
	measure('new', front(), $flights, '/chat');
	measure('old', front(module => $ENV{OLD_MODULE}), $flights, '/chat')
		if $ENV{OLD_MODULE};
}

pass('measured');
done_testing();

###############################################################################

sub upstream {
	my $lua = '/usr/lib/nginx/modules';
	return Test::Chatbot->new(module => '', main => <<"EOF",
load_module $lua/ndk_http_module.so;
load_module $lua/ngx_http_lua_module.so;
EOF
		http => 'keepalive_requests 1000000; lua_max_pending_timers 100000;',
		conf => <<'EOF')->run;
location = /v1/chat/completions {
    lua_need_request_body on;
    content_by_lua_block {
        ngx.sleep(2)
        ngx.header["Content-Type"] = "text/event-stream"
        ngx.print('data: {"id":"a","object":"chat.completion.chunk",' ..
            '"created":1700000000,"model":"m","choices":[{"index":0,' ..
            '"delta":{"role":"assistant","content":"An answer."},' ..
            '"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n')
    }
}
EOF
}

sub front {
	return Test::Chatbot->new(@_, with => $upstream, conf => <<"EOF",
location /chat {
    chatbot_pass $api/v1;
    chatbot_model m;
}
EOF
		main => 'thread_pool default threads=4;', http => <<'EOF')->run;
keepalive_requests 1000000;
chatbot_log_journal off;
chatbot_redis %%REDIS%%;
EOF
}

sub measure {
	my ($name, $t, $flights, $path) = @_;
	my ($pid) = $t->workers;
	my ($cpu, $memory) = (cpu_us($pid), kib($pid, 'VmRSS'));

	my $file = $t->dir . '/wrk.lua';
	open my $fh, '>', $file or die "$file: $!";
	print $fh <<"EOF";
local n = 0
request = function()
	n = n + 1
	return wrk.format("GET", "$path?query=$name+$flights+" .. n)
end
done = function(summary, latency, requests)
	io.write(string.format("%d calls: p50 %.2f s, p99 %.2f, max %.2f",
		summary.requests, latency:percentile(50) / 1e6,
		latency:percentile(99) / 1e6, latency.max / 1e6))
end
EOF
	close $fh;

	my $out = capture('wrk', '-t', 1, '-c', $flights, '-d', "${seconds}s",
		'--timeout', '60s', '-s', $file, 'http://127.0.0.1:' . $t->port);
	die $out if $out =~ /Non-2xx|Socket errors/;
	my ($told, $calls) = $out =~ /^((\d+) calls.*)/m or die $out;
	die "$name answered nothing in $seconds s\n" if !$calls;
	diag(sprintf '%6d in flight, %-6s %s; %4d us, %3d KiB a call', $flights,
		$name, $told, (cpu_us($pid) - $cpu) / $calls,
		(kib($pid, 'VmHWM') - $memory) / $flights);
}

sub cpu_us {
	my ($pid) = @_;
	my @stat = split ' ', read_file("/proc/$pid/stat") =~ s/^.*\) //sr;
	return ($stat[11] + $stat[12]) * 1e6 / 100;
}

sub kib {
	my ($pid, $what) = @_;
	return read_file("/proc/$pid/status") =~ /^$what:\s+(\d+)/m ? $1 : 0;
}
