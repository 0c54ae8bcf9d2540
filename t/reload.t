#!/usr/bin/perl

# Reload, quit and stop, with requests in flight.

use warnings;
use strict;

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw/ time /;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Load;
use Test::Chatbot::Server qw/ read_file /;

###############################################################################

my $conf = <<'EOF';
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}
EOF

my $t = Test::Chatbot->new(conf => $conf, workers => 2)->run;
my ($api, $postgres) = ($t->openai, $t->postgres);

# under load

my $load = Test::Chatbot::Load->start(at_once => 20)->wait(100);
for (1 .. 5) {
	ok($t->reload, 'reload');
	$load->wait(20);
}
$load->stop;

my @ids = $load->ids;
is(join('; ', $load->failures), '', 'no request is refused');
wait_for { $postgres->rows >= @ids };
is($postgres->sql('select string_agg(request_id, $$ $$ order by request_id'
	. ' collate "C") from request_logs'), join(' ', sort @ids),
	'rows are the answers');

# old workers answer what they began, even if the new configuration is another

my $slow = dial();
print $slow request(GET => '/chat?query=[delay%201]%20old%20worker');
wait_for { $api->in_flight == 1 };
$t->reload($conf =~ s/chatbot_model/chatbot_system_prompt ""; $&/r);
like(ask('new worker'), qr/ 200 .*new worker/s, 'new worker');
is($api->in_flight, 1, 'while the old one waits');
like(join('', <$slow>), qr/ 200 .*old worker"/s, 'old worker');
like(ask('[delay 1] old worker'), qr/"api"/, 'another prompt, another key');

# a wrong configuration changes nothing

ok(!$t->reload($conf . 'chatbot_retries x;'), 'wrong configuration');
is(status(ask('still there')), 200, 'still there');
ok(!$t->reload($conf . 'chatbot_api_key file:/etc;'), 'a directory as a file');
ok($t->nginx->alive, 'a directory as a file, the master is there');

# nor does one that fails when it was read, not even for workers made later

ok(!$t->reload('set $first 1; set $second 2; access_log no/such/dir;' . $conf),
	'wrong log');
my @workers = $t->workers;
kill 'KILL', @workers;
wait_for { my %is = map { $_ => 1 } $t->workers;
	keys %is == 2 && !grep { $is{$_} } @workers };
my %ids = map { header($_, 'X-Request-ID') // '' => 1 }
	many(map { "wrong log $_" } 1 .. 4);
is(join(' ', map { length } keys %ids), '32 32 32 32', 'wrong log, ids');
ok(wait_for { $postgres->sql('select count(*) from request_logs where'
	. " request_text ~ 'wrong log'") eq '4' }, 'wrong log, rows');
$t->{alerts} = qr/invalid (?:number|value)|"chatbot_|no\/such|on signal 9/;

# nothing is left behind

ok($t->reload($conf), 'reload');
ok(wait_for { $t->workers == 2 }, 'old workers are gone');
ok(wait_for { sockets($t) == 5 }, 'a socket to listen on, two to each worker');
my $before = belongings($t);
$t->reload for 1 .. 20;
ok(wait_for(sub { $t->workers == 2 && sockets($t) == 5 }, 60),
	'20 reloads, old workers are gone');
is(belongings($t), $before, '20 reloads, the master has what it had');

ok(wait_for { my %threads = map { threads($_) => 1 } $t->workers;
	keys %threads == 1 }, 'workers are alike');

# quit answers all

$postgres->sql('delete from request_logs');
my @slow = map { my $s = dial();
	print $s request(GET => "/chat?query=[delay%201]%20quit%20$_"); $s } 1 .. 50;
wait_for { $api->in_flight == 50 };

my $since = time();
ok($t->quit, 'quit');
cmp_ok(time() - $since, '<', 20, 'quit, without waiting for more');
is(scalar(grep { join('', <$_>) =~ / 200 .*quit \d+", "source": "api"/s }
	@slow), 50, 'quit, all are answered');
is(wait_rows(50, 2), 50, 'quit, all rows are there');

# stop answers nobody, and loses no row

$t->run;
@slow = map { my $s = dial();
	print $s request(GET => "/chat?query=[silent]%20stop%20$_"); $s } 1 .. 20;
wait_for { $api->in_flight == 20 };

$since = time();
ok($t->stop, 'stop');
cmp_ok(time() - $since, '<', 20, 'stop, at once');
is(join('', map { join '', <$_> } @slow), '', 'stop, nobody is answered');

$t->run;
is(wait_rows(70), 70, 'stop, all rows are there');
is($postgres->sql("select status, http_status, count(*) from request_logs where"
	. " request_text ~ 'stop' group by 1, 2"), 'error|499|20', 'stop, rows');
is(status(ask('and again')), 200, 'started again');

# stop while Redis is asked

my $mute = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
	LocalPort => port(1), Listen => 16, ReuseAddr => 1, Timeout => 10) or die $!;
$t->quit;
$t->{conf} = $conf =~ s{%%REDIS%%}{redis://127.0.0.1:%%PORT_1%%;
	chatbot_redis_timeout 60s}r;
$t->run;

my $client = dial();
print $client request(GET => '/chat?query=stop%20in%20a%20lookup');
my $lookup = $mute->accept;
ok(sysread($lookup, my $heard, 1), 'stop in a lookup, looked up');

ok($t->stop, 'stop in a lookup');
is(join('', <$client>), '', 'stop in a lookup, not answered');
$t->run;
is(wait_row('stop in a lookup'),
	'error|499|Error: The server was stopped.', 'stop in a lookup, row');

done_testing();

###############################################################################

sub wait_row {
	my ($text) = @_;
	my $sql = 'select status, http_status, response_text from request_logs'
		. " where request_text = '$text'";

	wait_for { $postgres->sql($sql) ne '' };
	return $postgres->sql($sql);
}

# What a process has: threads and descriptors.
sub belongings {
	my ($t) = @_;
	my $pid = $t->nginx->pid;

	return threads($pid) . ' threads, ' . join ', ', sort map {
		(readlink // '') =~ s/\d+//gr } glob "/proc/$pid/fd/*";
}

# The master closes those to a worker a moment after the worker is gone.
sub sockets { scalar(() = belongings(@_) =~ /socket/g) }

sub threads { read_file("/proc/$_[0]/status") =~ /^Threads:\s*(\d+)/m ? $1 : 0 }
