#!/usr/bin/perl

# The table is a hypertable of TimescaleDB: it is filled with COPY, and each
# record arrives once.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Docker;
use Test::Chatbot::Load;
use Test::Chatbot::Server;

###############################################################################

need_docker();
need_images('debian:trixie-slim');
build('chatbot-test-timescaledb',
	"$FindBin::Bin/images/timescaledb.Dockerfile", "$FindBin::Bin/images");

# the PostgreSQL of a container, as if it were one of our servers

my $t = Test::Chatbot->new(workers => 2, alerts => qr/signal 9/,
	conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_postgres "host=%%TEST%%/socket user=postgres dbname=postgres";

location /chat {
    chatbot_pass %%API%%;
}
EOF

my $socket = $t->dir . '/socket';
mkdir $socket;
chmod 0777, $socket;
my $container = docker(qw/ run -d --rm --network none -v /,
	"$socket:/run/postgresql", 'chatbot-test-timescaledb');
my $postgres = bless { sockets => $socket, owner => 0 },
	'Test::Chatbot::Postgres';
ok(wait_for(sub { sql('select 1') eq '1' }, 60), 'PostgreSQL')
	or diag(docker('logs', $container));

sql($_) for 'create extension timescaledb', 'create table request_logs ('
	. 'id bigint generated always as identity, ip_address varchar(45) not null,'
	. ' request_text text not null, response_text text,'
	. ' status varchar(20) not null, timestamp timestamptz not null)',
	"select create_hypertable('request_logs', 'timestamp')";
$t->run;

is(status(ask("before $_")), 200, 'asked') for 1 .. 3;
is(rows(3), '3|3|3', 'rows');
like(sql("select indexdef from pg_indexes where tablename = 'request_logs'"
	. " and indexdef ~ 'UNIQUE'"), qr/\(request_id, "timestamp"\)/, 'index');
is(sql('select count(*) from timescaledb_information.chunks'
	. " where hypertable_name = 'request_logs'"), 1, 'chunk');

# the way is COPY

sql($_) for 'create table ways (way text)', 'create function note_way() returns'
	. " trigger language plpgsql as 'begin insert into ways values"
	. " (left(current_query(), 200)); return new; end'",
	'create trigger note_way before insert on request_logs for each row execute'
	. ' function note_way()';
ask('which way?');
is(rows(4), '4|4|4', 'another row');
like(sql('select way from ways'), qr/copy "request_logs"/, 'by COPY');
sql($_) for 'drop trigger note_way on request_logs', 'drop table ways';

# under load, while connections are lost

my $load = Test::Chatbot::Load->start->wait(100);
for (1 .. 10) {
	sql('select pg_terminate_backend(pid) from pg_stat_activity'
		. " where application_name = 'ngx_http_chatbot_module'");
	$load->wait(20);
}
$load->stop;
ok(wait_for(sub { !$load->lost($postgres) }, 30), 'none is lost');
is(twice(), 0, 'none is twice');

# records of workers that were killed while they were sent

my $n = sql('select count(*) from request_logs');
docker('kill', '-s', 'STOP', $container);
is(status($_), 200, 'asked') for many(map { "frozen $_" } 1 .. 20);
$t->kill;
docker('kill', '-s', 'CONT', $container);
$t->run;
$n += 20;
is(rows($n), "$n|$n|$n", 'rows of before the kill');
unlike($t->error_log, qr/ is used without /, 'nothing is lacking');

# records that are all there already

my $lines = sql("select string_agg(row_to_json(r)::text, E'\\n') from (select"
	. ' ip_address, request_text, response_text, status,'
	. " to_char(timestamp at time zone 'UTC',"
	. " 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') as timestamp, request_id"
	. ' from request_logs) r');
my $journal = $t->dir . '/chatbot-journal';
open my $fh, '>', "$journal/log-again.jsonl" or die "$journal: $!";
print $fh "$lines\n";
close $fh;
ok(wait_for(sub { !-e "$journal/log-again.jsonl" }, 30), 'shipped again');
is(twice(), 0, 'none is twice');
is(rows($n), "$n|$n|$n", 'no more than before');

$t->quit;
done_testing();

###############################################################################

sub sql { $postgres->sql(@_) }

sub rows {
	my ($n) = @_;
	my $sql = 'select count(*), count(distinct request_id), count(model)'
		. ' from request_logs';

	wait_for(sub { sql($sql) =~ /^$n\|/ }, 20);
	return sql($sql);
}

sub twice {
	return sql('select count(*) - count(distinct request_id) from request_logs');
}

# After a failure, too.
END {
	local $?;
	docker('rm', '-f', $container) if $container;
}
