#!/usr/bin/perl

# What was answered stands in the journal until it stands in PostgreSQL, the
# "chatbot_log_journal" directive.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Load;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $conf = <<'EOF';
chatbot_model gpt-6-luna;
chatbot_redis off;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}
EOF

my $t = Test::Chatbot->new(conf => $conf, workers => 2,
	alerts => qr/worker process \d+ exited on signal 9/)->run;
my ($api, $postgres) = ($t->openai, $t->postgres);
my $rows = 0;
my $mounted;

# in peace

answered(10);
arrived('in peace');
wait_for { !content($t) };
is(content($t), '', 'nothing is left in the journal');

# workers are killed

$postgres->stop;
answered(20);
my @workers = $t->workers;
kill 'KILL', @workers;
wait_for { my %is = map { $_ => 1 } $t->workers;
	keys %is == 2 && !grep { $is{$_} } @workers };
answered(5);
$postgres->start;
arrived('workers killed');

# everything is killed, in the middle of a line

$postgres->stop;
answered(20);
$t->kill;
my ($torn) = grep { -s } segments($t);
open my $fh, '>>', $torn or die "$torn: $!";
print $fh '{"timestamp":"2026-11-23T06:13:00.123Z","ip_addr';
close $fh;
$t->run;
answered(5);
$postgres->start;
arrived('nginx killed');
unlike($t->error_log, qr/records refused: \d/, 'the torn line is gone');
ok(!-e $t->dir . '/chatbot-journal/rejected.jsonl', 'nothing was set aside');

# PostgreSQL is away all the time

$postgres->stop;
answered(5);
ok($t->quit(seconds => 5), 'quit does not wait for PostgreSQL');
$postgres->start;
$t->run;
arrived('quit meanwhile');

# a worker that ends when the new ones have begun

$postgres->stop;
my $slow = dial();
print $slow request(GET => '/chat?query=[delay%200.5]%20old%20worker');
wait_for { $api->in_flight == 1 };
$t->reload;
like(join('', <$slow>), qr/ 200 /, 'answer of an old worker') && $rows++;
wait_for { $t->workers == 2 };
$postgres->start;
arrived('old worker');

# all of it under load

my $load = Test::Chatbot::Load->start->wait(100);
kill 'KILL', ($t->workers)[0];
$load->wait(200);
$postgres->stop;
$load->wait(100);
$t->kill;
$t->run;
$load->wait(100);
$postgres->start;
$load->wait(100)->stop;
ok(wait_for { $load->lost($postgres) == 0 }, 'killed under load, rows');

# another PostgreSQL user is no other database

$postgres->sql('create user somebody superuser');
$postgres->stop;
answered(5);
$t->quit;
($t->{conf} = $conf) =~ s{%%POSTGRES%%}{$postgres->url('somebody')}e;
$postgres->start;
$t->run;
arrived('another user');
$t->quit;
is(join(' ', segments($t)), '', 'no file is left');

# full

my $full = Test::Chatbot->new(with => $t, conf => $conf,
	http => "chatbot_log_journal full max_size=64k;\n")->run;

is(scalar(grep { status($_) == 200 } many(map { "small $_" } 1 .. 30)), 30,
	'a small journal, 30 at once');
$rows += 30;
arrived('a small journal');

$postgres->stop;
my ($n, $refused) = (0);
while ($n < 100) {
	my $response = ask("full " . 'x' x 2000 . $n);
	$refused = $response if status($response) != 200;
	last if $refused;
	$n++;
}
$rows += $n;

is(status($refused), 503, 'full');
cmp_ok($n, '>', 5, 'not too early');
is(header($refused, 'Content-Type'), 'application/problem+json', 'problem');
like(header($refused, 'Retry-After'), qr/^[1-9]\d*$/, 'retry after');
like($full->error_log, qr/\[crit\].*max_size/, 'logged');

my $calls = $api->calls;
is(status(ask("full $_")), 503, 'still full') for 1 .. 3;
is($api->calls, $calls, 'no money is spent');

$postgres->start;
ok(wait_for { status(ask('room')) == 200 && ++$rows }, 'room again');
arrived('full');
$full->quit;

# cannot be written

my $nowhere = Test::Chatbot->new(with => $t, conf => $conf,
	http => "chatbot_log_journal nowhere;\n")->run;
my $dir = $nowhere->dir . '/nowhere';
# a worker that starts tries whether it can write there
ok(wait_for { rmdir $dir }, 'no directory any more');

$calls = $api->calls;
is(status(ask('nowhere')), 503, 'no directory');
is($api->calls, $calls, 'no directory, not asked');
like($nowhere->error_log, qr/\[crit\].*nowhere/, 'no directory, logged');

mkdir $dir;
ok(wait_for { status(ask('somewhere')) == 200 && ++$rows }, 'a directory');
arrived('a directory');

rename $dir, "$dir.old" or die "$dir: $!";
ok(wait_for {
	my $status = status(ask('moved'));
	$rows++ if $status == 200;
	return $status == 503;
}, 'moved');
like($nowhere->error_log, qr/\[warn\].*moved/, 'moved, logged');
mkdir $dir;
ok(wait_for { status(ask('made')) == 200 && ++$rows }, 'made again');
arrived('moved');
$nowhere->quit;

# no space is left

SKIP: {
	my $disk = Test::Chatbot->new(with => $t, conf => $conf,
		http => "chatbot_log_journal disk max_size=1m;\n");
	$mounted = $disk->dir . '/disk';
	mkdir $mounted;

	if ($> || capture(qw/ mount -t tmpfs -o size=600k tmpfs /, $mounted)) {
		$mounted = undef;
		skip 'cannot mount a small disk', 9;
	}
	$disk->run;

	$postgres->stop;
	is(status(ask('some space')), 200, 'some space') && $rows++;
	fill("$mounted/full");
	($n, $refused) = (0);
	while ($n < 200 && !$refused) {
		my $response = ask("no space " . 'x' x 2000 . $n);
		status($response) == 200 ? $n++ : ($refused = $response);
	}
	$rows += $n;

	is(status($refused), 503, 'no space');
	like(header($refused, 'Retry-After'), qr/^[1-9]\d*$/,
		'no space, retry after');
	like($disk->error_log, qr/\[crit\].*No space left/, 'no space, logged');

	$calls = $api->calls;
	is(status(ask('still no space')), 503, 'still no space');
	is($api->calls, $calls, 'no space, no money is spent');

	unlink "$mounted/full";
	ok(wait_for { status(ask('space')) == 200 && ++$rows }, 'space again');
	$postgres->start;
	arrived('no space');
	ok($disk->quit, 'no space, quit');
}

# what is left behind is found, although PostgreSQL is busy when it is time to
# look, and nothing is asked any more

my $busy = Test::Chatbot->new(with => $t, conf => $conf)->run;
mkdir $busy->dir . '/chatbot-journal/log-no-file.jsonl';
is(status(ask('before')), 200, 'before') && $rows++;
arrived('before');

$postgres->sql($_) for 'create function slow() returns trigger language plpgsql'
	. ' as $$ begin perform pg_sleep(6); return null; end $$',
	'create trigger slow after insert on request_logs execute function slow()';
is(status(ask('slow')), 200, 'slow') && $rows++;
ok(wait_for { sleeping() eq '1' }, 'slow, it takes longer than a look around');

my $orphan = $busy->dir . '/chatbot-journal/log-of-another-1.jsonl';
open $fh, '>', $orphan or die "$orphan: $!";
print $fh '{"timestamp":"2026-11-23T06:13:00.123Z","ip_address":"::1",'
	. '"request_text":"left behind","status":"error","http_status":200}' . "\n";
close $fh;
my ($worker) = $busy->workers;
ok(wait_for(sub { grep { (readlink // '') eq $orphan } glob "/proc/$worker/fd/*"
	}, 15), 'left behind, found') && $rows++;

$postgres->sql('drop trigger slow on request_logs');
arrived('left behind');
is(scalar(() = $busy->error_log =~ /\[error\].*left behind in .*-no-file/g), 1,
	'what cannot be read is told once');
$busy->quit;

# what is left behind by a database that is not there any more

my $off = 'location /off { chatbot_pass %%API%%; chatbot_postgres off; }';
my $gone = Test::Chatbot->new(with => $t, workers => 2, conf => $off);
my $stranded = $gone->dir . '/chatbot-journal/log-01234567-1-1.jsonl';
mkdir $gone->dir . '/chatbot-journal';
open $fh, '>', $stranded or die "$stranded: $!";
print $fh '{"timestamp":"2026-11-23T06:13:00.123Z","ip_address":"::1",'
	. '"request_text":"stranded","status":"error","http_status":200}' . "\n";
close $fh;

my $errors = sub { scalar(() =
	$gone->error_log =~ /\[error\].*not configured.*\Q$stranded/g) };

$gone->run;
ok(wait_for { $errors->() == 1 }, 'no database, an error');

$gone->reload("$conf $off"
	. ' location /b { chatbot_pass %%API%%; chatbot_log_table b; }');
ok(wait_for { $errors->() == 2 }, 'two databases, an error');
ok(-s $stranded, 'two databases, it stays');

$gone->reload("$conf $off");
$rows++;
arrived('one database takes it');
is($errors->(), 2, 'one database, no error');

done_testing();

END { capture('umount', '-l', $mounted) if $mounted }

###############################################################################

# So many questions are asked and answered.
sub answered {
	my ($n) = @_;

	my @answers = many(map { 'question ' . ++$rows } 1 .. $n);
	is(scalar(grep { status($_) == 200 } @answers), $n, "$n answers");
}

# All answers are rows, once.
sub arrived {
	my ($name) = @_;
	my $count = 'select count(*) from request_logs where http_status = 200'
		. " and request_text !~ 'load'";

	wait_for { $postgres->sql($count) eq $rows };
	is($postgres->sql($count), $rows, "$name, rows");
}

# Writes until nothing more can be written.
sub fill {
	my ($file) = @_;

	open my $fh, '>', $file or die "$file: $!";
	for my $size (4096, 1) {
		1 while syswrite $fh, 'x' x $size;
	}
}

sub sleeping {
	return $postgres->sql('select count(*) from pg_stat_activity'
		. " where wait_event = 'PgSleep'");
}

sub segments { glob $_[0]->dir . '/chatbot-journal/*.jsonl' }

sub content {
	my ($nginx) = @_;
	return join '', map { $nginx->read(substr $_, 1 + length $nginx->dir) }
		segments($nginx);
}
