#!/usr/bin/perl

# What a miss adds to a call of the model: the module beside a direct call and
# beside nginx's own proxy_pass to the same upstream, and an older module in the
# same run.
#
# The upstream is an nginx with Lua that answers at once or after 20 ms, as a
# stream where that is asked for.  wrk asks questions that were never asked
# before; rounds alternate, and medians of the latency's medians are compared.
#
# Environment: ROUNDS (5), SECONDS each (2), CONNECTIONS (1 8 64 256), DELAYS in
# milliseconds (0 20), OLD_MODULE, a path.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

my $rounds = $ENV{ROUNDS} // 5;
my $seconds = $ENV{SECONDS} // 2;
my @connections = split ' ', $ENV{CONNECTIONS} // '1 8 64 256';
my @delays = split ' ', $ENV{DELAYS} // '0 20';

my $upstream = upstream();
my $api = 'http://127.0.0.1:' . $upstream->port;
my %module = (new => front());
$module{old} = front(module => $ENV{OLD_MODULE}) if $ENV{OLD_MODULE};

for my $delay (@delays) {
	for my $connections (@connections) {
		measure($delay, $connections);
	}
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
		http => 'keepalive_requests 1000000000;', conf => <<'EOF')->run;
location ~ ^/(\d+)/v1/chat/completions$ {
    set $delay $1;
    client_body_buffer_size 64k;
    lua_need_request_body on;
    content_by_lua_block {
        if ngx.var.delay ~= "0" then
            ngx.sleep(ngx.var.delay / 1000)
        end
        if ngx.req.get_body_data():find('"stream":true', 1, true) then
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
EOF
}

# nginx with the module, and proxy_pass beside it.
sub front {
	my (%opt) = @_;
	my ($port) = $api =~ /:(\d+)/;
	my $conf = join '', map { <<"EOF" } @delays;
location /$_/chat {
    chatbot_pass $api/$_/v1;
    chatbot_model m;
}

location /$_/v1/ {
    proxy_pass http://upstream;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
}
EOF
	return Test::Chatbot->new(%opt, with => $upstream, conf => $conf,
		main => 'thread_pool default threads=4;',
		http => <<"EOF")->run;
keepalive_requests 1000000000;
chatbot_log_journal off;
chatbot_redis %%REDIS%%;
upstream upstream {
    server 127.0.0.1:$port;
    keepalive 1024;
}
EOF
}

sub measure {
	my ($delay, $connections) = @_;
	my %us;

	for my $round (0 .. $rounds) {
		my %now = (direct => call($upstream, $delay, $connections),
			proxy_pass => call($module{new}, $delay, $connections),
			map { $_ => question($module{$_}, $delay, $connections) }
				sort keys %module);
		next if !$round;                # it warms up
		push @{$us{$_}}, $now{$_} for keys %now;
	}

	my $direct = median(@{$us{direct}});
	diag(sprintf '%3d ms, %3d connections: direct %6d us', $delay, $connections,
		$direct);
	diag(sprintf '  %-10s %+8d us  (%d - %d)', $_,
		median(@{$us{$_}}) - $direct,
		map { $_ - $direct } (sort { $a <=> $b } @{$us{$_}})[0, -1])
		for grep { $_ ne 'direct' } sort keys %us;
}

sub call {
	my ($t, $delay, $connections) = @_;
	return wrk($t, $connections, <<"EOF");
request = function()
	return wrk.format("POST", "/$delay/v1/chat/completions",
		{["Content-Type"] = "application/json"},
		'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}')
end
EOF
}

my $asked = 0;

# Each run has questions of its own.
sub question {
	my ($t, $delay, $connections) = @_;
	$asked++;
	return wrk($t, $connections, <<"EOF");
local n = 0
request = function()
	n = n + 1
	return wrk.format("GET", "/$delay/chat?query=$asked+" .. n)
end
EOF
}

# The median of the latency in microseconds.
sub wrk {
	my ($t, $connections, $script) = @_;

	my $file = $t->dir . '/wrk.lua';
	open my $fh, '>', $file or die "$file: $!";
	print $fh $script, <<'EOF';
done = function(summary, latency, requests)
	io.write(string.format("p50 %d\n", latency:percentile(50)))
end
EOF
	close $fh;

	my $out = capture('wrk', '-t', 1, '-c', $connections, '-d', "${seconds}s",
		'-s', $file, 'http://127.0.0.1:' . $t->port);
	die $out if $out =~ /Non-2xx|Socket errors/ || $out !~ /^p50 (\d+)/m;
	return $1;
}

sub median {
	return (sort { $a <=> $b } @_)[@_ / 2];
}
