#!/usr/bin/perl

# "make faults": what users notice of a fault, and what is lost of the record.
#
# For each fault: questions without a pause, ten at a time; the fault is made
# and, a while later, mended, and the rows are compared with the answers.  A
# row is lost if an answer (status 200) has none, and a duplicate if a
# request_id is there twice.
#
# Environment: AWAY, how many seconds a server is gone (5); KILLS, how often all
# is killed (50); ONLY, a regular expression of faults to try.

use warnings;
use strict;

use FindBin;
use Test::More;
use Time::HiRes qw/ sleep time /;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Load;

my $away = $ENV{AWAY} // 5;
my $kills = $ENV{KILLS} // 50;
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

my $disk_dir = $t->dir . '/disk';
mkdir $disk_dir;
my $disk = !$> && !system 'mount', '-t', 'tmpfs', '-o', 'size=64m', 'tmpfs',
	$disk_dir;
$t->run;

my ($api, $redis, $postgres) = ($t->openai, $t->redis, $t->postgres);

diag(sprintf '%-36s %8s %8s %6s %6s %6s %9s', 'fault', 'answered', 'rows',
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

try('a row that a trigger refuses', sub { trigger("raise exception 'no'");
	ask('poison'); pause($away); no_trigger() });
try('a row with an error of the server', sub { trigger("raise sqlstate '53100'");
	ask('poison'); pause($away); no_trigger() });
try('a row that takes too long', sub { trigger('perform pg_sleep(60)');
	ask('poison'); pause($away); no_trigger() });
try('table locked for 30 s', sub { locked(30) });
try('DDL refused', sub { refuse_ddl(); $t->reload; pause($away);
	$postgres->sql('drop event trigger no_ddl') });
try('PostgreSQL frozen during a reload', sub { $postgres->freeze; $t->reload;
	pause($away); $postgres->thaw });
try('statement_timeout of 50 ms', sub { setting('statement_timeout', '50ms');
	pause($away); setting('statement_timeout', 0) });
try("kill -9 of everything, $kills times", sub { for (1 .. $kills) {
	$postgres->kill; $t->kill; $postgres->start; $t->run; pause(0.5) } });

other('INSERT only', 1, \&away, 'create role poor login', 'grant insert on request_logs'
	. ' to poor', 'grant usage on request_logs_id_seq to poor');
other('64 workers, 5 connections', 64, \&away, 'create role poor login'
	. ' connection limit 5', 'grant select, insert on request_logs to poor',
	'grant usage on request_logs_id_seq to poor');
other('partitioned table', 2, \&away, 'drop table request_logs',
	'create table request_logs (id bigint generated always as identity,'
	. ' ip_address varchar(45), request_text text, response_text text,'
	. ' status varchar(20), timestamp timestamptz) partition by range'
	. ' (timestamp)', 'create table request_logs_all partition of request_logs'
	. " for values from ('2020-01-01') to ('2100-01-01')",
	'create role poor login superuser');

try('Redis stopped', sub { $redis->stop; pause($away); $redis->start });
try('Redis frozen', sub { $redis->freeze; pause($away); $redis->thaw });
try('Redis frozen, 1,000 calls in flight', sub { $redis->freeze; pause($away);
	$redis->thaw }, at_once => 1000, text => '[delay 0.2]');
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
	other('disk full, 32 workers', 32, sub { fill(); away(); make_room() },
		'create role poor login superuser');
}

try("model: $_", sub { pause($away) }, text => "[$_]") for
	'status 429 x1', 'status 500 x1', 'status 500', 'reset x1', 'reset',
	'silent', 'stall', 'garbage', 'endless';

$t->quit;
system 'umount', $disk_dir if $disk;
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

	diag(sprintf '%-36s %8d %8d %6d %6d %6d %9.2f  %s', $name, scalar @ids,
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

# The same with another table or role; under an nginx of its own.
sub other {
	my ($name, $workers, $fault, @sql) = @_;
	return if $name !~ /$only/;

	$postgres->sql($_) for @sql;
	my $main = $t;
	$t = Test::Chatbot->new(with => $main, workers => $workers,
		alerts => qr/cannot be written/,
		http => "chatbot_log_journal $disk_dir/other;\n",
		conf => $conf =~ s/%%POSTGRES%%/$postgres->url('poor')/er)->run;
	try($name, $fault);
	$t->quit;
	$t = $main;
	$postgres->sql($_) for 'drop owned by poor', 'drop role poor',
		'drop table if exists request_logs';
	$t->reload;
}

sub trigger {
	my ($statement) = @_;
	$postgres->sql("create or replace function spoil() returns trigger"
		. " language plpgsql as \$\$ begin if new.request_text = 'poison' then"
		. " $statement; end if; return new; end \$\$");
	$postgres->sql('create trigger spoil before insert on request_logs'
		. ' for each row execute function spoil()');
}

sub no_trigger { $postgres->sql('drop trigger spoil on request_logs') }

sub locked {
	my ($seconds) = @_;
	$postgres->sql('begin; lock table request_logs in access exclusive mode;'
		. " select pg_sleep($seconds); commit");
}

sub refuse_ddl {
	$postgres->sql('create or replace function no_ddl() returns event_trigger'
		. " language plpgsql as \$\$ begin raise 'no DDL'; end \$\$");
	$postgres->sql('create event trigger no_ddl on ddl_command_start'
		. " when tag in ('CREATE TABLE', 'ALTER TABLE', 'CREATE INDEX')"
		. ' execute function no_ddl()');
}

sub setting {
	my ($name, $value) = @_;
	$postgres->sql("alter system set $name = '$value'");
	$postgres->sql('select pg_reload_conf()');
}

# What is measured is time, so time is what has to pass.
sub pause { sleep $_[0] }
sub away { pause($away) }

sub read_only {
	$postgres->sql("alter system set default_transaction_read_only = $_[0]");
	$postgres->sql('select pg_reload_conf()');
	$postgres->sql('select pg_terminate_backend(pid) from pg_stat_activity'
		. " where application_name = 'ngx_http_chatbot_module'");
}

sub fill {
	open my $fh, '>', "$disk_dir/ballast" or die "ballast: $!";
	1 while syswrite $fh, 'x' x 65536;
}

sub make_room { unlink "$disk_dir/ballast" }
