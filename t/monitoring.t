#!/usr/bin/perl

# docker/monitoring: the alerts fire when they should, and what they and the
# dashboard ask for is on the page of a real nginx.

use warnings;
use strict;

use JSON::PP qw/ decode_json /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Metrics;
use Test::Chatbot::Server qw/ capture read_file /;

my $dir = "$FindBin::Bin/../docker/monitoring";

###############################################################################

my $t = Test::Chatbot->new(http => <<'HTTP', conf => <<'CONF')->run;
limit_req_zone $server_name zone=one:1m rate=1r/m;
chatbot_upstream pair {
    server %%API%%;
    server %%API%% backup;
}
HTTP
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass pair;
}

location = /metrics {
    chatbot_metrics;
}
CONF
ask('question') for 1 .. 2;

my %there = map { /^# TYPE (\S+) (\S+)/ ? ($1 => 1,
	$2 eq 'histogram' ? ("$1_bucket" => 1) : ()) : () }
	split /\n/, body(get('/metrics'));
my $alerts = read_file("$dir/alerts.yml");
my $dashboard = decode_json(
	read_file("$dir/grafana/dashboards/chatbot.json"));
my ($uid) = read_file("$dir/grafana/provisioning/datasources/prometheus.yml")
	=~ /^\s*uid: (\S+)/m;
my @targets = map { @{$_->{targets}} } @{$dashboard->{panels}};

cmp_ok(@targets, '>', 10, 'the dashboard has queries');
is($_->{datasource}{uid}, $uid, "its data source: $_->{expr}") for @targets;
my %asked = map { $_ => 1 }
	map { /\b((?:chatbot|gen_ai)_\w+_\w+|chatbot_streams)\b(?=[\[{\s)<>]|$)/mg }
	$alerts, map { $_->{expr} } @targets;
delete $asked{gen_ai_request_model};
ok($there{$_}, "is on the page: $_") for sort keys %asked;
cmp_ok(keys %asked, '>', 20, 'some are asked for');

my @names = $alerts =~ /- alert: (\S+)/g;
my $readme = read_file("$FindBin::Bin/../README.md");
like($readme, qr/`$_`/, "README says what to do about $_") for @names;

SKIP: {
	my $said = promtool("check config $dir/prometheus.yml");
	skip 'no promtool', 3 if !defined $said;
	like($said, qr/= 0$/, 'the configuration and the rules') or diag $said;

	my $file = $t->dir . '/alerts_test.yml';
	open my $fh, '>', $file or die "$file: $!";
	print $fh rule_tests();
	close $fh;
	$said = promtool("test rules $file");
	like($said, qr/= 0$/, 'the alerts fire when they should') or diag $said;
}

# what can be reached from elsewhere: the chatbot alone

my $compose = read_file("$FindBin::Bin/../docker-compose.yml");
my @ports = $compose =~ /^ +- "([\d.]+:\S+)"$/mg;
is(scalar(@ports), 3, 'ports') or diag "@ports";
is(join(' ', grep { !/^127\.0\.0\.1:/ } @ports), '0.0.0.0:${PORT:-8000}:8000',
	'Prometheus and Grafana are for this machine only');

SKIP: {
	skip 'no docker-compose', 1
		if capture('sh', '-c', 'command -v docker-compose') eq '';
	my $project = $t->dir . '/compose';
	mkdir $project;
	is(capture('sh', '-c', "cp ../docker-compose.yml $project && "
		. "cp ../.env.example $project/.env && cd $project && "
		. 'docker-compose --profile monitoring config -q'), '',
		'docker-compose.yml');
}

done_testing();

###############################################################################

# Of each alert: the series, a time when it does not fire yet, one when it does.
sub rule_tests {
	my $job = 'instance="nginx:8000", job="chatbot"';
	my $calls = 'chatbot_upstream_calls_total{upstream="u", model="m", outcome=';
	my $slow = 'gen_ai_client_operation_duration_seconds_bucket{upstream="u", '
		. 'gen_ai_request_model="m", le=';
	my @tests = (
		['ChatbotDown', { "up{$job}" => '1x4 0x20' }, '4m', '7m'],
		['ChatbotJournalNotWritable', { "chatbot_journal_writable{$job}" =>
			'1x4 0x20' }, '4m', '7m'],
		['ChatbotJournalNearlyFull', { "chatbot_journal_bytes{$job}" =>
			'10x4 80x20', "chatbot_journal_max_bytes{$job}" => '100x30' },
			'6m', '12m'],
		['ChatbotPostgresBehind', { "chatbot_log_oldest_seconds{$job}" =>
			'0+60x20' }, '5m', '8m'],
		['ChatbotRecordsRejected', { "chatbot_log_rejected_total{$job}" =>
			'0x9 1x20' }, '8m', '12m'],
		['ChatbotRedisDown', { "chatbot_redis_up{$job}" => '1x4 0x20' },
			'4m', '7m'],
		['ChatbotModelFailing', { "$calls\"ok\"}" => '0+8x30',
			"$calls\"error\"}" => '0x5 0+2x25' }, '5m', '20m'],
		['ChatbotModelSlow', { "$slow\"20\"}" => '0+10x60',
			"$slow\"80\"}" => '0+12x60', "$slow\"+Inf\"}" => '0+12x60' },
			'5m', '25m'],
		['ChatbotBreakerOpen', { 'chatbot_upstream_breakers{upstream="u", '
			. 'server="u/1", state="open"}' => '0x4 1x20' }, '5m', '8m'],
	);
	is("@{[sort map { $$_[0] } @tests]}", "@{[sort @names]}",
		'each alert has a test');

	my $text = "rule_files: [$dir/alerts.yml]\nevaluation_interval: 1m\n"
		. "tests:\n";
	for (@tests) {
		my ($name, $series, $before, $then) = @$_;
		$text .= "  - interval: 1m\n    input_series:\n" . join '',
			map { "      - {series: '$_', values: '$$series{$_}'}\n" }
			sort keys %$series;
		$text .= "    promql_expr_test:\n" . join '', map {
			my ($time, $n) = @$_;
			"      - expr: 'count(ALERTS{alertname=\"$name\", "
			. "alertstate=\"firing\"}) or vector(0)'\n"
			. "        eval_time: $time\n"
			. "        exp_samples: [{value: $n}]\n"
		} [$before, 0], [$then, 1];
	}
	return $text;
}
