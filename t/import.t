#!/usr/bin/perl

# docker/import-requests between two real databases; what stands in for Docker
# runs the commands that are meant for a container here.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF');
location /chat {
    chatbot_pass %%API%%;
    chatbot_postgres %%POSTGRES%%;
}
EOF
my $new = $t->postgres;
my $old = Test::Chatbot::Postgres->new(dir => $t->dir . '/old',
	port => port(1), template => "$FindBin::Bin/../build/pgtemplate")->start;

write_program('docker', <<"EOF");
case \$1 in compose) exit 1 ;; esac
shift 2
PGHOST=127.0.0.1 PGPORT=$old->{port} exec "\$@"
EOF

# the database is not there at once
write_program('docker-compose', <<"EOF");
case "\$*" in
up*) echo x >\$0.up; exit ;;
*pg_isready*) [ -e \$0.up ] || exit 1; echo x >>\$0.up
	[ \$(wc -l <\$0.up) -gt 2 ] || exit 1 ;;
esac
shift 3
PGHOST=127.0.0.1 PGPORT=$new->{port} exec "\$@"
EOF

$ENV{PATH} = $t->dir . ":$ENV{PATH}";
$ENV{POSTGRES_USER} = 'postgres';

$old->sql('CREATE TABLE request_logs (id serial PRIMARY KEY, ip_address'
	. ' varchar(45) NOT NULL, request_text text NOT NULL, response_text text,'
	. ' status varchar(20) NOT NULL, timestamp timestamptz DEFAULT'
	. ' CURRENT_TIMESTAMP)');
like(copied(), qr/^0 rows copied$/m, 'an empty table');

$old->sql("INSERT INTO request_logs (ip_address, request_text, response_text,"
	. " status, timestamp) SELECT '192.0.2.1', E'question\\t\\\\\\n' || i,"
	. " CASE WHEN i % 3 > 0 THEN 'answer ' || i END, 'success', now()"
	. " - i * interval '1 minute' FROM generate_series(1, 1000) AS i");
$old->sql('DELETE FROM request_logs WHERE id = 500');

# that fails, that succeeds, that is repeated

$new->sql('ALTER TABLE request_logs ADD CHECK (id < 900)');
like(copied(), qr/ERROR/, 'an error');
isnt($?, 0, 'an error, exit status');
is($new->rows, 0, 'an error, nothing is copied');
$new->sql('DROP TABLE request_logs');

like(copied(), qr/^999 rows copied$/m, 'copied');
is($?, 0, 'copied, exit status');
is(rows($new), rows($old), 'all rows as they were');
like(copied(), qr/^0 rows copied$/m, 'again');
is(rows($new), rows($old), 'again, nothing twice');

# beside rows that nginx recorded

$t->run;
ask('hi');
is(wait_rows(1000), 1000, 'the next row is recorded');
is($new->sql('SELECT id FROM request_logs WHERE request_id IS NOT NULL'), 1001,
	'the next id');

$t->stop;
$new->sql('DROP TABLE request_logs');
$t->run;
ask('hi');
ask('you');
is(wait_rows(2), 2, 'recorded first');
like(copied(), qr/^999 rows copied$/m, 'then copied');
is($new->rows, 1001, 'all rows');
is($new->sql('SELECT min(id), max(id) FROM request_logs'), '1|1002', 'ids');
is($new->sql('SELECT count(*) FROM request_logs WHERE id BETWEEN 3 AND 1000'
	. " AND request_text = E'question\\t\\\\\\n' || id"), 997, 'most are kept');
like(copied(), qr/^0 rows copied$/m, 'again');

# without the old database

$old->stop;
unlike(copied(), qr/copied/, 'no old database');
isnt($?, 0, 'no old database, exit status');

done_testing();

###############################################################################

sub copied { capture("$FindBin::Bin/../docker/import-requests", 'old') }

sub rows {
	my ($postgres) = @_;
	return $postgres->sql('SELECT id, ip_address, request_text, response_text,'
		. ' status, timestamp FROM request_logs ORDER BY id');
}

sub write_program {
	my ($name, $text) = @_;
	my $file = $t->dir . "/$name";

	open my $fh, '>', $file or die "$file: $!";
	print $fh "#!/bin/sh\n$text";
	close $fh;
	chmod 0755, $file;
}
