#!/usr/bin/perl

# Old rows are deleted.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

# In the time zone of the server summer time ends today, at 01:00 UTC.
my $today = (gmtime)[7];
my $zone = '<+01>-1<+02>-2,' . ($today + 325) % 365 . "/2,$today/3";

my @tables = qw/ days months list parent utc_days utc_months other_days
	other_months rest ahead open /;
my $t = Test::Chatbot->new(workers => 2, postgres => ['-c', "timezone=$zone"],
	http => "chatbot_log_retention 10s;\n", conf => <<'EOC'
chatbot_model gpt-6-luna;
chatbot_redis off;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}
EOC
	. join '', map { <<"EOC" } @tables);

location /$_ {
    chatbot_pass %%API%%;
    chatbot_log_table $_;
}
EOC

my $postgres = $t->postgres;
my $columns = 'ip_address varchar(45) not null, request_text text not null,'
	. ' response_text text, status varchar(20) not null, timestamp timestamptz'
	. ' default current_timestamp';
sql("create table request_logs (id serial primary key, $columns)",
	"insert into request_logs (ip_address, request_text, status, timestamp)"
	. " select '::1', 'old', 'error', now() - i * interval '1 minute'"
	. ' from generate_series(1, 25000) i',
	"create table days (id serial, $columns) partition by range (timestamp)",
	"create table months (id serial, $columns) partition by range (timestamp)");
partition('days', "current_date - $_", 'day') for 0 .. 3;
partition('months', "date_trunc('month', current_date) - interval '1 month'",
	'month');
sql("insert into days (ip_address, request_text, status, timestamp)"
	. " values ('::1', 'old', 'error', current_date - 2)");

# heaps that have rows with the same ctids, old ones in one, new in the other
sql("create table list (id serial, $columns) partition by list (status)",
	"create table list_error partition of list for values in ('error')",
	"create table list_success partition of list for values in ('success')",
	"create table parent (id serial, $columns)",
	'create table parent_error () inherits (parent)',
	'create table parent_success () inherits (parent)');
for my $table (qw/ list parent /) {
	fill("${table}_error", 'old', 'error', "now() - interval '1 hour'", 1500);
	fill("${table}_success", 'new', 'success', 'current_date + 9', 1500);
}

# days and months of UTC, and of another zone where summer time ends too
my %midnight = (utc => ["'00:00'", "'00:00'"], other => ["'04:00'", "'05:00'"]);
for my $zone (keys %midnight) {
	for my $unit (qw/ day month /) {
		my $first = "date_trunc('$unit', now() at time zone 'UTC')";
		my @bounds = ($first, "$first + interval '1 $unit'");
		$_ = "($_) at time zone 'UTC'" for @bounds;
		range("${zone}_${unit}s", last => map {
			"$bounds[$_] + interval $midnight{$zone}[$_]" } 0, 1);
	}
}

# DEFAULT has a row of tomorrow, so that there is no partition for that: in
# one table the next one, in the other the one after that
range('rest', old => 'current_date - 15', 'current_date - 8');
range('rest', last => 'current_date - 8', 'current_date - 1');
range('ahead', last => 'current_date - 1', 'current_date');
for my $table (qw/ rest ahead /) {
	sql("create table ${table}_rest partition of $table default");
	fill($table, 'old', 'error', "current_date - $_", 1) for 2, 9, 20;
	fill($table, 'new', 'error', 'current_date + 1', 1);
}

range('open', first => 'minvalue', 'current_date - 1');
range('open', last => 'current_date - 1', 'current_date + 1');
range('open', rest => 'current_date + 1', 'maxvalue');
fill('open', 'old', 'error', 'current_date - 9', 2500);
fill('open', 'new', 'error', 'current_date + 9', 1);

$t->run;
is(wait_sql("select count(*) from request_logs where request_text = 'old'", 0),
	0, 'old rows are deleted');
ask('new');
is(wait_sql("select count(*) from request_logs where request_text = 'new'", 1),
	1, 'new ones come');

my $days = "select count(*) from pg_inherits where inhparent = 'days'::regclass";
is(wait_sql("$days and inhrelid::regclass::text ~ '^days_[23]\$'", 0), 0,
	'old partitions are dropped');
is(wait_sql("$days and inhrelid::regclass::text ~ 'days_\\d{8}'", 3), 3,
	'some are made for the days to come');
like(sql("select pg_get_expr(relpartbound, oid) from pg_class where relname ="
	. " to_char(current_date + 1, '\"days_\"YYYYMMDD')"),
	qr/FROM \('....-..-.. 00:00:00/, 'of a day each');
ok(wait_for(sub { sql("select to_regclass(to_char(date_trunc('month', current_date"
	. " + interval '1 month'), '\"months_\"YYYYMMDD')) is not null") eq 't' }, 30),
	'and for the next month');

ask('today', uri => '/days');
is(wait_sql("select count(*) from days where request_text = 'today'", 1), 1,
	'rows of today');
is(wait_sql("select count(*) from request_logs", 0, 30), 0,
	'later they are old');
for my $table (qw/ list parent /) {
	is(wait_sql("select count(*) from $table where request_text = 'old'", 0), 0,
		"$table: old rows of one heap are deleted");
	is(sql("select count(*) from $table where request_text = 'new'"), 1500,
		'new ones of another stay');
}

for my $table (map { ("${_}_days", "${_}_months") } qw/ utc other /) {
	my $unit = $table =~ /days/ ? 'day' : 'mon';
	my $hour = $table =~ /utc/ ? '00:00' : '05:00';
	is(wait_sql(widths($table), "$hour 1 $unit"), "$hour 1 $unit",
		"$table stay $unit" . 's when summer time ends');
}

for my $table (qw/ rest ahead open /) {
	is(wait_sql("select string_agg(request_text, ' ') from $table", 'new'),
		'new', "$table: old rows of partitions without bounds are deleted");
}
is(wait_sql("select to_regclass('rest_old') is null", 't'), 't',
	'a partition is dropped though another cannot be made');
is(sql("select to_regclass('rest_last')"), 'rest_last', 'the last one stays');
is(sql("select count(*) from pg_inherits where inhparent = 'open'::regclass"),
	3, 'so do those without bounds');
is(wait_sql("select to_regclass(to_char(current_date, '\"ahead_\"YYYYMMDD'))"
	. ' is not null', 't'), 't', 'one that can be made is');

for my $table (qw/ rest ahead /) {
	ok(wait_for { $t->error_log =~ /\[error\].*"${table}_rest" would be viol/ },
		'that one cannot be made is told');
}
is(join("\n", grep !/"(?:rest|ahead)_rest" would be viol/,
	grep /old rows cannot be deleted/, split /\n/, $t->error_log), '',
	'no other error');
$t->quit;

# somebody else's table

sql('create role reader login', 'create schema theirs',
	'grant usage on schema theirs to reader',
	"create table theirs.logs (id serial primary key, $columns)",
	'grant insert on theirs.logs to reader',
	'grant usage on theirs.logs_id_seq to reader');
my $reader = Test::Chatbot->new(with => $t,
	http => "chatbot_log_retention 1h;\n", conf => <<"EOC")->run;
chatbot_model gpt-6-luna;

location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres ${\$postgres->url('reader')};
    chatbot_log_table theirs.logs;
}
EOC
ok(wait_for { $reader->error_log
	=~ /\[error\].*old rows cannot be deleted: permission denied/ },
	'no right to delete, told');
ask('still there');
is(wait_sql('select count(*) from theirs.logs', 1), 1, 'rows come');

like($t->check(''), qr/successful/, 'right');
$t->{http} = "chatbot_log_retention never;\n";
like($t->check(''), qr/\[emerg\].*invalid value "never" in "chatbot_log_reten/,
	'wrong');

done_testing();

###############################################################################

sub sql { my $said; $said = $postgres->sql($_) for @_; return $said }

sub partition {
	my ($table, $from, $unit) = @_;
	my $name = $table . '_' . ($from =~ /- (\d)$/ ? $1 : 'last');
	my ($first, $last) = split /\|/, sql("select ($from)::timestamptz,"
		. " ($from)::timestamptz + interval '1 $unit'");
	sql("create table $name partition of $table for values from ('$first')"
		. " to ('$last')");
}

sub range {
	my ($table, $name, $first, $last) = @_;
	sql("create table if not exists $table (id serial, $columns)"
		. ' partition by range (timestamp)',
		"create table ${table}_$name partition of $table"
		. " for values from ($first) to ($last)");
}

# An SQL statement: at what time partitions begin that were made, and how long
# they are.
sub widths {
	my ($table) = @_;
	return <<"EOC";
set timezone to 'UTC';
select distinct to_char(bound[1]::timestamptz, 'HH24:MI ')
    || age(bound[2]::timestamptz, bound[1]::timestamptz)
from pg_class, regexp_match(pg_get_expr(relpartbound, oid),
    'FROM \\(''(.+)''\\) TO \\(''(.+)''\\)') as bound
where relispartition and relkind = 'r' and relname ~ '^${table}_\\d'
EOC
}

sub fill {
	my ($table, $text, $status, $time, $rows) = @_;
	sql("insert into $table (ip_address, request_text, status, timestamp)"
		. " select '::1', '$text', '$status', $time"
		. " from generate_series(1, $rows)");
}

sub wait_sql {
	my ($sql, $value, $seconds) = @_;
	wait_for { sql($sql) eq $value } $seconds // 60;
	return sql($sql);
}
