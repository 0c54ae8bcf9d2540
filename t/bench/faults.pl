#!/usr/bin/perl

# "make faults": what users notice of a fault, and what is lost of the record.
#
# For each fault: questions without a pause, ten at a time; the fault is made
# and, a while later, mended, and the rows are compared with the answers.  A
# row is lost if an answer (status 200) has none, and a duplicate if a
# request_id is there twice.
#
# Environment: AWAY, how many seconds a server is gone (5); ONLY, a regular
# expression of faults to try.

use warnings;
use strict;

use FindBin;
use Test::More;
use Time::HiRes qw/ sleep time /;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Load;

my $away = $ENV{AWAY} // 5;
my $only = $ENV{ONLY} // '.';

my $conf = <<'EOF';
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_read_timeout 1s;

location /chat {
    chatbot_pass %%API%%;
}
EOF

my $t = Test::Chatbot->new(conf => $conf, workers => 2,
	http => "chatbot_log_journal disk;\n",
	alerts => qr/exited on signal 9|cannot be written/);

mkdir $t->dir . '/disk';
my $disk = !$> && !system 'mount', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs',
	$t->dir . '/disk';
$t->run;

my ($api, $redis, $postgres) = ($t->openai, $t->redis, $t->postgres);

diag(sprintf '%-34s %8s %8s %6s %6s %6s %9s', 'fault', 'answered', 'rows',
	'lost', 'twice', 'failed', 'slowest/s');

try('none', sub { pause(1) });

try('PostgreSQL stopped', sub { $postgres->stop; pause($away);
	$postgres->start });
try('PostgreSQL frozen', sub { $postgres->freeze; pause($away);
	$postgres->thaw });
try('PostgreSQL killed, again and again', sub { for (1 .. 3) { pause(1);
	$postgres->kill; $postgres->start } });
try('PostgreSQL is read-only', sub { read_only('on'); pause($away);
	read_only('off') });

try('Redis stopped', sub { $redis->stop; pause($away); $redis->start });
try('Redis frozen', sub { $redis->freeze; pause($away); $redis->thaw });
try('Redis full', sub { $redis->cli(qw/ CONFIG SET maxmemory 1 /);
	pause($away); $redis->cli(qw/ CONFIG SET maxmemory 0 /) });

try('a worker killed, 5 times', sub { for (1 .. 5) {
	kill 'KILL', ($t->workers)[0]; pause(0.5) } });
try('nginx killed, started', sub { $t->kill; $t->run });
try('10 reloads', sub { $t->reload for 1 .. 10 });
try('quit, started', sub { $t->quit; $t->run }, text => '[delay 0.2]');
try('stop, started', sub { $t->stop; $t->run }, text => '[delay 0.2]');

SKIP: {
	skip 'no tmpfs without root', 1 unless $disk;
	try('disk full', sub { fill(); pause($away); make_room() });
	try('disk full, PostgreSQL stopped', sub { fill(); $postgres->stop;
		pause($away); $postgres->start; make_room() },
		text => '[size 20000]');
}

try("model: $_", sub { pause($away) }, text => "[$_]") for
	'status 429 x1', 'status 500 x1', 'status 500', 'reset x1', 'reset',
	'silent', 'stall', 'garbage', 'endless';

$t->quit;
system 'umount', $t->dir . '/disk' if $disk;
pass('measured');
done_testing();

###############################################################################

sub try {
	my ($name, $fault, %load) = @_;
	return if $name !~ /$only/;

	my $load = Test::Chatbot::Load->start(%load);
	pause(1);
	$fault->();
	pause(1);
	$load->stop;

	my @ids = $load->ids;
	my @failed = $load->failures;
	wait_for { $load->lost($postgres) == 0 } 60;
	my $twice = $postgres->sql('select count(*) - count(distinct request_id)'
		. ' from request_logs');

	diag(sprintf '%-34s %8d %8d %6d %6d %6d %9.2f  %s', $name, scalar @ids,
		$postgres->rows, $load->lost($postgres), $twice,
		scalar @failed, $load->slowest,
		join ', ', kinds(@failed));
	$postgres->sql('truncate request_logs');
}

sub kinds {
	my %n;
	$n{s{^HTTP/1\.1 }{}r}++ for @_;
	return map { "$n{$_} x $_" } sort keys %n;
}

# What is measured is time, so time is what has to pass.
sub pause { sleep $_[0] }

sub read_only {
	$postgres->sql("alter system set default_transaction_read_only = $_[0]");
	$postgres->sql('select pg_reload_conf()');
	$postgres->sql('select pg_terminate_backend(pid) from pg_stat_activity'
		. " where application_name = 'ngx_http_chatbot_module'");
}

sub fill {
	open my $fh, '>', $t->dir . '/disk/ballast' or die "ballast: $!";
	1 while syswrite $fh, 'x' x 65536;
}

sub make_room { unlink $t->dir . '/disk/ballast' }
