package Test::Chatbot::Bench;

# What the benchmarks share: load by wrk, a model in nginx, and figures.
#
#     my %load = wrk($t, connections => 64, seconds => 2, script => $lua);
#
# runs wrk in one thread; the script is wrk's, in Lua, and says what is asked
# for.  The load holds
#     rate      requests a second
#     calls     requests that were answered
#     bytes     of all responses
#     p50, p99, max   latency in microseconds
#     cpu       microseconds of CPU that the workers of nginx took
# A response other than 2xx is fatal.

use warnings;
use strict;

use Exporter qw/ import /;

use Test::Chatbot;
use Test::Chatbot::Server qw/ capture read_file /;

our @EXPORT = qw/ cpu_us kib median model_in_nginx spread wrk /;

sub wrk {
	my ($t, %opt) = @_;

	my $file = $t->dir . '/wrk.lua';
	open my $fh, '>', $file or die "$file: $!";
	print $fh $opt{script}, <<'EOF2';
done = function(summary, latency, requests)
	io.write(string.format("calls=%d bytes=%d us=%d p50=%d p99=%d " ..
		"max=%d\n", summary.requests, summary.bytes, summary.duration,
		latency:percentile(50), latency:percentile(99), latency.max))
end
EOF2
	close $fh;

	my $cpu = cpu_us($t);
	my $out = capture('wrk', '-t', 1, '-c', $opt{connections},
		'-d', "$opt{seconds}s", '--timeout', '60s', '-s', $file,
		'http://127.0.0.1:' . $t->port);
	my %load = $out =~ /(\w+)=(\d+)/g;
	die $out if $out =~ /Non-2xx|Socket errors/ || !exists $load{calls};

	$load{rate} = $load{calls} / $load{us} * 1e6;
	$load{cpu} = cpu_us($t) - $cpu;
	return %load;
}

sub cpu_us {
	my ($t) = @_;
	my $ticks = 0;

	for my $pid ($t->workers) {
		my @stat = split ' ', read_file("/proc/$pid/stat") =~ s/^.*\) //sr;
		$ticks += $stat[11] + $stat[12];
	}
	return $ticks * 1e4;
}

# VmRSS or VmHWM of the only worker.
sub kib {
	my ($t, $what) = @_;
	my ($pid) = $t->workers;
	return read_file("/proc/$pid/status") =~ /^$what:\s+(\d+)/m ? $1 : 0;
}

sub median { (sort { $a <=> $b } @_)[@_ / 2] }

# "0.51 (0.49 - 0.55)"
sub spread {
	my ($format, @values) = @_;
	my @sorted = sort { $a <=> $b } @values;
	return sprintf "$format ($format - $format)", median(@values),
		@sorted[0, -1];
}

# A model that is not the bottleneck: nginx and Lua, which answers
# /DELAY/v1/chat/completions after DELAY milliseconds, as a stream where that is
# asked for.  `http` and `server` are further directives of these contexts.
# Lua never gets the body: LuaJIT keeps strings in a hash table by some of their
# bytes, and thousands of questions that differ in a few collide.
sub model_in_nginx {
	my (%opt) = @_;
	my $lua = '/usr/lib/nginx/modules';
	return Test::Chatbot->new(module => '', main => <<"EOF2",
load_module $lua/ndk_http_module.so;
load_module $lua/ngx_http_lua_module.so;
EOF2
		http => 'keepalive_requests 1000000000; ' .
			'lua_max_pending_timers 100000;' . (delete $opt{http} // '') .
			'map $request_body $streamed { ~"stream":true 1; }',
		conf => (delete $opt{server} // '') . <<'EOF2', %opt)->run;
location ~ ^/(\d+)/v1/chat/completions$ {
    set $delay $1;
    client_body_buffer_size 64k;
    lua_need_request_body on;
    content_by_lua_block {
        if ngx.var.delay ~= "0" then
            ngx.sleep(ngx.var.delay / 1000)
        end
        if ngx.var.streamed == "1" then
            ngx.header["Content-Type"] = "text/event-stream"
            ngx.print('data: {"id":"a","object":"chat.completion.chunk",' ..
                '"created":1700000000,"model":"m","choices":[{"index":0,' ..
                '"delta":{"role":"assistant","content":"An answer."},' ..
                '"finish_reason":"stop"}]}\n\ndata: {"choices":[],' ..
                '"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n' ..
                'data: [DONE]\n\n')
        else
            ngx.header["Content-Type"] = "application/json"
            ngx.print('{"id":"a","object":"chat.completion",' ..
                '"created":1700000000,"model":"m","choices":[{"index":0,' ..
                '"message":{"role":"assistant","content":"An answer."},' ..
                '"finish_reason":"stop"}],"usage":{"prompt_tokens":9,' ..
                '"completion_tokens":3}}')
        end
    }
}
EOF2
}

1;
