#!/usr/bin/perl

# What an operator sees: "chatbot_metrics" and "chatbot_health".

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Load;
use Test::Chatbot::Metrics;
use Test::Chatbot::Upstream;

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

location /limited/elsewhere {
    chatbot_pass %%API%%;
    limit_req zone=one;
    limit_req_status 429;
    error_page 429 = @too_many;
}

location @too_many {
    return 429 "wait";
}

location /slow {
    chatbot_pass %%API%%;
    chatbot_read_timeout 200ms;
}

location /fresh {
    chatbot_pass %%API%%;
    chatbot_cache_control on;
    chatbot_abandoned cancel;
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
like(body($first), qr/^$_ 0$/m, "$_ begins at 0") for qw/ chatbot_limited_total
	chatbot_log_rows_total chatbot_log_rejected_total /,
	map { qr/chatbot_upstream_$_\{.*\}/ } qw/ retries_total
	models_passed_over_total members_left_out_total /;

# each outcome

ask('question') for 1 .. 3;
ask('');
ask('[status 500] failure');
ask('[status 503] overloaded');
ask('[delay 2] too slow', uri => '/slow');
ask('question', uri => '/fresh', headers => ['Cache-Control: no-cache']);
ask('limited', uri => '/limited') for 1 .. 2;
ask('limited', uri => '/limited/elsewhere');
like(get('/chat?stream=1&query=stream'), qr/event: done/, 'a stream');

is(counted('chatbot_requests_total', status => 200, cache => 'MISS'), 3,
	'misses');
is(counted('chatbot_requests_total', status => 200, cache => 'HIT'), 2, 'hits');
is(counted('chatbot_requests_total', status => 422), 1, 'refused');
is(counted('chatbot_requests_total', status => $_), 1, "failed, $_")
	for 502, 503, 504;
is(counted('chatbot_requests_total', status => 200, cache => 'BYPASS'), 1,
	'past the cache');
is(counted('chatbot_requests_total', status => 429), 2, 'limited');
is(counted('chatbot_limited_total'), 2, 'by limit_req');
is(counted('chatbot_upstream_calls_total', outcome => 'ok'), 4, 'calls');
is(counted('chatbot_upstream_calls_total', outcome => $_), 1,
	"calls in vain, $_") for qw/ error unavailable timeout /;
is(counted('chatbot_upstream_retries_total'), 2, 'retries');
cmp_ok(counted('chatbot_tokens_total', type => 'output'), '>', 0, 'tokens');
is(counted('gen_ai_client_operation_duration_seconds_count'), 7, 'durations');
is(counted('gen_ai_client_operation_duration_seconds_count',
	error_type => $_), 1, "of failures, $_") for 502, 503, 504;
is(counted('gen_ai_server_request_duration_seconds_count', error_type => $_,
	gen_ai_provider_name => 'openai'), 1, "of requests, $_") for 502, 503, 504;
is(counted('gen_ai_server_time_to_first_token_seconds_count'), 4,
	'first tokens');
is(counted('gen_ai_server_request_duration_seconds_count', cache => 'HIT'), 2,
	'durations of hits');

my $calls = $api->calls;
my $left = dial();
print $left request(GET => '/fresh?query=[delay%209]%20left');
ok(wait_for { $api->calls > $calls }, 'asked');
is(value('chatbot_in_flight'), 1, 'in flight');
close $left;
ok(wait_for { counted('chatbot_upstream_calls_total',
	outcome => 'client_left') == 1 }, 'calls whose clients left');
promtool_agrees();
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

# Redis

cmp_ok(value('chatbot_redis_duration_seconds_count'), '>', 0, 'lookups');
cmp_ok(value('chatbot_redis_duration_seconds_sum'), '>', 0, 'their time');
$t->redis->stop;
like(ask('without Redis'), qr/ 200 /, 'answered without Redis');
ok(wait_for { value('chatbot_redis_up') == 0 }, 'Redis is down');
$t->redis->start;
ok(wait_for { value('chatbot_redis_up') == 1 },
	'and up again, though nobody asks');

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

promtool_agrees();
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
ok(wait_for { $ill->error_log =~ /takes more than \d\d % of its max_size/ },
	'that it fills up is told');
$postgres->start;
ok(wait_for { status(get('/health')) == 200 }, 'well again');
ok(wait_for { $ill->error_log =~ /\[notice\].* takes less than 50 % of/ },
	'the journal has room again, and it is told');
ok($ill->error_log =~ /\[crit\].*requests are refused, the journal cannot/
	&& $ill->error_log =~ /\[notice\].*can be written again after \d+ s/,
	'as was that it was full');

$ill->quit;

# several servers

my $one = Test::Chatbot::Upstream->new(sub { serve($_[0]{json}) });
my $two = Test::Chatbot::Upstream->new(sub { serve($_[0]{json}, 'seed') });
my $url = $one->url;
my ($first_name, $second_name) =
	map { "pair/$_ (127.0.0.1:${\($one, $two)[$_ - 1]->port}/v1)" } 1, 2;
my $servers = <<"EOF";
chatbot_upstream pair {
    server $url fail_timeout=2s;
    server ${\$two->url} fail_timeout=2s models="missing m";
}
chatbot_redis off;
chatbot_postgres off;
EOF
my $locations = <<"EOF";
location /chat {
    chatbot_pass pair;
    chatbot_model m;
    chatbot_param seed 1;
}

location /v1/ {
    chatbot_pass $url;
    chatbot_protocol openai;
    chatbot_model listed;
    chatbot_model_alias nice listed;
}

location /open/ {
    chatbot_pass ${\$two->url};
    chatbot_protocol openai;
}

location = /metrics {
    chatbot_metrics;
}
EOF
my $pair = Test::Chatbot->new(http => $servers, conf => $locations)->run;
is(breakers(), '1 0 0 1 0 0', 'closed at first');
ask("question $_") for 1 .. 4;
my %of = (upstream => 'pair', server => $second_name);
is(counted('chatbot_upstream_calls_total', upstream => 'pair', model => 'm',
	outcome => 'ok'), 4, 'by upstream and model');
is(counted('chatbot_upstream_calls_total', %of), 2, 'and server');
is(counted('chatbot_upstream_models_passed_over_total', %of,
	model => 'missing'), 1, 'a model passed over');
is(counted('chatbot_upstream_members_left_out_total', %of, model => 'm'), 1,
	'a member left out');

$one->stop;
ask("question $_") for 5 .. 8;
like(breakers(), qr/^0 (1 0|0 1) 1 0 0$/, 'open');
ok(wait_for { breakers() eq '0 0 1 1 0 0' }, 'half open');
$one->start;
ok(wait_for { ask('again ' . $n++); breakers() eq '1 0 0 1 0 0' },
	'closed again');

# labels are names of the configuration

api('/v1', 'nice');
api('/open', 'm');
api('/open', "secret text $_") for 1 .. 3;
is(counted('chatbot_upstream_calls_total', upstream => $url,
	model => 'listed'), 1, 'an alias');
is(counted('chatbot_upstream_calls_total', upstream => $two->url,
	model => 'm'), 1, 'a model that is configured elsewhere');
is(counted('chatbot_upstream_calls_total', upstream => $two->url,
	model => 'other'), 3, 'any other');
unlike(body(get('/metrics')), qr/secret|question/, 'no text of a client');
promtool_agrees();

# a reload with another set

$pair->{http} = $servers =~ s/pair/set/r;
$pair->reload($locations =~ s/pair/set/r);
ok(wait_for { counted('chatbot_upstream_breakers') == 2
	&& counted('chatbot_upstream_breakers', upstream => 'set') == 2 },
	'servers that are gone have no breaker');
ask('of the set');
is(counted('chatbot_upstream_calls_total', upstream => 'set'), 1, 'new names');
cmp_ok(counted('chatbot_upstream_calls_total', upstream => 'pair'), '>', 4,
	'and the counters of the old ones');
$pair->quit;

done_testing();

###############################################################################

# Of the servers: how many are closed, open, half open.
sub breakers {
	return join ' ', map {
		my $server = $_;
		map { counted('chatbot_upstream_breakers', server => $server,
			state => $_) } qw/ closed open half_open /;
	} $first_name, $second_name;
}

sub api {
	my ($prefix, $model) = @_;
	return post_json({ model => $model, messages => [
		{ role => 'user', content => 'hi' }] },
		uri => "$prefix/chat/completions");
}

# Answers as a service does that lacks a model, and does not take a member.
sub serve {
	my ($sent, $refused) = @_;
	my %sent = %$sent;

	return failing(404, { error => { code => 'model_not_found' } })
		if $sent{model} eq 'missing';
	return failing(400, { error => { code => 'unsupported_parameter',
		param => $refused } }) if $refused && exists $sent{$refused};
	return whole(completion("by $sent{model}"));
}

sub promtool_agrees {
	my $file = $t->dir . '/metrics.txt';
	open my $fh, '>', $file or die "$file: $!";
	print $fh body(get('/metrics'));
	close $fh;

	my $said = promtool("check metrics <$file");
	SKIP: {
		skip 'no promtool', 1 if !defined $said;
		is($said, "= 0", 'promtool');
	}
}

# The counters are the rows of the table.
sub same_as_rows {
	my ($name) = @_;
	my $rows = sub { $postgres->sql('select count(*) from request_logs') };

	ok(wait_for { value('chatbot_log_backlog_bytes') == 0 },
		"$name, nothing waits");
	# those of a killed worker are counted when another has sent them again
	ok(wait_for { counted('chatbot_log_rows_total') >= $rows->() },
		"$name, rows");
	is(counted('chatbot_records_total', status => $_),
		$postgres->sql("select count(*) from request_logs where status = '$_'"),
		"$name, $_") for qw/ success cached error /;
}
