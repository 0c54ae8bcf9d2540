#!/usr/bin/perl

# What a miss adds to a call of the model: the module's chat and API beside a
# direct call and nginx's own proxy_pass to the same upstream, and an older module
# in the same run.
#
# wrk asks questions that were never asked before; rounds alternate, and medians
# of the latency's medians are compared.
#
# Environment: ROUNDS (5), SECONDS each (2), CONNECTIONS (1 8 64 256), DELAYS in
# milliseconds (0 20), OLD_MODULE, a path.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Bench;

my $rounds = $ENV{ROUNDS} // 5;
my $seconds = $ENV{SECONDS} // 2;
my @connections = split ' ', $ENV{CONNECTIONS} // '1 8 64 256';
my @delays = split ' ', $ENV{DELAYS} // '0 20';

my $upstream = model_in_nginx();
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

# nginx with the module, and proxy_pass beside it.
sub front {
	my (%opt) = @_;
	my ($port) = $api =~ /:(\d+)/;
	my $api_too = $opt{module} ? '' : 1;    # an old one may have none
	my $conf = join '', map { ($api_too ? <<"EOT2" : '') . <<"EOT" } @delays;
location /$_/api/ {
    chatbot_pass $api/$_/v1;
    chatbot_model m;
    chatbot_protocol openai;
}

EOT2
location /$_/chat {
    chatbot_pass $api/$_/v1;
    chatbot_model m;
}

location /$_/v1/ {
    proxy_pass http://upstream;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
}
EOT
	return Test::Chatbot->new(%opt, with => $upstream, conf => $conf,
		main => 'thread_pool default threads=4;',
		http => <<"EOT")->run;
keepalive_requests 1000000000;
chatbot_log_journal off;
chatbot_redis %%REDIS%%;
upstream upstream {
    server 127.0.0.1:$port;
    keepalive 1024;
}
EOT
}

sub measure {
	my ($delay, $connections) = @_;
	my (%us, %cpu);

	for my $round (0 .. $rounds) {
		my %now = (direct => call($upstream, $delay, $connections),
			proxy_pass => call($module{new}, $delay, $connections),
			api => api_call($module{new}, $delay, $connections),
			map { $_ => question($module{$_}, $delay, $connections) }
				sort keys %module);
		next if !$round;                # it warms up
		push @{$us{$_}}, $now{$_}{p50} for keys %now;
		push @{$cpu{$_}}, $now{$_}{cpu} / $now{$_}{calls} for keys %now;
	}

	my $direct = median(@{$us{direct}});
	diag(sprintf '%3d ms, %3d connections: direct %6d us', $delay, $connections,
		$direct);
	diag(sprintf '  %-10s adds %s us, takes %3d us of CPU', $_,
		spread('%+d', map { $_ - $direct } @{$us{$_}}), median(@{$cpu{$_}}))
		for grep { $_ ne 'direct' } sort keys %us;
}

sub call {
	my ($t, $delay, $connections) = @_;
	return load($t, $connections, <<"EOT");
request = function()
	return wrk.format("POST", "/$delay/v1/chat/completions",
		{["Content-Type"] = "application/json"},
		'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}')
end
EOT
}

# Not streamed to the client, as most programs ask.
sub api_call {
	my ($t, $delay, $connections) = @_;
	return ask_anew($t, $connections, <<"EOT");
"POST", "/$delay/api/chat/completions", {["Content-Type"] = "application/json"},
	'{"model":"m","messages":[{"role":"user","content":"' .. question .. '"}]}'
EOT
}

sub question {
	my ($t, $delay, $connections) = @_;
	return ask_anew($t, $connections,
		qq("GET", "/$delay/chat?query=" .. question));
}

my $asked = 0;

# Each run has questions of its own: `question` in what wrk.format() gets.
sub ask_anew {
	my ($t, $connections, $request) = @_;
	$asked++;
	return load($t, $connections, <<"EOT");
local n = 0
request = function()
	n = n + 1
	local question = "$asked+" .. n
	return wrk.format($request)
end
EOT
}

sub load {
	my ($t, $connections, $script) = @_;
	return { wrk($t, connections => $connections, seconds => $seconds,
		script => $script) };
}
