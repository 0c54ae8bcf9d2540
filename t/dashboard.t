#!/usr/bin/perl

# docker/monitoring with a real Prometheus: after a run with all that can happen
# each panel of the dashboard has something to draw, and so do the alerts.

use warnings;
use strict;

use File::Temp ();
use HTTP::Tiny;
use JSON::PP qw/ decode_json /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Browser;
use Test::Chatbot::Server qw/ capture read_file /;
use Test::Chatbot::Upstream;

my $dir = "$FindBin::Bin/../docker/monitoring";

plan skip_all => 'no Prometheus'
	if capture('sh', '-c', 'command -v prometheus') eq '';

###############################################################################

# A service that lacks a model and refuses a member of the request.
my $sick = Test::Chatbot::Upstream->new(sub {
	my %sent = %{$_[0]{json}};
	return failing(404, { error => { code => 'model_not_found' } })
		if $sent{model} eq 'missing';
	return failing(400, { error => { code => 'unsupported_parameter',
		param => 'seed' } }) if exists $sent{seed};
	return failing(503, {}) if $_[0]{mode} eq 'sick';
	return whole(completion('hi'));
});

my $t = Test::Chatbot->new(http => <<"HTTP", conf => <<'CONF')->run;
limit_req_zone \$server_name zone=one:1m rate=1r/m;
chatbot_upstream pair {
    server @{[ $sick->url ]} models="missing m" fail_timeout=1h;
    server %%API%% models=gpt-6-luna backup;
}
HTTP
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_retries 1;

location /chat {
    chatbot_pass %%API%%;
    chatbot_model gpt-6-luna;
}

location /pair {
    chatbot_pass pair;
    chatbot_model m;
    chatbot_param seed 1;
}

location /limited {
    chatbot_pass %%API%%;
    limit_req zone=one;
    limit_req_status 429;
}

location = /metrics {
    chatbot_metrics;
}
CONF
my $prometheus = start_prometheus();
$t->postgres->sql($_) for 'alter table request_logs add constraint c'
	. " check (request_text not like '%refused%')";

wait_for { asked('chatbot_limited_total') };

# until each panel has something

my $dashboard = decode_json(
	read_file("$dir/grafana/dashboards/chatbot.json"));
my @panels = map { { title => $_->{title}, asks => [map { $_->{expr} }
	@{$_->{targets}}] } } @{$dashboard->{panels}};
my @queries = map { @{$_->{asks}} } @panels;
my ($n, $stream, %left) = (0, undef, map { $_ => 1 } @queries);

ok((wait_for {
	load();
	delete @left{grep { drawn($_) } keys %left};
	!%left;
} 90), 'each query draws something') or diag(join "\n", sort keys %left);
cmp_ok(@panels, '>', 10, 'panels');

# what does not show, as it happened before Prometheus looked, is a fault

my @seen = ('chatbot_limited_total', 'chatbot_log_rejected_total',
	'chatbot_upstream_models_passed_over_total',
	'chatbot_upstream_members_left_out_total');
ok((wait_for { load(); ((asked("sum(increase($_\[1h]))"))[0] // 0) > 0 } 30),
	"$_ grows") for @seen;

my $rules = decode_json(fetch('/api/v1/rules'));
my @rules = map { @{$_->{rules}} } @{$rules->{data}{groups}};
cmp_ok(@rules, '>', 5, 'the rules are there');
ok((wait_for {
	my $all = decode_json(fetch('/api/v1/rules'));
	!grep { $_->{health} ne 'ok' } map { @{$_->{rules}} }
		@{$all->{data}{groups}};
} 30), 'and can be evaluated');

# Prometheus' own page draws them; TEST_SCREENSHOT=NAME keeps NAME-1.png and so on

SKIP: {
	my $missing = Test::Chatbot::Browser::missing();
	skip "no $missing", 1 if $missing;

	my $browser = Test::Chatbot::Browser->new;
	my @some = @queries;
	for (my $i = 1; my @few = splice @some, 0, 9; $i++) {
		my $drawn = eval { draw($browser, @few); 1 };
		ok($drawn, "a picture of @{[ scalar @few ]} queries") or diag $@;
		$browser->call('screenshot', { fullPage => JSON::PP::true,
			path => "$ENV{TEST_SCREENSHOT}-$i.png" }) if $ENV{TEST_SCREENSHOT};
	}
}

done_testing();

###############################################################################

# A bit of all that can happen; a stream is open, and for a while PostgreSQL is
# down.
sub load {
	my $postgres = $t->postgres;
	$postgres->stop if $n == 5;
	$postgres->start if $n > 5 && drawn('max(chatbot_log_oldest_seconds)');
	$stream //= dial();
	print $stream request(GET => '/chat?stream=1&query=[slowstream%205]') if !$n;
	$n++;
	many('question', "question $n", "[status 500] fails $n", "refused $n");
	ask("limited $n", uri => '/limited') for 1 .. 2;
	get("/chat?stream=1&query=stream%20$n");
	ask("pair $n", uri => '/pair');
	$sick->mode('sick') if $n > 5;
}

# Returns when each has a line; the page takes no more than some at a time.
sub draw {
	my ($browser, @asked) = @_;
	my $page = join '&', map { "g$_.expr=" . escaped($asked[$_])
		. "&g$_.tab=0&g$_.range_input=2m" } 0 .. $#asked;

	$browser->open("http://127.0.0.1:$prometheus->{port}/graph?$page");
	$browser->until('[...document.querySelectorAll(".graph.rickshaw_graph")]'
		. '.filter(graph => graph.querySelector("path")).length == ' . @asked);
}

# Whether a panel would show it, other than as a line at 0.
sub drawn { scalar grep { !/NaN|Inf/ && $_ != 0 } asked($_[0]) }

# The values of a query.
sub asked {
	my ($query) = @_;
	my $reply = decode_json(fetch('/api/v1/query?query=' . escaped($query)));
	return map { $_->{value}[1] } @{$reply->{data}{result}};
}

sub fetch {
	my ($uri) = @_;
	return HTTP::Tiny->new->get("http://127.0.0.1:$prometheus->{port}$uri")
		->{content};
}

sub escaped { $_[0] =~ s/([^\w.~-])/sprintf '%%%02X', ord $1/ger }

# With the configuration that is shipped, but for where nginx is and how often
# it is asked.
sub start_prometheus {
	my $conf = read_file("$dir/prometheus.yml");
	$conf =~ s/(_interval: )\S+/${1}1s/g;
	$conf =~ s/nginx:8000/'127.0.0.1:' . port()/e or die;
	$conf =~ s{(\S*)alerts\.yml}{$dir/alerts.yml} or die;
	open my $fh, '>', $t->dir . '/prometheus.yml' or die;
	print $fh $conf;
	close $fh;

	return Test::Chatbot::Prometheus->new(dir => $t->dir . '/prometheus',
		conf => $t->dir . '/prometheus.yml', port => port(1))->start;
}

package Test::Chatbot::Prometheus;

use parent -norequire, 'Test::Chatbot::Server';

sub command {
	my ($self) = @_;
	return ('prometheus', "--config.file=$self->{conf}",
		"--storage.tsdb.path=$self->{dir}/data",
		"--web.listen-address=127.0.0.1:$self->{port}");
}

sub ready {
	my ($self) = @_;
	return HTTP::Tiny->new->get("http://127.0.0.1:$self->{port}/-/ready")
		->{success};
}
