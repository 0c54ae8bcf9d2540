#!/usr/bin/perl

# Redis is down, frozen, full, or talks nonsense: answers go on, and nobody
# waits for it longer than "chatbot_redis_timeout".

use warnings;
use strict;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

# What fakes say to whatever they are asked.
my %says = (
	array => "*1000000000\r\n",
	bulk => "\$1000000000\r\nx",
	closes => undef,
	endless => 'x' x 1_000_000,
	half => "\$100\r\n{\"response\": \"ha",
	http => "HTTP/1.1 400 Bad Request\r\n\r\n",
	integer => ":1\r\n",
	loading => "-LOADING Redis is loading the dataset in memory\r\n",
	masterdown => "-MASTERDOWN Link with MASTER is down\r\n",
	negative => "\$-5\r\n",
	nested => '*1' . "\r\n*1" x 1000 . "\r\n",
	nothing => '',
	readonly => "-READONLY You can't write against a read only replica.\r\n",
	status => "+OK\r\n",
	too_much => "+PONG\r\n" x 100,
);

my @fakes = sort keys %says;
my $timeout = 0.4;
my $long = 20;                  # far more than that, on the slowest machine

my $t = Test::Chatbot->new();
my %port = map { $fakes[$_] => port($_ + 1) } 0 .. $#fakes;

$t->{conf} = <<'EOF' . join '', map { <<"EOF" } @fakes;
chatbot_model gpt-6-luna;
chatbot_redis_timeout 400ms;

location /chat {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
}

location /password {
    chatbot_pass %%API%%;
    chatbot_redis redis://:wrong@127.0.0.1:%%REDIS_PORT%%;
}

location /no_database {
    chatbot_pass %%API%%;
    chatbot_redis redis://127.0.0.1:%%REDIS_PORT%%/1000;
}

EOF
location /fake/$_ {
    chatbot_pass %%API%%;
    chatbot_redis redis://127.0.0.1:$port{$_};
}
EOF

my $fakes = start_fakes();
$t->run;
my $redis = $t->redis;

# stopped

like(ask('hi'), qr/"api"/, 'asked');
like(ask('hi'), qr/"cache"/, 'cached');
$redis->stop;
ok(undelayed('hi'), 'stopped');
$redis->start;
ok(is_back('stopped'), 'hits are back');

# frozen

$redis->freeze;
like(ask('hi'), qr/"api"/, 'frozen');
cmp_ok(slowest(), '<', $long, 'frozen, waits as long as allowed');
ok(undelayed('frozen'), 'known to be frozen, nobody waits');
$redis->thaw;
ok(is_back('frozen'), 'hits are back after frost');

$redis->freeze;
my @answers = many(map { "frozen, all at once $_" } 1 .. 50);
is(scalar(grep { status($_) == 200 } @answers), 50, 'frozen under load');
cmp_ok(slowest(), '<', $long, 'frozen under load, in time');
$redis->thaw;
ok(is_back('load'), 'hits are back after frost and load');

# full

$redis->cli(qw/ CONFIG SET maxmemory 1 /);
like(ask('full'), qr/"api"/, 'full');
like(ask('full'), qr/"api"/, 'full, not stored');
like(ask('back, load'), qr/"cache"/, 'full, still a hit');
$redis->cli(qw/ CONFIG SET maxmemory 0 /);
ok(is_back('full'), 'stored when there is room');

# another type

$redis->cli('FLUSHALL');
ask('hi');
my ($key) = wait_for { $redis->cli('KEYS', '*') };
$redis->cli('DEL', $key);
$redis->cli('LPUSH', $key, 'list');
like(ask('hi'), qr/"api"/, 'wrong type');
like(ask('hi'), qr/"cache"/, 'wrong type, overwritten');

# denied

like(ask('hi', uri => '/password'), qr/"api"/, 'wrong password');
like(ask('hi', uri => '/no_database'), qr/"api"/, 'no such database');
$redis->cli(qw/ CONFIG SET requirepass secret /);
$redis->cli(qw/ CLIENT KILL TYPE normal /);
ok(undelayed('denied'), 'a password is wanted');
$redis->cli(qw/ -a secret CONFIG SET requirepass /, '');
ok(is_back('denied'), 'hits are back without a password');

# nonsense

for my $fake (@fakes) {
	for my $n (1, 2) {
		like(ask("$fake $n", uri => "/fake/$fake"),
			qr/ 200 .*"answer \d+: $fake $n", "source": "api"/s, "$fake $n");
		cmp_ok(slowest(), '<', $long, "$fake $n, in time");
	}
}

unlike($t->error_log, qr/wrong@|:wrong|secret/, 'no password in the log');

done_testing();

END { kill 'KILL', $fakes if $fakes }

###############################################################################

# Whether ten questions are answered, and do not all wait for the timeout.
# (A busy machine delays some.)
sub undelayed {
	my ($text) = @_;
	my ($answered, $fast) = (0, 0);
	for (1 .. 10) {
		$answered += ask("$text $_") =~ / 200 .*"api"/s;
		$fast += slowest() < $timeout;
	}
	return $answered == 10 && $fast > 0;
}

sub is_back {
	my ($text) = @_;
	return wait_for { ask("back, $text") =~ /"cache"/ };
}

sub start_fakes {
	my $select = IO::Select->new();
	my %name;

	for (@fakes) {
		my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
			LocalPort => $port{$_}, Listen => 128, ReuseAddr => 1) or die $!;
		$name{$listener} = $_;
		$select->add($listener);
	}

	my $test = $$;
	my $pid = fork // die "fork: $!";
	return $pid if $pid;

	my %said;
	while (getppid() == $test) {
		for my $socket ($select->can_read(1)) {
			if ($name{$socket}) {
				my $client = $socket->accept;
				$client->blocking(0);
				$said{$client} = $says{$name{$socket}};
				$select->add($client);
				next;
			}

			if (sysread($socket, my $heard, 65536) && defined $said{$socket}) {
				syswrite $socket, $said{$socket};
				next;
			}

			$select->remove($socket);
			close $socket;
		}
	}
	POSIX::_exit(0);
}
