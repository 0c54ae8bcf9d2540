#!/usr/bin/perl

# Messages of a wrong configuration and of what it leads to: they say what is
# wrong, where that is, and what to do, and no secret.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $pass = 'chatbot_pass http://127.0.0.1:1/v1;';
my $t = Test::Chatbot->new(conf => <<'EOF');
chatbot_retries 0;
chatbot_redis off;
chatbot_postgres off;

location /chat {
    chatbot_pass %%API%%;
    chatbot_answer_max_size 1k;
}

location /whole {
    chatbot_pass %%API%%;
    chatbot_answer_max_size 1k;
    chatbot_upstream_stream wanted;
}

location /password {
    chatbot_pass %%API%%;
    chatbot_redis redis://:secret@127.0.0.1:%%REDIS_PORT%%;
}
EOF

# connection strings: libpq's own reason, where it quotes no password

like(location("chatbot_postgres $$_[0];"),
	qr/\[emerg\].*string in "chatbot_postgres": \Q$$_[1]\E in \S+:\d+$/m,
	"why not: $$_[0]")
	for ['"host=a pasword=b"' => 'invalid connection option "pasword"'],
	['"host=a sslmode=maybe"' => 'invalid sslmode value: "maybe"'],
	['"host=a port=x"' => 'invalid port'],
	['"host=a dbname"' => 'missing "=" after "dbname" in connection info string'],
	['"password=x secret"' => 'missing "=" after "..."'],
	['postgres://a:secret@b/?x=y' => 'invalid URI query parameter: "..."'];

# the environment: the variable's name, and no place in a file

for (['DATABASE_URL', 'postgres://a:secret@b/?x=y',
		'invalid URI query parameter: "..."'],
	['POSTGRES_PORT', 'tcp://secret:5432', 'invalid port'],
	['POSTGRES_HOST', 'a,b', 'the number of ports is not that of the hosts',
		POSTGRES_PORT => '1,2,3'],
	['PGSSLMODE', 'maybe', 'invalid sslmode value: "maybe"'],
	['PGSERVICE', 'gone', 'definition of service "gone" not found'],
	['REDIS_URL', 'redis://:secret@a/x', 'invalid database number'],
	['REDIS_PORT', 'x', 'a port from 1 to 65535 is expected'],
	['OPENAI_MODEL', "secret\xff", 'invalid name of a model'],
	['OPENAI_API_KEY', "secret\nmore", 'more than one line'],
	['OPENAI_ORG_ID', "secret\nmore", 'more than one line'])
{
	my ($name, $value, $why, @more) = @$_;
	local %ENV = (%ENV, REDIS_HOST => 'a', POSTGRES_HOST => 'a', @more,
		$name => $value);
	local $t->{env} = { OPENAI_API_KEY => $value } if $name =~ /KEY/;

	my $said = location('');
	like($said, qr/\[emerg\].*: environment variable "$name": \Q$why\E$/m,
		"why $name is wrong");
	unlike($said, qr/secret/, "$name, no secret");
}

# what is found when all is read: where the directive is, not the last brace

{
	local $ENV{OPENAI_BASE_URL} = 'api.example.com';
	for (['chatbot_pass nowhere;' =>
			qr/no "chatbot_upstream" "nowhere" for .*http:\/\//],
		['chatbot_pass env:OPENAI_BASE_URL;' =>
			qr/no "chatbot_upstream" "api\.example\.com" for .*http:\/\//],
		["$pass\nchatbot_protocol openai;" => qr/no "chatbot_clients"/],
		["$pass\nchatbot_api_key '\"k\"';" => qr/API key starts with a quote,/])
	{
		my ($conf, $why) = @$_;
		my $said = $t->check("location / {\n$conf\n}\n");
		my $line = line_of('chatbot_pass');
		like($said, qr/$why .*check\.conf:$line$/m, $conf);
	}
}

# a location that has more than one purpose

my @others = map { "$_ 127.0.0.1:1;" } qw/ fastcgi_pass grpc_pass memcached_pass
	scgi_pass uwsgi_pass /;
for my $other ('proxy_pass http://127.0.0.1:1;', @others, 'stub_status;',
	'chatbot_metrics;', 'chatbot_health;')
{
	for ([$pass, $other], [$other, $pass]) {
		like($t->check("location / {\n" . join("\n", @$_) . "\n}"),
			qr/\[emerg\].*"chatbot_\w+" in a location that serves something else/,
			"@$_");
	}
}
my $said = $t->check("location / {\nchatbot_metrics;\nproxy_pass http://127.0.0.1;\n}");
my $line = line_of('chatbot_metrics');
like($said, qr/"chatbot_metrics" in a location that .*check\.conf:$line$/m,
	'not a chatbot either, and where it is');

# the directory of the journal

like(with_http('chatbot_log_journal new;'), qr/test is successful/, 'nginx -t');
ok(!-e $t->dir . '/new', 'makes no directory');
$said = with_http('chatbot_log_journal /not/there;');
$line = line_of('chatbot_log_journal');
like($said, qr{\[emerg\].*\ "/not/there"\ of\ "chatbot_log_journal"\ cannot\ be
	\ made\ in\ "/not/"\ \(2:\ No\ such\ file.*\)\ in\ .*check\.conf:$line$}mx,
	'one that cannot be made');
like(with_http("chatbot_log_journal $FindBin::Bin/messages.t/a;"),
	qr/cannot be made in ".*" \(20: Not a directory\) in .*conf:\d/,
	'below a file');

# what is told when a question is asked

$t->run;
is(status(ask('[size 2000]', uri => $_)), 502, "too large an answer, $_")
	for '/chat', '/whole';
is(() = $t->error_log =~ /\[error\].*
	larger\ than\ "chatbot_answer_max_size"\ allows\ \(1024\ bytes\)/gx, 2,
	'which directive is to be changed');

is(status(ask('hi', uri => '/password')), 200, 'Redis without a password');
like($t->error_log, qr/\[error\].*redis\ 127\.0\.0\.1:\d+\ fails,.*:\ AUTH\ is\ refused:
	\ ERR\ \(this\ Redis\ has\ no\ password:\ remove\ it\ from\ "chatbot_redis"/x,
	'what to do');
$t->redis->cli('config', 'set', 'requirepass', 'other');
ok(wait_for { ask('again', uri => '/password'); $t->error_log
	=~ /WRONGPASS \(the user or the password in "chatbot_redis", REDIS_URL/ },
	'another password');
unlike($t->error_log, qr/secret/, 'no password is told');

done_testing();

###############################################################################

sub location { $t->check("location /chat {\n$pass\n$_[0]\n}\n") }

sub with_http {
	my ($directive) = @_;
	local $t->{http} = "$directive\n";
	return location('');
}

# The first line that starts with this, of the configuration checked last.
sub line_of {
	my ($text) = @_;
	my @lines = split /\n/, $t->read('check.conf');
	return (grep { $lines[$_ - 1] =~ /^\Q$text\E/ } 1 .. @lines)[0] // 0;
}
