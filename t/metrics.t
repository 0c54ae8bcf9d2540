#!/usr/bin/perl

# What an operator sees: "chatbot_metrics" and "chatbot_health".

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Load;
use Test::Chatbot::Server qw/ capture read_file /;

###############################################################################

my $http = "limit_req_zone \$server_name zone=one:1m rate=1r/m;\n";
my $conf = <<'EOF';
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_retries 1;

location /chat {
    chatbot_pass %%API%%;
}

location /limited {
    chatbot_pass %%API%%;
    limit_req zone=one;
    limit_req_status 429;
}

location = /metrics {
    chatbot_metrics;
}

location = /health {
    chatbot_health;
}
EOF

my $t = Test::Chatbot->new(http => $http, conf => $conf, workers => 2,
	alerts => qr/worker process \d+ exited on signal 9/)->run;
my ($api, $postgres) = ($t->openai, $t->postgres);

# at first

my $first = get('/metrics');
is(status($first), 200, 'metrics');
is(header($first, 'Content-Type'),
	'text/plain; version=0.0.4; charset=utf-8', 'their type');
is(value('chatbot_redis_up'), 1, 'Redis is up');
is(value('chatbot_postgres_up'), 1, 'PostgreSQL is up');
is(value('chatbot_in_flight'), 0, 'nothing is in flight');

# each outcome

ask('question') for 1 .. 3;
ask('');
ask('[status 500] failure');
ask('limited', uri => '/limited') for 1 .. 3;
like(get('/chat?stream=1&query=stream'), qr/event: done/, 'a stream');

is(counted('chatbot_requests_total', status => 200, cache => 'MISS'), 3,
	'misses');
is(counted('chatbot_requests_total', status => 200, cache => 'HIT'), 2, 'hits');
is(counted('chatbot_requests_total', status => 422), 1, 'refused');
is(counted('chatbot_requests_total', status => 502), 1, 'failed');
is(counted('chatbot_requests_total', status => 429), 2, 'limited');
is(counted('chatbot_limited_total'), 2, 'by limit_req');
is(counted('chatbot_upstream_calls_total', outcome => 'ok'), 3, 'calls');
is(counted('chatbot_upstream_calls_total', outcome => 'error'), 1,
	'calls in vain');
is(counted('chatbot_upstream_retries_total'), 1, 'retries');
cmp_ok(counted('chatbot_tokens_total', type => 'output'), '>', 0, 'tokens');
is(counted('gen_ai_client_operation_duration_seconds_count'), 4, 'durations');
is(counted('gen_ai_server_time_to_first_token_seconds_count'), 3,
	'first tokens');
is(counted('gen_ai_server_request_duration_seconds_count', cache => 'HIT'), 2,
	'durations of hits');
same_as_rows('each outcome');
is(value('chatbot_streams'), 0, 'no stream is open');
cmp_ok(value('chatbot_journal_max_bytes'), '==', 2 ** 30, 'max_size');

# they go on

$t->reload;
wait_for { $t->workers == 2 };
is(counted('chatbot_requests_total', status => 200, cache => 'HIT'), 2,
	'after a reload');

my $load = Test::Chatbot::Load->start->wait(100);
kill 'KILL', ($t->workers)[0];
$load->wait(100);
$t->reload;
$load->wait(100)->stop;
wait_for { $t->workers == 2 && value('chatbot_in_flight') == 0 };
same_as_rows('a killed worker and a reload');

# an outage

my $slow = dial();
print $slow request(GET => '/chat?query=[delay%201]%20slow');
ok(wait_for { value('chatbot_in_flight') == 1 }, 'in flight');
like(join('', <$slow>), qr/ 200 /, 'answered');

$postgres->stop;
is(status(ask("waits $_")), 200, "while PostgreSQL is down") for 1 .. 5;
ok(wait_for { value('chatbot_postgres_up') == 0 }, 'PostgreSQL is down');
cmp_ok(value('chatbot_log_backlog_bytes'), '>', 0, 'what waits');
ok(wait_for { value('chatbot_log_oldest_seconds') > 0 }, 'for how long');
is(body(get('/health')), "ok\n", 'all the same, it is well');
$postgres->start;
ok(wait_for { value('chatbot_postgres_up') == 1 }, 'and up again');
same_as_rows('an outage');
is(value('chatbot_log_oldest_seconds'), 0, 'nothing waits');

SKIP: {
	skip 'no promtool', 1 if capture('sh', '-c', 'command -v promtool') eq '';
	my $file = $t->dir . '/metrics.txt';
	open my $fh, '>', $file or die "$file: $!";
	print $fh body(get('/metrics'));
	close $fh;
	is(capture('sh', '-c', "promtool check metrics <$file"), '', 'promtool');
}
is(status(post_json({})), 422, 'the chatbot itself');
is(status(get('/metrics', method => 'HEAD')), 200, 'HEAD');
$t->quit;

# ill

my $ill = Test::Chatbot->new(with => $t, conf => $conf =~ s/chatbot_redis .*//r,
	http => $http . "chatbot_log_journal full max_size=64k;\n")->run;
is(body(get('/health')), "ok\n", 'well');
$postgres->stop;
my $n = 0;
$n++ while $n < 100 && status(ask('full ' . 'x' x 2000 . $n)) == 200;
ok(wait_for { status(get('/health')) == 503 }, 'the journal is full');
is(body(get('/health')), "the journal cannot be written or is full\n", 'why');
is(header(get('/health'), 'Cache-Control'), 'no-store', 'not to be cached');
$postgres->start;
ok(wait_for { status(get('/health')) == 200 }, 'well again');

for ('chatbot_metrics', 'chatbot_health', 'proxy_pass http://127.0.0.1') {
	my @both = ("$_;", 'chatbot_pass http://a;');
	like($t->check("location / {\n" . join("\n", @$_) . "\n}"),
		qr/\[emerg\].*serves something else/, "$$_[0] in a chatbot")
		for [@both], [reverse @both];
}

done_testing();

###############################################################################

# A sum of all series of that name with these labels.
sub counted {
	my ($name, %labels) = @_;
	my $sum = 0;

	for (grep { /^\Q$name\E[{ ]/ } split /\n/, body(get('/metrics'))) {
		my $line = $_;
		next if grep { $line !~ /[{,]$_="\Q$labels{$_}\E"/ } keys %labels;
		$sum += (split ' ', $line)[-1];
	}
	return $sum;
}

sub value { counted($_[0]) }

# The counters are the rows of the table.
sub same_as_rows {
	my ($name) = @_;
	my $rows = sub { $postgres->sql('select count(*) from request_logs') };

	ok(wait_for { value('chatbot_log_backlog_bytes') == 0 },
		"$name, nothing waits");
	cmp_ok(counted('chatbot_log_rows_total'), '>=', $rows->(), "$name, rows");
	is(counted('chatbot_records_total', status => $_),
		$postgres->sql("select count(*) from request_logs where status = '$_'"),
		"$name, $_") for qw/ success cached error /;
}
