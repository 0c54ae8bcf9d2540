#!/usr/bin/perl

# PostgreSQL is down, frozen, read-only, or dies halfway: nobody waits for it,
# and every row arrives once.

use warnings;
use strict;

use IO::Select;
use IO::Socket::INET;
use List::Util qw/ max sum /;
use POSIX ();
use Test::More;
use Time::HiRes qw/ time /;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Load;
use Test::Chatbot::Server qw/ read_file /;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_redis off;

location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres %%POSTGRES%%;
}

location /cut {
    chatbot_pass %%API%%;
    chatbot_postgres
        "host=127.0.0.1 port=%%PORT_1%% user=postgres dbname=postgres";
    chatbot_log_table cut;
}

location /silent {
    chatbot_pass %%API%%;
    chatbot_postgres "host=127.0.0.1,127.0.0.1
        port=%%PORT_2%%,%%POSTGRES_PORT%% user=postgres dbname=postgres";
    chatbot_log_table silent;
}
EOF

my $postgres = $t->postgres;

# down when nginx starts

$postgres->stop;
$t->run;

my @answers = many(map { "no PostgreSQL $_" } 1 .. 20);
is(scalar(grep { status($_) == 200 } @answers), 20, 'down from the start');

$postgres->start;
is(wait_rows(20), 20, 'rows of before its start');

# each of these under load

my $load = Test::Chatbot::Load->start->wait(100);
$postgres->stop;
$load->wait(200);
$postgres->start;
$load->wait(100)->stop;
all_is_well($load, 'stopped');

$load = Test::Chatbot::Load->start->wait(100);
$postgres->freeze;
$load->wait(200);
$postgres->thaw;
$load->wait(100)->stop;
all_is_well($load, 'frozen');

$load = Test::Chatbot::Load->start->wait(100);
read_only('on');
$load->wait(200);
read_only('off');
$load->wait(100)->stop;
all_is_well($load, 'read-only');

$load = Test::Chatbot::Load->start->wait(100);
for (1 .. 3) {
	$postgres->kill;
	$load->wait(50);
	$postgres->start;
	$load->wait(50);
}
$load->stop;
all_is_well($load, 'killed');

# the first of two hosts takes connections, but says nothing

my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
	LocalPort => port(2), Listen => 16, ReuseAddr => 1) or die $!;
is(status(ask('hi', uri => '/silent')), 200, 'a silent host');

$load = Test::Chatbot::Load->start->wait(100);
for (1 .. 20) {
	$postgres->sql('select pg_terminate_backend(pid)'
		. ' from pg_stat_activity where pid <> pg_backend_pid()');
}
$load->wait(100)->stop;
all_is_well($load, 'connections lost');

# the connection is lost when the rows are committed, and nginx not yet told

my $cutter = start_cutter(port(1));
@answers = many(map { request(GET => "/cut?query=cut%20$_") } 1 .. 20);
is(scalar(grep { status($_) == 200 } @answers), 20, 'reply to insert lost');
wait_for { $postgres->rows('cut') >= 20 };
is($postgres->rows('cut'), 20, 'all rows are there');

@answers = many(map { request(GET => "/cut?query=cut%20$_") } 21 .. 40);
wait_for { $postgres->rows('cut') >= 40 };
is($postgres->rows('cut'), 40, 'rows come once');
cmp_ok($postgres->sql("select nextval('cut_id_seq')"), '>', 41,
	'although some were sent twice');

ok(wait_for(sub { $postgres->rows('silent') eq 1 }, 20),
	'a silent host, the other one is asked');

# frozen while workers leave: they do not wait for it, nor turn in circles

$postgres->sql('delete from request_logs');
ask('before the freeze');
wait_rows(1);
$postgres->freeze;
@answers = many(map { "frozen $_" } 1 .. 20);
is(scalar(grep { status($_) == 200 } @answers), 20, 'frozen, answered');
my @old = $t->workers;
my ($since, $before) = (time(), cpu(@old));
my $used = $before;
$t->reload;
ok(wait_for(sub { my %is = map { $_ => 1 } $t->workers;
	$used = max($used, cpu(@old)); !grep { $is{$_} } @old }, 20),
	'frozen, old workers leave');
diag(sprintf 'left after %.1f s, %.2f s of CPU', time() - $since,
	$used - $before);
ok(time() - $since < 8, 'frozen, they leave in time');
$since = time();
ok($t->quit, 'frozen, quit');
ok(time() - $since < 8, 'frozen, quit in time');
$postgres->thaw;
$t->run;
# rows of the tests above may still come
my $frozen = "select count(*) from request_logs where request_text ~ '^frozen '"
	. " or request_text = 'before the freeze'";
ok(wait_for(sub { $postgres->sql($frozen) >= 21 }, 20),
	'frozen, all rows arrive');
is($postgres->sql($frozen), 21, 'frozen, each once');

done_testing();

END { kill 'KILL', $cutter if $cutter }

###############################################################################

# Seconds of the processor.
sub cpu {
	return sum(map { my @stat = split / /, read_file("/proc/$_/stat");
		(($stat[13] // 0) + ($stat[14] // 0)) / 100 } @_) // 0;
}

sub all_is_well {
	my ($load, $name) = @_;
	my @ids = $load->ids;

	is(scalar(() = $load->failures), 0, "$name, all questions are answered");
	cmp_ok($load->slowest, '<', 5, "$name, nobody waits");

	my $n = wait_for { $postgres->rows >= @ids + 20 } 15;
	ok($n, "$name, all rows arrive");
	is($load->lost($postgres), 0, "$name, none is lost");
	$postgres->sql("delete from request_logs where request_text like '%load%'");
}

sub read_only {
	my ($value) = @_;

	my $said = $postgres->sql(
		"alter system set default_transaction_read_only = $value");
	$postgres->sql('select pg_reload_conf()');
	is($said, '', "read-only $value");
}

# Passes everything on to PostgreSQL, but cuts the first connection on which it
# says that a COPY was done.
sub start_cutter {
	my ($port) = @_;

	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
		LocalPort => $port, Listen => 16, ReuseAddr => 1) or die $!;
	my $test = $$;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;

	my $select = IO::Select->new($listener);
	my (%peer, %is_server, $was_cut);

	while (getppid() == $test) {
		for my $socket ($select->can_read(1)) {
			if ($socket == $listener) {
				my $client = $listener->accept;
				my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
					PeerPort => $postgres->port) or next;
				%peer = (%peer, $client => $server, $server => $client);
				$is_server{$server} = 1;
				$select->add($client, $server);
				next;
			}

			my $peer = $peer{$socket} or next;
			my $n = sysread $socket, my $bytes, 65536;
			my $is_cut = !$was_cut && $is_server{$socket} && $n
				&& $bytes =~ /COPY \d+\0/;
			$was_cut ||= $is_cut;

			if ($n && !$is_cut) {
				print $peer $bytes;
				$peer->flush;
				next;
			}

			$select->remove($socket, $peer);
			delete @peer{$socket, $peer};
			close $_ for $socket, $peer;
		}
	}
	POSIX::_exit(0);
}
