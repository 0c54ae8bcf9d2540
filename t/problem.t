#!/usr/bin/perl

# Every error is application/problem+json (RFC 9457), nginx's own included.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $t = Test::Chatbot->new(http => <<'HTTP', conf => <<'EOF')->run;
limit_req_zone $binary_remote_addr zone=one:1m rate=1r/m;
server_tokens off;
HTTP

server {
    listen 127.0.0.1:%%PORT%%;
    listen 127.0.0.1:%%PORT_2%% http2;

    chatbot_retries 0;
    chatbot_read_timeout 1s;
    chatbot_postgres %%POSTGRES%%;

    location /chat {
        chatbot_pass %%API%%;
        client_max_body_size 1k;
        add_header X-Always yes always;
    }

    location /dead {
        chatbot_pass http://127.0.0.1:%%PORT_1%%/v1;
    }

    location /wrong_key {
        chatbot_pass %%API%%;
        chatbot_api_key sk-wrong-and-secret;
    }

    location /deny {
        chatbot_pass %%API%%;
        deny all;
    }

    location /auth {
        chatbot_pass %%API%%;
        auth_basic closed;
        auth_basic_user_file %%TEST%%/users;
    }

    location /gone {
        chatbot_pass %%API%%;
        return 404;
    }

    location /teapot {
        chatbot_pass %%API%%;
        return 418;
    }

    location /text {
        chatbot_pass %%API%%;
        return 403 "go away\n";
    }

    location /moved {
        chatbot_pass %%API%%;
        return 302 /elsewhere;
    }

    location /limit {
        chatbot_pass %%API%%;
        limit_req zone=one;
    }

    location /limit429 {
        chatbot_pass %%API%%;
        limit_req zone=one;
        limit_req_status 429;
    }

    location /named {
        chatbot_pass %%API%%;
        error_page 422 502 @own;
        error_page 405 =200 @own;
    }

    location @own {
        return 422 "a page of my own\n";
    }

    location /uri {
        chatbot_pass %%API%%;
        error_page 422 /own.html;
        error_page 502 =200 /own.html;
    }

    location /own.html {
        return 200 "a page at a URI\n";
    }

    location /redirected {
        chatbot_pass %%API%%;
        error_page 422 http://example.com/;
    }

    location /replaced {
        chatbot_pass %%API%%;

        limit_except GET {
            proxy_pass http://127.0.0.1:%%PORT_1%%;
        }
    }

    location /other {
        return 404;
    }

    location /chatroom {
        return 404;
    }
}
EOF

my @problems;

# the module's own

is(problem(get('/chat')), '422 Unprocessable Content', 'no question');
like(get('/chat'), qr{^HTTP/1.1 422 Unprocessable Content\r}, 'status line');
like(detail(get('/chat')), qr/"query".*missing/, 'no question, detail');
like(detail(ask(' ')), qr/blank/, 'blank, detail');
is(problem(get('/chat?query=%FF')), '400 Bad Request', 'no UTF-8');
is(problem(post_json('{')), '400 Bad Request', 'no JSON');
is(problem(post_json({ query => 1 })), '422 Unprocessable Content',
	'wrong type of member');
is(problem(post_json('x', type => 'text/plain')),
	'415 Unsupported Media Type', 'type');
is(problem(get('/dead?query=' . 'a' x 6000 . '%61' x 400)), '503 Service'
	. ' Unavailable', 'a long question is none');
is(problem(post_form({ query => 'a' x 20000 }, uri => '/dead')),
	'413 Content Too Large', 'too long');
is(problem(http(request('PUT', '/chat'))), '405 Method Not Allowed', 'method');

my $reply = ask('');
like(header($reply, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, 'request id');
is(header($reply, 'X-Always'), 'yes', 'add_header');
is(header($reply, 'Content-Length'), length body($reply), 'length');

# the model's

is(failed('[status 500]'), '502 Bad Gateway', 'model: 500');
is(failed('[status 502]'), '502 Bad Gateway', 'model: 502');
is(failed('[status 503]'), '503 Service Unavailable 5', 'model: 503');
is(failed('[status 529]'), '503 Service Unavailable 5', 'overloaded');
is(failed('[status 504]'), '504 Gateway Timeout', 'model: 504');
is(failed('[status 400]'), '502 Bad Gateway', 'model: 400');
is(failed('[status 401]'), '502 Bad Gateway', 'model: 401');
is(failed('[status 403]'), '502 Bad Gateway', 'model: 403');
is(failed('[status 404]'), '502 Bad Gateway', 'model: 404');
is(failed('[status 429]'), '503 Service Unavailable 5', 'model: 429');
is(failed('[status 429] [header Retry-After: 7]'),
	'503 Service Unavailable 7', 'model: 429, Retry-After');
is(failed('[status 503] [header Retry-After-Ms: 1200]'),
	'503 Service Unavailable 2', 'model: 503, Retry-After-Ms');
is(failed('[error code=insufficient_quota message=No top-secret money]'),
	'502 Bad Gateway', 'no money');
is(failed('[status 400] [error message=the top-secret in /etc/passwd]'),
	'502 Bad Gateway', 'a message');
is(failed('[close]'), '502 Bad Gateway', 'closed');
is(failed('[reset]'), '502 Bad Gateway', 'reset');
is(failed('[garbage]'), '502 Bad Gateway', 'garbage');
is(failed('[silent]'), '504 Gateway Timeout', 'silent');
is(failed('hi', uri => '/dead'), '503 Service Unavailable 5', 'refused');
is(failed('hi', uri => '/wrong_key'), '502 Bad Gateway', 'wrong key');

# nginx's own

is(problem(get('/deny?query=hi')), '403 Forbidden', 'deny');
is(problem(get('/gone?query=hi')), '404 Not Found', 'return 404');
is(problem(get('/teapot')), '418 Error', 'any other status');
is(problem(post_form('query=' . 'a' x 1024)), '413 Content Too Large',
	'client_max_body_size');
is(problem(get('/chat?query=' . 'a' x 10000)), '414 URI Too Long', 'long URI');

$reply = http("TRACE /chat HTTP/1.1\r\nHost: localhost\r\n\r\n");
is(problem($reply), '405 Method Not Allowed', 'TRACE');
is(header($reply, 'Allow'), 'GET, POST', 'TRACE, Allow');
is(problem(get('/chat', headers => ['X: ' . 'x' x 40000])), '400 Bad Request',
	'large header');
is(problem(get('/chat', headers => ['Transfer-Encoding: gzip'])),
	'501 Not Implemented', 'unknown encoding');
is(problem(http("GET /chat HTTP/1.1\r\n$_\r\n")), '400 Bad Request',
	"host: '$_'") for '', "Host: /\r\n";
is(problem(http("GET /%63hat HTTP/1.1\r\n\r\n")), '400 Bad Request',
	'no host, encoded path');
is(problem(http("GET /chat HTTP/3.1\r\n\r\n")),
	'505 HTTP Version Not Supported', 'version');

$reply = get('/auth?query=hi');
is(problem($reply), '401 Unauthorized', 'auth');
is(header($reply, 'WWW-Authenticate'), 'Basic realm="closed"',
	'auth, challenge');

is(status(ask('hi', uri => '/limit')), 200, 'limit_req');
is(problem(ask('hi', uri => '/limit')), '503 Service Unavailable',
	'limit_req, over');
is(problem(ask('hi', uri => '/limit429')), '429 Too Many Requests',
	'limit_req, over, limit_req_status');

is(body(get('/text')), "go away\n", 'return with a text');
is(status(get('/text')), 403, 'return with a text, status');
like(get('/moved'), qr/ 302 .*Location: \S+elsewhere\r.*<html>/s, 'redirect');

# an administrator's

is(page(get('/named')), '422 a page of my own', 'error_page');
is(page(ask('[status 500]', uri => '/named')), '502 a page of my own',
	'error_page of a failure');
is(page(http(request('PUT', '/named'))), '200 a page of my own',
	'error_page with another status');
is(page(get('/uri')), '422 a page at a URI', 'error_page, URI');
is(page(ask('[status 500]', uri => '/uri')), '200 a page at a URI',
	'error_page, URI with another status');
is(problem(get('/uri?query=%FF')), '400 Bad Request',
	'error_page, other statuses');
like(get('/redirected'), qr{ 302 .*Location: http://example.com/}s,
	'error_page, redirect');

# of other locations

like(get('/other'), qr/ 404 .*text\/html.*<html>/s, 'other location');
like(get('/chatroom'), qr/ 404 .*<html>/s, 'other location, similar name');
like(get('/other?query=' . 'a' x 10000), qr/ 414 .*<html>/s,
	'other location, long URI');
like(get('/chatroom?query=' . 'a' x 10000), qr/ 414 .*<html>/s,
	'other location, similar name, long URI');
like(post_json('{}', uri => '/replaced'), qr/ 502 .*<html>/s,
	'limit_except that is no chatbot');
like(get('/none'), qr/ 404 .*<html>/s, 'no location');
like(http("TRACE $_ HTTP/1.1\r\nHost: localhost\r\n\r\n"),
	qr/ 405 .*<html>/s, "TRACE of $_") for '/other', '/none', '/chatroom';
like(http('G' x 20000 . " /chat HTTP/1.1\r\n\r\n"), qr/ 414 .*<html>/s,
	'long method');
like(http("GET nonsense HTTP/1.1\r\n\r\n"), qr/<html>/, 'bad request');

# HTTP/2

SKIP: {
	my $curl = `curl --version 2>/dev/null` || '';
	skip 'no curl with HTTP/2', 8 unless $curl =~ /HTTP2/;

	my $post = ['-H', 'Content-Type: application/json', '-d'];
	like(h2('/chat?query=hi'), qr/^HTTP\/2 200.*"answer \d+: hi"/s, 'HTTP/2');
	like(h2('/chat', @$post, '{"query": "body"}'),
		qr/^HTTP\/2 200.*"answer \d+: body"/s, 'HTTP/2, POST');
	like(h2('/chat'), qr/^HTTP\/2 422.*problem\+json.*"status": 422,/s,
		'HTTP/2, problem');
	like(h2('/chat', @$post, '{'),
		qr/^HTTP\/2 400.*problem\+json.*"status": 400,/s,
		'HTTP/2, POST, problem');

	like(h2('/chat/%zz'), qr/^HTTP\/2 400.*problem\+json/s,
		'HTTP/2, bad path');
	like(h2('/chat/' . 'x' x 3000 . '%zz'), qr/^HTTP\/2 400.*problem\+json/s,
		'HTTP/2, long bad path');
	like(h2("$_%zz"), qr/^HTTP\/2 400.*<html>/s, "HTTP/2, bad path of $_")
		for '/', '/chatroom/';
}

# secrets

my $problems = join '', @problems;
unlike($problems, qr/sk-/, 'no key');
unlike($problems, qr/top-secret|Incorrect|engine|quota|HTTP\/1/,
	'no words of the API');
unlike($problems, qr/127\.0\.0\.1|postgres|\/v1|\/etc|\Q${\$t->dir}/,
	'no address, no path');

my $log = $t->error_log;
unlike($log, qr/sk-(test|wrong)/, 'no key in the error log');
like($log, qr/\[error\].*insufficient_quota.*top-secret money.*client: 127/,
	'reason in the error log');
like($log, qr/\[error\].*answered 401: invalid_api_key/,
	'reason in the error log, key');

done_testing();

###############################################################################

# A problem as "STATUS TITLE"; what is wrong with it otherwise.
sub problem {
	my ($reply) = @_;
	my $json = json($reply) or return "no JSON: $reply";

	push @problems, body($reply);
	return "type: $reply"
		if header($reply, 'Content-Type') ne 'application/problem+json';
	return "members: $reply"
		if join(' ', sort keys %$json) ne 'detail status title type'
			|| $json->{type} ne 'about:blank' || $json->{detail} eq '';
	return "status: $reply"
		if body($reply) !~ /"status": ${\status($reply)},/;
	return "$json->{status} $json->{title}";
}

# The same with Retry-After.
sub failed {
	my $reply = ask(@_);
	return join ' ', problem($reply), header($reply, 'Retry-After') // ();
}

sub detail { json($_[0])->{detail} }

sub page {
	my ($reply) = @_;
	return status($reply) . ' ' . body($reply) =~ s/\n$//r;
}

sub h2 {
	my ($uri, @args) = @_;
	return capture('curl', '-si',
		'--http2-prior-knowledge', '--path-as-is', @args,
		'http://127.0.0.1:' . port(2) . $uri);
}
