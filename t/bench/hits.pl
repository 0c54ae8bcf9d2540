#!/usr/bin/perl

# What an answer from the cache costs: 1,000 different questions, all of them
# cached, of one worker, beside "return 200" of as many bytes in the same nginx,
# beside an older module, with metrics, with rows in PostgreSQL, by the API.
#
# Rounds alternate, and the medians are compared.  A first round is not counted,
# and each that is begins with an empty table: a PostgreSQL that was just started
# zeroes fresh memory for each page it writes.  The CPU that a request costs is
# shown beside the rate: wrk may be the limit of the rate.
#
# Environment: ROUNDS (5), SECONDS each (2), CONNECTIONS (16 64 256), OLD_MODULE,
# a path; ONLY, a regular expression of what to measure.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Bench;

my $rounds = $ENV{ROUNDS} // 5;
my $seconds = $ENV{SECONDS} // 2;
my @connections = split ' ', $ENV{CONNECTIONS} // '16 64 256';
my $only = $ENV{ONLY} // '.';
my $questions = 1000;

my $chat = <<'EOT';
	location /static {
		default_type application/json;
		return 200 '{"response": "answer 1000: question 1000", "source": "cache"}';
	}
	location /chat {
		chatbot_pass %%API%%;
		chatbot_redis %%REDIS%%;
		chatbot_postgres %%LOG%%;
	}
EOT
my $api = <<'EOT';
	location /v1/ {
		chatbot_pass %%API%%;
		chatbot_redis %%REDIS%%;
		chatbot_protocol openai;
	}
EOT
my $metrics = "location /metrics { chatbot_metrics; }\n";

my @measured = grep { $_->{name} =~ /$only|^return/ } (
	front('return 200', uri => '/static'),
	front('hits'),
	front('hits, metrics', more => $metrics),
	front('hits, rows', log => '%%POSTGRES%%'),
	front('hits by the API', more => $api, script => \&ask_api),
	map { +(front('hits, old', module => $_), front('hits, rows, old',
		module => $_, log => '%%POSTGRES%%')) } $ENV{OLD_MODULE} // (),
);

for my $connections (@connections) {
	my %loads;
	for my $round (0 .. $rounds) {
		for my $front (@measured) {
			my %load = measure($front, $connections);
			push @{$loads{$front->{name}}}, \%load if $round;
		}
	}
	show($connections, $_, \%loads) for map { $_->{name} } @measured;
}

pass('measured');
done_testing();

###############################################################################

my $servers;

sub front {
	my ($name, %opt) = @_;

	my $log = $opt{log} // 'off';
	(my $locations = $chat) =~ s/%%LOG%%/$log/;
	my $t = Test::Chatbot->new(conf => $locations . ($opt{more} // ''),
		main => 'thread_pool default threads=4;',     # as in nginx.conf
		http => "keepalive_requests 1000000000;\n"
			. ($log eq 'off' ? 'chatbot_log_journal off;' : ''),
		$servers ? (with => $servers) : (),
		$opt{module} ? (module => $opt{module}) : ())->run;
	$servers //= $t;

	my $self = { name => $name, t => $t, rows => $log ne 'off',
		script => $opt{script} // \&ask_chat, uri => $opt{uri} // '/chat' };
	wrk($t, connections => 8, seconds => 1, script => script($self));
	return $self;
}

sub measure {
	my ($front, $connections) = @_;

	my %load = wrk($front->{t}, connections => $connections,
		seconds => $seconds, script => script($front));
	empty_table($front->{t}) if $front->{rows};
	return %load;
}

sub show {
	my ($connections, $name, $loads) = @_;
	my ($these, $static) = @$loads{$name, 'return 200'};
	my @ratios = map { $these->[$_]{rate} / $static->[$_]{rate} } 0 .. $#$these;

	diag(sprintf '%4d connections, %-16s %7.0f/s %5.1f us of CPU, %s of return',
		$connections, $name, median(map { $_->{rate} } @$these),
		median(map { $_->{cpu} / $_->{calls} } @$these), spread('%.2f', @ratios));
}

# Each question in turn.
sub script {
	my ($front) = @_;
	return <<"EOT" . $front->{script}->($front->{uri});
local n = 0
local function next_question()
	n = n % $questions + 1
	return "question " .. n
end
EOT
}

sub ask_chat {
	my ($uri) = @_;
	return <<"EOT";
function request()
	return wrk.format("GET", "$uri?query=" .. next_question():gsub(" ", "+"))
end
EOT
}

sub ask_api {
	return <<'EOT';
function request()
	return wrk.format("POST", "/v1/chat/completions",
		{["Content-Type"] = "application/json"}, '{"model":"gpt-6-luna",' ..
		'"messages":[{"role":"user","content":"' .. next_question() .. '"}]}')
end
EOT
}

# When all rows have arrived.
sub empty_table {
	my ($t) = @_;
	wait_for { !grep { -s } glob $t->dir . '/chatbot-journal/log-*' } 60
		or die 'rows did not arrive';
	$t->postgres->sql('truncate request_logs');
}
