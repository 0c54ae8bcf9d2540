#!/usr/bin/perl

# What an operator is told of the journal: that workers cannot write it, at
# start, by the error log, the health page and the metrics; and how much waits
# for PostgreSQL, in files of dead workers, too.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Metrics;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $pages = <<'EOF';
chatbot_redis off;

location = /metrics {
    chatbot_metrics;
}

location = /health {
    chatbot_health;
}
EOF
my $conf = $pages . <<'EOF';
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}
EOF
my $t = Test::Chatbot->new(conf => $conf);
my ($nginx, $dir, @mounted);

# a directory that workers cannot reach

SKIP: {
	skip 'not root', 6 if $>;

	my $closed = told('closed/journal', user => 'nobody nogroup');
	mkdir $closed->dir . '/closed', 0700;
	$closed->run;
	ill('Permission denied', 'nobody may reach it');
	chmod 0755, $closed->dir . '/closed';
	well('mended');
	$closed->quit;
}

# file systems

SKIP: {
	my $readonly = told('disk');
	mounted('ro,size=1m') or skip 'cannot mount a disk', 6;
	$readonly->run;
	ill('Read-only file system', 'read-only');
	capture('mount', '-o', 'remount,rw', $dir);
	well('mended');
	$readonly->quit;

	my $full = told('disk');
	mounted('size=64k');
	capture('sh', '-c', "cat /dev/zero >$dir/other 2>&1");
	$full->run;
	ill('No space left on device', 'a full disk');
	unlink "$dir/other";
	well('mended');

	capture('sh', '-c', "cat /dev/zero >$dir/other 2>&1");
	my $n = 0;
	ok(wait_for { status(ask('question ' . $n++ . 'x' x 2000)) == 503 },
		'a disk that fills up');
	ok(wait_for { value('chatbot_journal_writable') == 0 }, 'metrics say so');
	unlink "$dir/other";
	well('mended again');
	$full->quit;
}

# what waits: all that is on the disk, whoever has it open

my $many = Test::Chatbot->new(with => $t, conf => $conf, workers => 2,
	alerts => qr/exited on signal 9/);
my $journal = $many->dir . '/chatbot-journal';
mkdir $journal;
segment("left-$_") for 1000 .. 1099;
$t->postgres->stop;
my $waiting = sub { my $sum = 0; $sum += -s for glob "$journal/log-*"; $sum };
$many->run;
is(status(ask('while PostgreSQL is down')), 200, 'answered');
ok(wait_for { value('chatbot_log_backlog_bytes') == $waiting->() },
	'a hundred files and a new one');
cmp_ok($waiting->(), '>', 10_000, 'some bytes');
cmp_ok(wait_for { value('chatbot_log_oldest_seconds') }, '>=', 3600,
	'how long they have waited');

kill 'KILL', $many->workers;
ok(wait_for { value('chatbot_log_backlog_bytes') == $waiting->() },
	'those of killed workers wait, too');
$t->postgres->start;
is(wait_rows(101, 30), 101, 'all of them are rows');
ok(wait_for { value('chatbot_log_backlog_bytes') == 0
	&& value('chatbot_log_oldest_seconds') == 0 }, 'nothing waits');
$many->quit;

# one database is down, the other one is not

my $two = Test::Chatbot->new(with => $t, conf => $pages . <<'EOF')->run;
location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres %%POSTGRES%%;
}

location /down {
    chatbot_pass %%API%%;
    chatbot_postgres "host=127.0.0.1 port=1 user=u dbname=d";
}
EOF
is(status(ask('to nowhere', uri => '/down')), 200, 'one database is down');
ok(wait_for { value('chatbot_postgres_up') == 0 }, 'metrics say so');
my $rows = $t->postgres->rows;
is(status(ask('to the other')), 200, 'the other one is up');
is(wait_rows($rows + 1), $rows + 1, 'and has its row');
is(value('chatbot_postgres_up'), 0, 'they still say so');
ok(wait_for { value('chatbot_log_oldest_seconds') > 0 }, 'and that one waits');
$two->quit;

done_testing();

END { capture('umount', '-l', $_) for @mounted }

###############################################################################

# An instance with that journal, and no database.
sub told {
	my ($name, @more) = @_;
	$nginx = Test::Chatbot->new(with => $t,
		conf => $conf =~ s/%%POSTGRES%%/off/r,
		http => "chatbot_log_journal $name;\n", @more);
	$dir = $nginx->dir . "/$name";
	return $nginx;
}

# A small disk for the journal of the last instance.
sub mounted {
	my ($options) = @_;
	mkdir $dir;
	return if $> || capture(qw/ mount -t tmpfs -o /, $options, 'tmpfs', $dir);
	push @mounted, $dir;
}

# Before anybody asks anything.
sub ill {
	my ($why, $name) = @_;
	is(status(get('/health')), 503, "$name, health");
	is(value('chatbot_journal_writable'), 0, "$name, metrics");
	like($nginx->error_log, qr/\[crit\].*journal cannot be written: \Q$dir\E.*: $why/,
		"$name, error log");
}

sub well {
	my ($name) = @_;
	ok(wait_for { status(get('/health')) == 200 }, "$name, health");
	is(value('chatbot_journal_writable'), 1, "$name, metrics");
	is(status(ask("question, $name")), 200, "$name, answered");
}

# A segment with a record of an hour ago.
sub segment {
	my ($name) = @_;
	my $path = "$journal/log-$name.jsonl";

	open my $fh, '>', $path or die "$path: $!";
	print $fh '{"timestamp":"2026-11-23T06:13:00.123Z","ip_address":"::1",'
		. qq("request_text":"$name","request_id":"$name",)
		. '"status":"error","http_status":200}' . "\n";
	close $fh;
	utime time() - 3600, time() - 3600, $path;
}
