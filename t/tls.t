#!/usr/bin/perl

# A model behind TLS: whom to trust, HTTP/2, and proxies.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Relay;
use Test::Chatbot::Tls qw/ make_certificates /;

###############################################################################

my $front = Test::Chatbot->new(http => <<'EOF', conf => <<'EOF');
log_format calls '$server_protocol $status $ssl_protocol $connection';

server {
    listen 127.0.0.1:%%PORT_4%% ssl http2;
    ssl_certificate %%TEST%%/localhost.pem;
    ssl_certificate_key %%TEST%%/localhost.key;
    keepalive_requests 5;
    access_log %%TEST%%/few.log calls;

    location / {
        proxy_pass http://127.0.0.1:%%PORT_3%%;
    }
}
EOF
ssl_certificate %%TEST%%/localhost.pem;
ssl_certificate_key %%TEST%%/localhost.key;
access_log %%TEST%%/calls.log calls;

listen 127.0.0.1:%%PORT_1%% ssl http2;
listen 127.0.0.1:%%PORT_2%% ssl;

location / {
    proxy_pass http://127.0.0.1:%%PORT_3%%;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
}
EOF

my $dir = $front->dir;
make_certificates($dir);

my $api = $front->openai;
$front->{$_} =~ s/127.0.0.1:%%PORT_3%%/127.0.0.1:$api->{port}/
	for qw/ http conf /;
$front->run;

my ($h2, $h1, $few) = map { $front->port($_) } 1, 2, 4;
my $relay = Test::Chatbot::Relay->new(to => "127.0.0.1:$h2");
my $relayed = $relay->port;
my $proxy = Test::Chatbot::Relay->new;
my $tunnel = $proxy->port;
my $t = Test::Chatbot->new(with => $front, conf => <<"EOF")->run;
chatbot_model gpt-6-luna;
chatbot_redis off;

location /good {
    chatbot_pass https://localhost:$h2/v1;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
}

location /few {
    chatbot_pass https://localhost:$few/v1;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
}

location /http1 {
    chatbot_pass https://localhost:$h1/v1;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
}

location /relayed {
    chatbot_pass https://localhost:$relayed/v1;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
    chatbot_read_timeout 3s;
}

location /proxied {
    chatbot_pass https://localhost:$h2/v1/;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
    chatbot_proxy http://127.0.0.1:$tunnel;
}

location /system {
    chatbot_pass https://localhost:$h2/v1;
}

location /wrong_ca {
    chatbot_pass https://localhost:$h2/v1;
    chatbot_ssl_trusted_certificate $dir/other.pem;
}

location /wrong_name {
    chatbot_pass https://127.0.0.1:$h2/v1;
    chatbot_ssl_trusted_certificate $dir/ca.pem;
}

location /plain {
    chatbot_pass https://localhost:$api->{port}/v1;
    chatbot_connect_timeout 300ms;
    chatbot_retries 0;
}

location /unverified {
    chatbot_pass https://127.0.0.1:$h2/v1;
    chatbot_ssl_verify off;
}
EOF

# trusted

like(ask('hi', uri => '/good'), qr/ 200 .*"answer 1: hi"/s, 'trusted');
like(wait_for { $front->read('calls.log') }, qr{^HTTP/2.0 200 TLSv1\.[23] },
	'HTTP/2');

my @answers = many(map { request(GET => "/good?query=[delay%200.5]%20$_") }
	1 .. 50);
is(scalar(grep { status($_) == 200 } @answers), 50, 'many');
cmp_ok(connections('calls.log'), '<', 4, 'many, few connections');

# the front ends a stream, RST_STREAM, or a connection, GOAWAY

my $calls = $api->calls;
like(ask('[half x1]', uri => '/good'), qr/ 200 .*"answer/s, 'RST_STREAM');
is($api->calls - $calls, 2, 'RST_STREAM, asked again');

@answers = many({ uri => '/few' }, map { "[delay 0.1] $_" } 1 .. 20);
is(scalar(grep { status($_) == 200 } @answers), 20, 'GOAWAY');
ok(wait_for { connections('few.log') > 3 }, 'GOAWAY, new connections');

like(ask('hi', uri => '/http1'), qr/ 200 .*: hi"/s, 'HTTP/1.1 alone');
ok(wait_for { $front->read('calls.log') =~ m{^HTTP/1.1 200}m }, 'logged');
like(ask('hi', uri => '/unverified'), qr/ 200 .*: hi"/s, 'not verified');

# a connection dies in silence; the next call gets another

like(ask('hi', uri => '/relayed'), qr/ 200 .*: hi"/s, 'relayed');
is($relay->connections, 1, 'relayed, one connection');
$relay->freeze;
is(status(ask('in vain', uri => '/relayed')), 504, 'a dead connection');
like(ask('again', uri => '/relayed'), qr/ 200 .*: again"/s, 'a new one');
is($relay->connections, 2, 'two connections');

# what a proxy says is not what the server says

@answers = many({ uri => '/proxied' }, map { "[delay 0.5] $_" } 1 .. 30);
is(scalar(grep { status($_) == 200 } @answers), 30, 'through a proxy');
cmp_ok($proxy->connections, '<', 4, 'through a proxy, HTTP/2');

# not trusted

$calls = $api->calls;
for my $uri (qw{ /system /wrong_ca /wrong_name }) {
	my $response = ask('secret', uri => $uri);
	is(status($response), 502, $uri);
	unlike($response, qr/certificate|SSL|localhost|127\.0/, "$uri, no details");
}

like($t->error_log, qr/\[error\].*certificate/, 'logged');
unlike($t->error_log, qr/attempts/, 'not retried');

like(ask('secret', uri => '/plain'), qr{^HTTP/1.1 50[23] }, 'no TLS there');

is($api->calls, $calls, 'nothing reached the API');
unlike(join('', map { $_->{body} } $api->requests), qr/secret/,
	'the question stayed here');

$t->quit;

done_testing();

###############################################################################

# How many connections are in a log.
sub connections {
	my %seen = map { $_ => 1 } $front->read($_[0]) =~ /(\d+)$/mg;
	return scalar keys %seen;
}
