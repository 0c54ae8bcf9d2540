#!/usr/bin/perl

# Tables, rights and connections that are not as we would make them.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOC');
chatbot_model gpt-6-luna;
chatbot_redis off;

location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres %%POSTGRES%%;
}

location /parts {
    chatbot_pass %%API%%;
    chatbot_postgres %%POSTGRES%%;
    chatbot_log_table parts;
}

location /poor {
    chatbot_pass %%API%%;
    chatbot_postgres "host=127.0.0.1 port=%%POSTGRES_PORT%% user=poor
        dbname=postgres";
    chatbot_log_table poor.questions;
}
EOC

my $postgres = $t->postgres;

# the table is there before the first question

sql($_) for 'create table parts (id bigint generated always as identity,'
	. ' ip_address varchar(45) not null, request_text text not null,'
	. ' response_text text, status varchar(20) not null, timestamp timestamptz'
	. ' not null) partition by range (timestamp)',
	"create table parts_all partition of parts for values from ('2020-01-01')"
	. " to ('2100-01-01')",
	'create role poor login', 'create schema poor authorization postgres',
	'grant usage on schema poor to poor',
	'create table poor.questions (request_text text, status text)',
	'grant insert on poor.questions to poor';
$t->run;
is(wait_sql("select to_regclass('request_logs') is not null", 't'), 't',
	'the table is made at start');

# partitioned by time

ask("part $_", uri => '/parts') for 1 .. 3;
is(wait_sql('select count(*), count(distinct request_id), count(model)'
	. ' from parts', '3|3|3'), '3|3|3', 'a partitioned table');
like(sql("select indexdef from pg_indexes where tablename = 'parts'"),
	qr/UNIQUE INDEX .*\(request_id, "timestamp"\)/, 'its index');

# no right but to insert

ask("poor $_", uri => '/poor') for 1 .. 3;
is(wait_sql('select count(*) from poor.questions', 3), 3, 'INSERT only');
like($t->error_log, qr/\[warn\].*"poor"."questions" is used without .*42501/,
	'INSERT only, told');
unlike($t->error_log, qr/\[error\].*PostgreSQL/, 'and no error');

# DDL refused by an event trigger

sql($_) for 'drop table request_logs', 'create table request_logs'
	. ' (request_text text, status text)', 'create function no_ddl() returns'
	. " event_trigger language plpgsql as 'begin raise exception \$\$no DDL"
	. " today\$\$; end'", 'create event trigger no_ddl on ddl_command_start'
	. ' execute function no_ddl()';
$t->reload;
ask('no DDL');
is(wait_rows(1), 1, 'DDL refused');
like($t->error_log, qr/\[warn\].*"request_logs" is used without .*no DDL today/,
	'DDL refused, told');
sql('drop event trigger no_ddl');
$t->quit;

# the environment that libpq reads

sql('drop table request_logs');
my $env = Test::Chatbot->new(with => $t, env => { PGHOST => '127.0.0.1',
	PGPORT => '%%POSTGRES_PORT%%', PGUSER => 'postgres',
	PGDATABASE => 'postgres', PGAPPNAME => 'by environment',
	PGSERVICEFILE => '%%TEST%%/services' }, conf => <<'EOC');
chatbot_model gpt-6-luna;

location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres "";
}

location /default {
    chatbot_pass %%API%%;
}

location /service {
    chatbot_pass %%API%%;
    chatbot_postgres service=logs;
}
EOC
$env->{alerts} = qr/service/;
open my $fh, '>', $env->dir . '/services' or die $!;
print $fh "[logs]\nhost=127.0.0.1\nport=", $postgres->port, "\n";
close $fh;
$env->run;
ask("environment$_", uri => $_) for qw{ /chat /default /service };
is(wait_rows(3), 3, 'PGHOST and others, and a service');
is(sql("select count(*) > 0 from pg_stat_activity where application_name ="
	. " 'by environment'"), 't', 'PGAPPNAME');
$env->quit;

# fewer connections than workers

sql($_) for 'truncate request_logs', 'create role crowd login connection limit'
	. ' 2', 'grant all on request_logs to crowd',
	'grant usage on request_logs_id_seq to crowd';
my $crowd = Test::Chatbot->new(with => $t, workers => 8, conf => <<'EOC')->run;
server {
    listen 127.0.0.1:%%PORT%% reuseport backlog=4096;

    location /chat {
        chatbot_pass %%API%%;
        chatbot_model gpt-6-luna;
        chatbot_postgres "host=127.0.0.1 port=%%POSTGRES_PORT%% user=crowd
            dbname=postgres";
    }
}
EOC
is(scalar(grep { status($_) == 200 } map { my $n = $_;
	many({ timeout => 20 }, map { "crowd $n $_" } 1 .. 40) } 1 .. 5), 200,
	'8 workers');
is(wait_rows(200, 20), 200, '8 workers, 2 connections');
ok(1 >= (() = $crowd->error_log =~ /\[error\].*PostgreSQL/g),
	'not told again and again');
ok(wait_for(sub { sql("select count(*) from pg_stat_activity where usename ="
	. " 'crowd'") eq '0' }, 20), 'idle connections are given back');

done_testing();

###############################################################################

sub sql { $postgres->sql(@_) }

sub wait_sql {
	my ($sql, $value) = @_;
	wait_for { sql($sql) eq $value };
	return sql($sql);
}
