#!/usr/bin/perl

# The table and its rows.

use warnings;
use strict;
use utf8;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_redis off;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}

location /table {
    chatbot_pass %%API%%;
    chatbot_log_table "My Questions";
}

location /schema {
    chatbot_pass %%API%%;
    chatbot_log_table logs.Questions;
}

location /database {
    chatbot_pass %%API%%;
    chatbot_postgres "host=%%TEST%%/postgres port=%%POSTGRES_PORT%%
        user=postgres dbname='other one'";
}

location /late {
    chatbot_pass %%API%%;
    chatbot_log_table late.questions;
}

location /first {
    chatbot_pass %%API%%;
    chatbot_retries 0;
    error_page 502 = @second;
}

location @second {
    chatbot_pass %%API%%;
}

location /page {
    ssi on;
    ssi_types text/plain;
    return 200 '<!--#include virtual="/chat?query=part%201" -->
        <!--#include virtual="/chat?query=part%202" -->';
}
EOF

my $postgres = $t->postgres;

# the table of the service that was before

sql(<<'EOF');
create table request_logs (
    id serial primary key,
    ip_address varchar(45) not null,
    request_text text not null,
    response_text text,
    status varchar(20) not null,
    timestamp timestamptz default current_timestamp
);
insert into request_logs (ip_address, request_text, response_text, status)
    values ('10.0.0.1', 'old?', 'old!', 'success'),
        ('::1', 'old failure?', null, 'error');
EOF
sql($_) for 'create schema logs', 'create database "other one"';
my $old = sql('select * from request_logs order by id');

$t->run;
ask('new');
is(wait_rows(3), 3, 'old rows and a new one');

is(sql('select id, ip_address, request_text, response_text, status, timestamp'
	. ' from request_logs where id < 3 order by id'), $old, 'old rows are kept');
is(sql('select id, ip_address, request_text, response_text, status'
	. ' from request_logs where id > 2'),
	'3|127.0.0.1|new|answer 1: new|success', 'new row');
is(columns('request_logs'), <<'EOF', 'columns');
id integer NO
ip_address character varying(45) NO
request_text text NO
response_text text YES
status character varying(20) NO
timestamp timestamp with time zone YES
request_id text YES
model text YES
cache_status text YES
http_status smallint YES
duration_ms integer YES
prompt_tokens integer YES
completion_tokens integer YES
first_byte_ms integer YES
cached_tokens integer YES
reasoning_tokens integer YES
attempts smallint YES
upstream text YES
upstream_request_id text YES
client_name text YES
EOF
like(sql("insert into request_logs (ip_address, request_text, status,"
	. " request_id) select ip_address, request_text, status, request_id"
	. ' from request_logs'), qr/duplicate key/, 'request_id is unique');

# other tables, and one made by us

ask('a table', uri => '/table');
is(wait_text('"My Questions"', 'a table'), 1, 'table');
is(columns('My Questions'), columns('request_logs'), 'the same columns');

ask('a schema', uri => '/schema');
is(wait_text('logs."Questions"', 'a schema'), 1, 'schema');

ask('a database', uri => '/database');
my $other = $postgres->url('postgres', 'other one');
ok(wait_for { $postgres->sql('select count(*) from request_logs', $other)
	eq '1' }, 'database');

ask('a schema to be', uri => '/late');
wait_for { $t->error_log =~ /\[error\].*"late"/ };
like($t->error_log, qr/\[error\].*schema "late" does not exist/, 'no schema');
sql('create schema late');
is(wait_text('late.questions', 'a schema to be'), 1, 'schema made later');

# several questions of one request

my $id = header(ask('[status 500 x1] twice', uri => '/first'), 'X-Request-ID');
is(wait_text('request_logs', '[status 500 x1] twice', 2), 2, 'asked twice');
is(sql("select replace(request_id, '$id', 'ID'), http_status from request_logs"
	. " where request_text ~ 'twice' order by 1"), "ID|502\nID-2|200",
	'asked twice, rows');

like(get('/page'), qr/part 1.*part 2/s, 'a page of two');
ok(wait_for { sql("select count(distinct request_id) from request_logs"
	. " where request_text ~ '^part'") eq '2' }, 'a page of two, rows');
sql("delete from request_logs where request_text ~ 'twice|^part'");

# whatever the question is

my @texts = ("'", '"', '\\', "\\'); drop table request_logs; --", '\\u0000\\n',
	"\n", "a\r\n\tb\x01\x1f\x7f", '{"request_text": "x"}],[{', '%s%n$1', '💩 ☃',
	"\x{feff}", "\x{fffe}", "\x{2028}", "\x{10ffff}", 'مرحبا', 'e' . "\x{301}",
	'x' x 8000);
$_ = "<$_>" for @texts;

is(status($_), 200, 'asked') for many({ timeout => 20 }, @texts);
wait_rows(3 + @texts);
for my $text (@texts) {
	my $shown = $text =~ s/([^ -~])/sprintf '{%x}', ord $1/ger;
	is(sql(sprintf "select response_text ~ '^answer \\d+: ' and"
		. " right(response_text, length(request_text)) = request_text"
		. " from request_logs where request_text = convert_from('\\x%s',"
		. " 'UTF8')", hex_of($text)), 't', substr $shown, 0, 40);
}

# a record that PostgreSQL refuses for what it is

sql("alter table request_logs add check (request_text !~ 'forbidden')");
sql('delete from request_logs');
is(status($_), 200, 'asked') for many(map { $_ % 10 == 3 ? "forbidden $_"
	: "allowed $_" } 1 .. 50);
ask('after it');

is(wait_text('request_logs', 'after it'), 1, 'holds nobody up');
is(sql("select count(*) from request_logs where request_text ~ 'allowed'"), 45,
	'the others are there');
wait_for { 5 == (() = $t->read('chatbot-journal/rejected.jsonl') =~ /\n/g) };
is(join(', ', sort map { decode_json($_)->{request_text} } split /\n/,
	$t->read('chatbot-journal/rejected.jsonl')), join(', ',
		sort map { "forbidden ${_}3" } '', 1 .. 4), 'set aside');
like($t->error_log, qr/\[error\].*records refused: \d/, 'logged');
unlike($t->error_log, qr/(?:refused|PostgreSQL).*forbidden \d/,
	'not what was asked');

$t->quit;

# no table yet, and all start at once

sql('drop table request_logs');
my @nginx = map { Test::Chatbot->new(with => $t, workers => 2,
	conf => <<'EOF') } 1, 2;
location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres %%POSTGRES%%;
    chatbot_model gpt-6-luna;
}
EOF
$_->run for @nginx;

for my $nginx (@nginx) {
	is(status($nginx->ask("one of four $_")), 200, 'asked') for 1 .. 5;
}
is(wait_rows(10), 10, 'all started at once');
unlike($_->error_log, qr/\[(?:error|warn)\].*PostgreSQL/, 'no error')
	for @nginx;
$_->quit for @nginx;

# a table of somebody else, as it was before

sql($_) for 'create role guest login', 'create schema theirs',
	'grant usage on schema theirs to guest', 'create table theirs.questions'
	. ' (id serial primary key, ip_address varchar(45) not null, request_text'
	. ' text not null, response_text text, status varchar(20) not null,'
	. ' timestamp timestamptz default current_timestamp)',
	'grant select, insert on theirs.questions to guest',
	'grant usage on theirs.questions_id_seq to guest';

my $guest = Test::Chatbot->new(with => $t, conf => <<"EOF")->run;
chatbot_postgres ${\$postgres->url('guest')};
chatbot_log_table theirs.questions;

location /chat {
    chatbot_pass %%API%%;
    chatbot_model gpt-6-luna;
}
EOF

ask('a guest');
is(wait_text('theirs.questions', 'a guest'), 1, 'no right to widen');
like($guest->error_log,
	qr/\[warn\].*"theirs".* without request_id, .*must be owner/,
	'no right to widen, logged');
$guest->quit;

# no PostgreSQL

my $alone = Test::Chatbot->new(with => $t, http => "chatbot_log_journal log;\n",
	conf => <<'EOF')->run;
location /chat {
    chatbot_pass %%API%%;
    chatbot_model gpt-6-luna;
}
EOF

ask("alone $_") for 1 .. 3;
is(journal($alone), 'alone 1, alone 2, alone 3', 'the journal is the log');
$alone->quit;
$alone->run;
ask('alone 4');
is(journal($alone), 'alone 1, alone 2, alone 3, alone 4', 'and is kept');

my ($line) = lines($alone);
($id, my ($time, $took)) = delete @$line{qw/ request_id timestamp duration_ms /};
like($id, qr/^[0-9a-f]{32}$/, 'id');
like($time, qr/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/, 'time');
like($took, qr/^\d+$/, 'duration');
delete @$line{qw/ prompt_tokens completion_tokens response_text first_byte_ms
	cached_tokens reasoning_tokens attempts upstream upstream_request_id /};
is_deeply($line, { ip_address => '127.0.0.1', request_text => 'alone 1',
	status => 'success', model => 'gpt-6-luna', cache_status => 'MISS',
	http_status => 200 }, 'a line');

# no record at all

my $none = Test::Chatbot->new(with => $t, http => "chatbot_log_journal off;\n",
	conf => <<'EOF')->run;
location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres off;
}
EOF

is(status(ask('nobody knows')), 200, 'journal off');
is_deeply([glob $none->dir . '/*journal*'], [], 'no journal');

done_testing();

###############################################################################

sub sql { $postgres->sql(@_) }
sub hex_of { my ($text) = @_; utf8::encode($text); return unpack 'H*', $text }

# How many rows of this text there are, once there are so many (1).
sub wait_text {
	my ($table, $text, $n) = (@_, 1);
	my $count = "select count(*) from $table where request_text = '$text'";

	wait_for { sql($count) =~ /^(\d+)$/ && $1 >= $n };
	return sql($count);
}

sub columns {
	my ($table) = @_;
	return sql("select column_name || ' ' || data_type || coalesce('('"
		. " || character_maximum_length || ')', '') || ' ' || is_nullable"
		. " from information_schema.columns where table_name = '$table'"
		. ' order by ordinal_position') . "\n";
}

sub lines {
	my ($nginx) = @_;
	return map { decode_json($_) } map { split /\n/, $nginx->read($_) }
		map { substr $_, 1 + length $nginx->dir }
		sort { -M $b <=> -M $a || $a cmp $b } glob $nginx->dir . '/log/*.jsonl';
}

sub journal { join ', ', map { $_->{request_text} } lines(@_) }
