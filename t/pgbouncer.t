#!/usr/bin/perl

# PostgreSQL behind pgbouncer, which has fewer connections than there are workers:
# in transaction mode, where statements of many share a session, and in session
# mode, where who is connected keeps one.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Load;

###############################################################################

my ($bouncer) = grep { -x } '/usr/sbin/pgbouncer'
	or plan(skip_all => 'there is no pgbouncer');

my $t = Test::Chatbot->new(workers => 8, conf => <<'EOF');
server {
    listen 127.0.0.1:%%PORT%% reuseport backlog=4096;
    chatbot_model gpt-6-luna;
    chatbot_postgres "host=127.0.0.1 port=%%PORT_1%% user=postgres
        dbname=postgres";

    location /chat {
        chatbot_pass %%API%%;
    }
}
EOF

my $postgres = $t->postgres;
my $pool = Test::Chatbot::Pgbouncer->new(dir => $t->dir . '/pgbouncer',
	program => $bouncer, port => port(1), postgres => $postgres->port);

for my $mode (qw/ transaction session /) {
	$pool->{mode} = $mode;
	$pool->start;
	$t->run;

	is(scalar(grep { status($_) == 200 } many({ timeout => 20 },
		map { "$mode $_" } 1 .. 200)), 200, "$mode, answered");
	is(wait_rows(200, 30), 200, "$mode, rows");

	# somebody else's settings and transactions do not stay behind

	is($postgres->sql("select setting from pg_settings where name ="
		. " 'statement_timeout'", bounced()), 0, "$mode, settings");

	# the pooler is gone for a while, and cuts connections

	my $load = Test::Chatbot::Load->start->wait(100);
	$pool->kill;
	$load->wait(50);
	$pool->start;
	$load->wait(100)->stop;
	ok(wait_for(sub { !$load->lost($postgres) }, 40), "$mode, none is lost");
	is(twice(), 0, "$mode, none is twice");

	# a row that is refused

	$postgres->sql('alter table request_logs add constraint no_evil'
		. " check (request_text <> 'evil $mode') not valid");
	ask("evil $mode");
	ask("after evil $mode");
	ok(wait_for(sub { $postgres->sql('select count(*) from request_logs where'
		. " request_text = 'after evil $mode'") eq '1' }, 20),
		"$mode, a refused row holds up no other");
	ok(wait_for { $t->read('chatbot-journal/rejected.jsonl') =~ /evil $mode/ },
		"$mode, it is set aside");

	$t->quit;
	$pool->stop;
	$postgres->sql($_) for 'alter table request_logs drop constraint no_evil',
		'truncate request_logs';
}

done_testing();

###############################################################################

sub bounced {
	return sprintf 'postgresql://postgres@127.0.0.1:%d/postgres', port(1);
}

sub twice {
	return $postgres->sql('select count(*) - count(distinct request_id)'
		. ' from request_logs');
}

###############################################################################

package Test::Chatbot::Pgbouncer;

use parent -norequire, 'Test::Chatbot::Server';

# Takes: dir, program, port, postgres (its port), mode.  It refuses to run as
# root.
sub privileges { Test::Chatbot::Postgres::privileges() }
sub gentle_signal { 'INT' }

sub prepare {
	my ($self) = @_;

	open my $fh, '>', "$self->{dir}/users" or die "users: $!";
	print $fh qq{"postgres" ""\n};
	open $fh, '>', "$self->{dir}/ini" or die "ini: $!";
	print $fh <<"EOF";
[databases]
* = host=127.0.0.1 port=$self->{postgres}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $self->{port}
unix_socket_dir =
auth_type = trust
auth_file = $self->{dir}/users
pool_mode = $self->{mode}
default_pool_size = 2
EOF
}

sub command { ($_[0]{program}, '-q', "$_[0]{dir}/ini") }

sub ready {
	return defined IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $_[0]{port});
}
