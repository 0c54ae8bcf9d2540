#!/usr/bin/perl

# Bursts: many questions at the same moment, to a model that takes 200 ms.  By
# HTTP/1.1, TLS and HTTP/2: how many connections are opened for the first burst,
# for one right after it, for one after a pause, and when the last answer comes.
#
# Environment: BURSTS (500 1000), PAUSE in seconds (2; libcurl itself would close
# connections that were idle for 118), OLD_MODULE, a path.

use warnings;
use strict;

use File::Temp qw/ tempdir /;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Bench;
use Test::Chatbot::Tls qw/ make_certificates /;

my @bursts = split ' ', $ENV{BURSTS} // '500 1000';
my $pause = $ENV{PAUSE} // 2;
my $delay = 200;

make_certificates(my $dir = tempdir(CLEANUP => 1));

my $upstream = model_in_nginx(http => <<'EOT', server => <<"EOT2");
log_format calls '$connection';
keepalive_timeout 600s;
EOT
access_log %%TEST%%/calls.log calls;
ssl_certificate $dir/localhost.pem;
ssl_certificate_key $dir/localhost.key;
listen 127.0.0.1:%%PORT_1%% ssl;
listen 127.0.0.1:%%PORT_2%% ssl http2;
EOT2

my @ways = (['HTTP/1.1', 'http://127.0.0.1:' . $upstream->port],
	['TLS', 'https://localhost:' . $upstream->port(1)],
	['HTTP/2', 'https://localhost:' . $upstream->port(2)]);
my %module = (new => undef);
$module{old} = $ENV{OLD_MODULE} if $ENV{OLD_MODULE};

for my $way (@ways) {
	for my $burst (@bursts) {
		measure($_, @$way, $burst) for sort keys %module;
	}
}

pass('measured');
done_testing();

###############################################################################

sub measure {
	my ($name, $way, $url, $burst) = @_;

	my $t = Test::Chatbot->new(with => $upstream,
		$module{$name} ? (module => $module{$name}) : (),
		main => 'thread_pool default threads=4;', conf => <<"EOT",
location /chat {
    chatbot_pass $url/$delay/v1;
    chatbot_model m;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
}
EOT
		http => <<'EOT')->run;
chatbot_log_journal off;
chatbot_redis off;
EOT

	my @said = map { burst($t, $burst, $_) } 'first', 'next';
	sleep $pause;
	push @said, burst($t, $burst, "after $pause s");
	diag(sprintf '%-8s %-4s %5d questions: %s', $way, $name, $burst,
		join '; ', @said);
	$t->quit;
}

sub burst {
	my ($t, $burst, $when) = @_;
	my $connections = connections();

	my @responses = $t->many({timeout => 60}, map { "$when $_" } 1 .. $burst);
	my $failed = grep { status($_) != 200 } @responses;
	return sprintf '%s %d connections, last after %.2f s%s', $when,
		connections() - $connections, slowest(),
		$failed ? ", $failed failed" : '';
}

# How many have had a call of the model.
sub connections {
	my %seen = map { $_ => 1 } split /\n/, $upstream->read('calls.log');
	return scalar keys %seen;
}
