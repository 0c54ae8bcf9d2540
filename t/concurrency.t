#!/usr/bin/perl

# Many questions at once, few threads, and nobody waits for somebody else.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
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

# a thousand questions, four threads

my $t = Test::Chatbot->new(conf => $conf, main => "thread_pool four threads=4;\n",
	http => "chatbot_thread_pool four;\n")->run;
my $api = $t->openai;

# none is answered before all are asked
my @answers = many({ timeout => 60 },
	map { "[together 1000] question $_" } 1 .. 1000);

is(answered(@answers), 1000, 'a thousand answers');
is(wrong(@answers), 0, 'each to its question');
is($api->max_in_flight, 1000, 'asked at once');
is(wait_rows(1000), 1000, 'a thousand rows');

# a slow one holds up nobody

my $slow = dial();
print $slow request(GET => '/chat?query=[delay%201]%20slow');
wait_for { $api->in_flight == 1 };

like(ask('quick'), qr/ 200 .*: quick"/s, 'a quick one');
is($api->in_flight, 1, 'answered while a slow one waits');
like(join('', <$slow>), qr/ 200 .*slow"/s, 'the slow one');

# one thread does everything

my $one = Test::Chatbot->new(with => $t, conf => $conf,
	main => "thread_pool one threads=1;\n",
	http => "chatbot_thread_pool one;\n")->run;

@answers = many(map { "[delay 0.3] of one thread, $_" } 1 .. 50);
is(answered(@answers), 50, 'one thread');
is(wrong(@answers), 0, 'one thread, each to its question');
like(ask('[delay 0.3] of one thread, 1'), qr/"cache"/, 'one thread, cached');
is(wait_rows(1053), 1053, 'one thread, rows');

# a thread pool with no room for all lanes

my $tiny = Test::Chatbot->new(with => $t, conf => $conf,
	main => "thread_pool tiny threads=1 max_queue=1;\n",
	http => "chatbot_thread_pool tiny;\n")->run;

for my $round (1 .. 4) {
	@answers = many(map { "[delay 0.2] no room $round.$_" } 1 .. 25);
	is(answered(@answers), 25, 'full thread pool');
	is(wrong(@answers), 0, 'full thread pool, each to its question');
}
is(wait_rows(1153), 1153, 'full thread pool, rows');
$tiny->quit;

# its threads are still at work when the worker ends

my $ended = Test::Chatbot->new(with => $t,
	conf => $conf =~ s/chatbot_postgres \S+;/chatbot_postgres off;/r,
	main => "thread_pool tiny threads=1 max_queue=1;\n",
	http => "chatbot_thread_pool tiny;\n");

for my $round (1 .. 3) {
	$ended->run;
	my @leaving = map { my $s = dial(port => $ended->port);
		print $s Test::Chatbot::question("[delay 5] ends $round.$_"); $s } 1 .. 20;
	ok(wait_for { $api->in_flight }, 'full thread pool, at work');
	$ended->stop;
	ok(wait_for { !$api->in_flight }, 'full thread pool, stopped');
}

# Long answers leave in portions, and between them others have their turn.  The
# clock of records is nginx's, which stands still within a turn.

my $long = Test::Chatbot->new(with => $t,
	conf => $conf =~ s/chatbot_postgres \S+;/chatbot_postgres off;/r)->run;
@answers = many({ timeout => 30 }, ('[delay 1] [size 1000000] long') x 40);
is(answered(@answers), 40, 'long answers at once');
my %turns = map { $_ => 1 } ended($long);
cmp_ok(scalar keys %turns, '>', 5, 'long answers at once, in several turns');
$long->quit;

# a limit of open files

my $short = Test::Chatbot->new(with => $t, conf => $conf,
	main => "worker_rlimit_nofile 200;\n")->run;
@answers = $short->many(map { "[delay 0.2] short $_" } 1 .. 100);
is(answered(@answers), 100, 'few descriptors, all are answered');
like($short->error_log, qr/\[warn\].*"chatbot_max_in_flight" 10000 is more/,
	'few descriptors, a warning');
$short->quit;

# clients in line for a call leave room for others

$short = Test::Chatbot->new(with => $t, main => "worker_rlimit_nofile 512;\n",
	conf => $conf =~ s/chatbot_postgres \S+;/chatbot_postgres off;/r
	. "location /ping {\nreturn 200 pong;\n}\n")->run;
my @line = map { my $s = dial();
	print $s request(GET => "/chat?query=[delay%2020]%20line%20$_"); $s } 1 .. 320;
wait_for { $api->in_flight >= 60 };
is(grep({ status($_) == 200 } $short->many({timeout => 10},
	map { request(GET => '/ping') } 1 .. 20)), 20,
	'clients in line, others are served');
close $_ for @line;
$short->stop;

# not more at once than allowed

my $few = Test::Chatbot->new(with => $t, conf => $conf,
	http => "chatbot_max_in_flight 3;\n")->run;

$api->reset;
my @waiting = map { my $s = dial();
	print $s request(GET => "/chat?query=[delay%201]%20waiting%20$_"); $s } 1 .. 3;
wait_for { $api->in_flight == 3 };

my $refused = ask('one more');
is(status($refused), 503, 'one too many');
like(header($refused, 'Retry-After'), qr/^[1-9]\d*$/, 'retry after');
is(header($refused, 'Content-Type'), 'application/problem+json', 'problem');
is($api->in_flight, 3, 'refused at once');
is($api->calls, 3, 'not asked');
like($few->error_log, qr/\[error\] .*"chatbot_max_in_flight" is reached, request_id: \w+, client:/,
	'the log says so');

is(answered(map { join '', <$_> } @waiting), 3, 'the others are answered');
is(status(ask('one more')), 200, 'room again');
is(wait_rows(1258), 1258, 'the refused one is recorded, too');
is($t->postgres->sql('select status, http_status, response_text'
	. ' from request_logs where http_status <> 200'),
	'error|503|Error: ' . json($refused)->{detail}, 'its row');

done_testing();

###############################################################################

sub answered { scalar grep { status($_) == 200 } @_ }

# When the requests of a journal ended, in milliseconds.
sub ended {
	my ($test) = @_;
	return map { /"timestamp":"[^"]*:(\d\d)\.(\d{3})Z".*"duration_ms":(\d+)/
			? (1000 * $1 + $2 + $3) % 60000 : () }
		map { split /\n/, read_file($_) } glob $test->dir . '/chatbot-journal/*';
}

# Answers that are not to the n-th question.
sub wrong {
	my $n = 0;
	return scalar grep { $n++; $_ !~ /"answer \d+: .*\b$n", "source": "api"/ } @_;
}
