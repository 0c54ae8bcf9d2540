#!/usr/bin/perl

# Redis behind TLS: rediss://.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;
use Test::Chatbot::Tls qw/ make_certificates /;

###############################################################################

my $conf = <<'EOF';
location /chat {
    chatbot_pass %%API%%;
    chatbot_redis rediss://:p%40ss@localhost:%%PORT_1%%;
}

location /plain {
    chatbot_pass %%API%%;
    chatbot_redis redis://:p%40ss@localhost:%%PORT_1%%;
}

location /other_name {
    chatbot_pass %%API%%;
    chatbot_redis rediss://:p%40ss@127.0.0.1:%%PORT_1%%;
}

location /no_tls {
    chatbot_pass %%API%%;
    chatbot_redis rediss://:p%40ss@localhost:%%REDIS_PORT%%;
}
EOF
my $t = Test::Chatbot->new(conf => $conf, main => "env SSL_CERT_FILE;\n",
	http => "chatbot_redis_timeout 5s;\n",     # a handshake on a busy machine
	env => { SSL_CERT_FILE => '%%TEST%%/ca.pem' });
my $dir = $t->dir;

make_certificates($dir);
$t->{redis} = ['--save', '', '--requirepass', 'p@ss', '--tls-port', port(1),
	'--tls-auth-clients', 'no', '--tls-cert-file', "$dir/localhost.pem",
	'--tls-key-file', "$dir/localhost.key"];
$t->redis;
$t->run;

is(json(ask('hi'))->{source}, 'api', 'asked');
ok((wait_for { json(ask('hi'))->{source} eq 'cache' }), 'cached');

my $long = '[size 900000]';
is(json(ask($long))->{source}, 'api', 'a long answer');
ok((wait_for { json(ask($long))->{source} eq 'cache' }), 'a long answer, cached');
is(length json(ask($long))->{response}, 900000, 'a long answer, whole');

my @answers = many({ timeout => 30 }, ('hi') x 100);
is(scalar(grep { (json($_) // {})->{source} eq 'cache' } @answers), 100,
	'many at once');

$t->redis->cli(qw/ -a p@ss --no-auth-warning CLIENT KILL TYPE normal /);
is(status(ask('hi')), 200, 'connections are lost');
ok((wait_for { json(ask('hi'))->{source} eq 'cache' }), 'connects again');

# who is not trusted

for my $uri (qw{ /plain /other_name /no_tls }) {
	is(json(ask("hi, $uri", uri => $uri))->{source}, 'api', $uri);
	is(json(ask("hi, $uri", uri => $uri))->{source}, 'api', "$uri, not cached");
}
like($t->error_log, qr/redis.*127\.0\.0\.1.*TLS: IP address mismatch/i,
	'the log says why');

$t->{env} = {};
$t->stop;
$t->run;
is(json(ask('hi'))->{source}, 'api', 'an unknown CA');
like($t->error_log, qr/TLS: unable to get local issuer certificate/i,
	'an unknown CA, the log says so');
unlike($t->error_log, qr/p(@|%40)ss/, 'no password in the log');

done_testing();
