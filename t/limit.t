#!/usr/bin/perl

# The nginx.conf that is shipped: 5 requests a minute for each client.

use warnings;
use strict;

use IO::Socket::INET;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Server qw/ read_file /;

###############################################################################

# but for where it listens and logs
my $conf = read_file('../nginx.conf');
$conf =~ s/^(load_module|worker_processes|pid|error_log)\s.*\n//mg;
$conf =~ s/\blisten 8000;/listen 127.0.0.1:%%PORT%%;/;
$conf =~ s{/dev/stdout}{%%TEST%%/access.log};

my $t = Test::Chatbot->new(conf => $conf, env => {
	OPENAI_BASE_URL => '%%API%%', REDIS_URL => '%%REDIS%%' });
symlink "$FindBin::Bin/../docker/html", $t->dir . '/html' or die $!;
$t->run;

my @allowed = map { ask($_) } 'capital of France?', 'CAPITAL of France?',
	'', "\xFF", '&' x 16384;
is(join(' ', map { status($_) } @allowed), '200 200 422 400 200',
	'five requests');
like($allowed[0], qr/"api"/, 'from the API');
like($allowed[1], qr/"cache"/, 'from the cache');

# the sixth

my $sixth = ask('capital of France?');
is(status($sixth), 429, 'sixth request');
is(header($sixth, 'Retry-After'), 12, 'Retry-After');
is(header($sixth, 'Content-Type'), 'application/problem+json', 'type');
is(body($sixth), '{"type": "about:blank", "title": "Too Many Requests",'
	. ' "status": 429, "detail": "Rate limit exceeded: 5 per 1 minute"}',
	'body');
like(header($sixth, 'X-Request-ID'), qr/^[0-9a-f]{32}$/, 'request id');
is(status(post_json({ query => 'hi' })), 429, 'POST');
is(status(get('/chat?query=France', body => 'x' x 600_000)), 413,
	'a body that is too large');
is($t->openai->calls, 2, 'the API is not asked');

# what clients are told is what is configured

my ($rate, $retry, $burst) = map { $conf =~ $_ ? $1 : 0 }
	qr/zone=chat:\S+ rate=(\d+)r\/m;/, qr/\$limit_retry *\{ default (\d+);/,
	qr/zone=chat burst=(\d+) nodelay/;
is($retry, 60 / $rate, 'Retry-After is what the rate says');
is($burst, $rate - 1, 'so is the burst');
like($conf, qr/\$limit_text *\{ default "$rate per 1 minute";/, 'and the text');
like($conf, qr/zone=api:\S+ rate=60r\/m;.*\$api_retry \{ 429 1; \}/s,
	'those of the API, too');

# another client

my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.2',
	PeerAddr => '127.0.0.1', PeerPort => port());
print $socket request('GET', '/chat?query=hi');
like(join('', <$socket>), qr/ 200 .*"answer 3: hi"/s, 'another client');

# the rest

my $health = get('/health');
is(status($health), 200, 'health');
is(body($health), "ok\n", 'health, body');

my $home = get('/');
is(status($home), 200, 'home');
like($home, qr/<title>Chatbot/, 'home, body');

my $none = get('/nothing/here');
is(status($none), 404, 'unknown path');
is(status(get('/chat/')), 404, 'unknown path below');

# headers

for (@allowed, $sixth, $health, $home, $none) {
	my $what = status($_) . ' ' . (header($_, 'Content-Type') // '');
	is(header($_, 'X-Content-Type-Options'), 'nosniff', "$what, nosniff");
	is(header($_, 'Cache-Control'), $_ eq $home ? 'no-cache'
		: $_ eq $health ? 'no-store' : 'private', $what);
	is(header($_, 'Server'), 'nginx', "$what, no version");
}

unlike(get('/chat?query=' . 'a' x 70000), qr/nginx\/\d/, 'no version at all');

# the access log

ok((wait_for { $t->read('access.log') =~ /" 414 / }), 'access log');
my $log = $t->read('access.log');
unlike($log, qr/France|query|hi\b/, 'access log, no question');
like($log,
	qr{^127\.0\.0\.1 .*"GET /chat" 200 \d+ [\d.]+ [0-9a-f]{32} "MISS"$}m,
	'access log, asked');
like($log, qr{"GET /chat" 429 .* "-?"$}m,
	'access log, limited');
unlike($log, qr/health/, 'access log, no /health');

# the error log

my $errors = $t->error_log;
like($errors, qr{too large body.* request: "GET /chat", host:},
	'error log, too large');
like($errors, qr{\[notice\].* limiting requests.* request: "GET /chat", host:},
	'error log, limited');
unlike($errors =~ s/.*\[info\].*//gr, qr/query=|France/,
	'error log, no question at the level that is shipped');

done_testing();
