#!/usr/bin/perl

# The directory of the "chatbot_log_journal" directive: how much it takes on the
# disk, how many files of it are open, and what becomes of files that somebody
# else changes, locks or moves.

use warnings;
use strict;

use Fcntl qw/ :flock /;
use POSIX qw/ mkfifo /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture read_file /;

###############################################################################

my $conf = <<'EOC';
chatbot_model gpt-6-luna;
chatbot_redis off;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}

location /ping {
    return 200 pong;
}
EOC

my $t = Test::Chatbot->new(conf => $conf);
my $postgres = $t->postgres;
my (@mounted, $n);

# all workers together

my $many = Test::Chatbot->new(with => $t, workers => 16,
	conf => $conf =~ s/%%POSTGRES%%/off/r,
	http => "chatbot_log_journal j max_size=8m;\n")->run;
is(grep({ status($_) == 200 } many(map { "many $_" } 1 .. 200)), 200,
	'16 workers');
cmp_ok(disk_size($many, 'j'), '<', 8 * 1024 * 1024, 'take less than max_size');
$many->quit;
is(() = join('', map { read_file($_) } glob $many->dir . '/j/*') =~ /"many \d+"/g, 200, 'have it all');

SKIP: {
	my $small = Test::Chatbot->new(with => $t, workers => 16,
		conf => $conf =~ s/%%POSTGRES%%/off/r,
		http => "chatbot_log_journal disk;\n");
	mounted($small, 'disk', 'size=8m') or skip 'cannot mount a small disk', 1;

	$small->run;
	is(grep({ status($_) == 200 } many(map { "small $_" } 1 .. 200)), 200,
		'16 workers, a small disk, default max_size');
	$small->quit;
}

# a directory that is there, but not for the workers

SKIP: {
	my $readonly = Test::Chatbot->new(with => $t, conf => $conf,
		http => "chatbot_log_journal disk;\n");
	mounted($readonly, 'disk', 'ro,size=1m') or skip 'cannot mount a disk', 1;

	$readonly->run;
	ok(wait_for { $readonly->error_log =~
		m{\[crit\].*journal cannot be written.*/disk/.*Read-only} },
		'journal that cannot be written, told at start');
	$readonly->quit;
}

# many small segments, such as reloads leave behind without PostgreSQL

my $left = Test::Chatbot->new(with => $t, conf => $conf, workers => 2,
	main => "worker_rlimit_nofile 128;\n");
my $journal = $left->dir . '/chatbot-journal';
mkdir $journal;
segment("$journal/log-left-$_.jsonl", "left $_") for 1000 .. 1299;
mkfifo("$journal/log-fifo.jsonl", 0600);
symlink 'nowhere', "$journal/log-link.jsonl";
mkdir "$journal/log-directory.jsonl";
segment("$journal/log-locked.jsonl", 'locked');
open my $locked, '<', "$journal/log-locked.jsonl" or die $!;
flock $locked, LOCK_SH;

$postgres->stop;
$left->run;
my ($worker) = $left->workers;
ok(wait_for { (() = glob "/proc/$worker/fd/*") >= 32 }, 'some are adopted');
is(grep({ status($_) == 200 } map { get('/ping') } 1 .. 100), 100,
	'no descriptor is missed');
is(status(ask('while they wait')), 200, 'answered');
cmp_ok(scalar(() = glob "/proc/$_/fd/*"), '<', 100, 'descriptors')
	for $left->workers;

$postgres->start;
arrived(qr/left/, 300, 'all are rows');
arrived(qr/while they wait/, 1, 'and new ones');
for my $name (qw/ fifo link directory /) {
	is(() = $left->error_log
		=~ /\[error\].*left behind in .*-$name\.jsonl: not a regular file/g, 2,
		"$name, told once by each worker");
}

close $locked;
arrived(qr/locked/, 1, 'file that was locked');
ok($left->quit, 'quit');

# a file that is emptied while it is written to

my $copied = Test::Chatbot->new(with => $t, conf => $conf)->run;
$journal = $copied->dir . '/chatbot-journal';
$postgres->stop;
is(status(ask("copied $_")), 200, 'answered') for 1 .. 3;
my ($file) = grep { -s } glob "$journal/log-*.jsonl";
my $copy = read_file($file);
truncate $file, 0;
is(status(ask("copied $_")), 200, 'answered') for 4 .. 6;

$postgres->start;
arrived(qr/copied [456]/, 3, 'emptied, what came after it');
like($copied->error_log, qr/\[warn\].*\Q$file\E.* was changed/, 'and is told');
open my $fh, '>', "$journal/log-copy.tmp" or die $!;
print $fh $copy;
close $fh;
rename "$journal/log-copy.tmp", "$journal/log-copy.jsonl" or die $!;
arrived(qr/copied \d/, 6, 'the copy is taken in');

# what PostgreSQL refused is taken in again, as README.md says

$postgres->sql("alter table request_logs add constraint c"
	. " check (request_text !~ 'forbidden')");
is(status(ask("forbidden $_")), 200, 'answered') for 1 .. 3;
is(status(ask('allowed')), 200, 'answered');
arrived(qr/allowed/, 1, 'the others are rows');
my $rejected = "$journal/rejected.jsonl";
ok(wait_for { -e $rejected && 3 == (() = read_file($rejected) =~ /\n/g) },
	'set aside');

$postgres->sql('alter table request_logs drop constraint c');
my ($command) = read_file("$FindBin::Bin/../README.md")
	=~ /^\$ (mv .*rejected\.jsonl.*)$/m;
is(system("cd $journal && $command"), 0, $command);
arrived(qr/forbidden/, 3, 'taken in again');
ok(wait_for { !glob "$journal/*again*" }, 'and gone');
$copied->quit;

# another directory, while records wait

my $moved = Test::Chatbot->new(with => $t, conf => $conf,
	http => "chatbot_log_journal old;\n")->run;
$postgres->stop;
is(status(ask('old directory')), 200, 'answered');
$moved->{http} = "chatbot_log_journal new;\n";
$moved->reload($conf);
ok(wait_for { $moved->error_log
	=~ m{\[error\].*left behind in "\S*/old".* in 1 file.*/old/log-\S*jsonl} },
	'what is left behind is told');
is(status(ask('new directory')), 200, 'answered');

$postgres->start;
arrived(qr/new directory/, 1, 'the new one is shipped');
my ($move) = read_file("$FindBin::Bin/../README.md")
	=~ /^\$ (mv .*old-journal.*)$/m;
$move =~ s{(?:old|new)-journal}{$moved->dir . '/' . substr $&, 0, 3}ge;
is(system($move), 0, 'moved');
arrived(qr/old directory/, 1, 'and so is the old one');

$moved->{http} = "chatbot_log_journal again;\n";
$moved->reload($conf);
$moved->quit;
is(() = $moved->error_log =~ /left behind in/g, 1, 'nothing is left, not told');

done_testing();

END { capture('umount', '-l', $_) for @mounted }

###############################################################################

# A segment with one record.
sub segment {
	my ($path, $text) = @_;

	open my $fh, '>', $path or die "$path: $!";
	print $fh '{"timestamp":"2026-11-23T06:13:00.123Z","ip_address":"::1",'
		. qq("request_text":"$text","request_id":"$text",)
		. '"status":"error","http_status":200}' . "\n";
	close $fh;
}

sub arrived {
	my ($text, $count, $name) = @_;
	my $pattern = "$text" =~ s/^\(\?\^?\w*:(.*)\)$/$1/r;
	my $rows = sub { $postgres->sql('select count(*), count(distinct request_text)'
		. " from request_logs where request_text ~ '$pattern'") };

	wait_for { $rows->() eq "$count|$count" };
	is($rows->(), "$count|$count", $name);
}

sub disk_size {
	my ($nginx, $dir) = @_;
	my $size = 0;
	$size += 512 * (stat)[12] for glob $nginx->dir . "/$dir/*";
	return $size;
}

# A small disk in the instance's directory.
sub mounted {
	my ($nginx, $name, $options) = @_;
	my $dir = $nginx->dir . "/$name";

	mkdir $dir;
	return if $> || capture(qw/ mount -t tmpfs -o /, $options, 'tmpfs', $dir);
	push @mounted, $dir;
}
