#!/usr/bin/perl

# "chatbot_cors": pages of other origins, by what a browser would send, and by
# a browser.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Browser;

###############################################################################

my $sdk = "$FindBin::Bin/../build/sdk/node_modules/openai";
my $t = Test::Chatbot->new(http => "limit_req_zone \$server_name zone=all:1m"
	. " rate=1r/m;\nlimit_req_status 429;\n", conf => <<"EOF");
server {
    listen 127.0.0.1:%%PORT%%;
    server_name localhost;

    chatbot_model gpt-6-luna;
    chatbot_redis off;
    chatbot_postgres %%POSTGRES%%;
    chatbot_log_refused on;
    chatbot_retries 0;
    chatbot_cors http://localhost:%%PORT_1%% https://example.com;

    location /v1/ {
        chatbot_pass %%API%%;
        chatbot_protocol openai;
        chatbot_clients clients;
        client_max_body_size 1k;
    }

    location /chat {
        chatbot_pass %%API%%;
    }

    location /limited {
        limit_req zone=all;
        chatbot_pass %%API%%;
        error_page 429 = \@too_many;
    }

    location \@too_many {
        add_header Retry-After 7 always;
        return 429 "wait";
    }

    location /limited/page {
        limit_req zone=all;
        chatbot_pass %%API%%;
        error_page 429 /told;
    }

    location /limited/any {
        limit_req zone=all;
        chatbot_pass %%API%%;
        chatbot_cors *;
        error_page 429 = \@too_many;
    }

    location /named {
        try_files /none \@chatbot;
    }

    location \@chatbot {
        chatbot_pass %%API%%;
    }

    # no chatbots

    location /app {
        try_files /none \@app;
    }

    location \@app {
        proxy_pass http://127.0.0.1:%%PORT_1%%;
    }

    location /old {
        try_files /none /told;
    }

    location /told {
        return 200 "no chatbot";
    }

    location /denied {
        deny all;
        chatbot_pass %%API%%;
    }

    location /any {
        chatbot_pass %%API%%;
        chatbot_cors *;
    }

    location /none {
        chatbot_pass %%API%%;
        chatbot_cors off;
    }

    location /page {
        return 200 "no chatbot";
    }
}

server {
    listen 127.0.0.1:%%PORT_1%%;
    server_name localhost;
    default_type text/html;
    types { text/javascript mjs js; }

    location = / {
        return 200 "<!doctype html><title>elsewhere</title>";
    }

    location /app {
        add_header Access-Control-Allow-Origin https://example.com;
        return 200 "backend";
    }

    location /sdk/ {
        alias $sdk/;
    }
}
EOF

open my $fh, '>', $t->dir . '/clients' or die $!;
print $fh "web sk-web\n";
close $fh;
$t->run;

my $here = 'http://localhost:' . $t->port(1);
my $stranger = 'https://evil.example';
my $asked = 'authorization,content-type,x-stainless-os';

# preflights

for my $uri (qw{ /v1/chat/completions /v1/models /chat /limited /denied
	/named })
{
	for (1 .. 3) {
		my $got = preflight($uri, $here);
		is(status($got), 204, "$uri, preflight");
		is(header($got, 'Access-Control-Allow-Origin'), $here, 'its origin');
		is(header($got, 'Access-Control-Allow-Headers'), $asked, 'headers');
		is(header($got, 'Access-Control-Allow-Methods'), 'GET, POST', 'methods');
		is(header($got, 'Vary'), 'Origin', 'Vary');
		unlike($got, qr/Allow-Credentials/i, 'no cookies');
	}
}
my $unknown = preflight('/chat', $stranger);
is(status($unknown), 204, 'of an unknown origin');
unlike($unknown, qr/Access-Control/i, 'which may do nothing');
is(header($unknown, 'Vary'), 'Origin', 'others may');
unlike(preflight('/chat', $_), qr/Access-Control/i, "origin $_") for 'null',
	"$here.evil.example", uc $here, 'http://localhost', 'https://example.com:444';
is(status(preflight('/none', $here)), 405, 'no preflight is known there');
is(header(preflight('/any', $stranger), 'Access-Control-Allow-Origin'), '*',
	'any');
is(status($t->http(raw('OPTIONS', '/chat', "Origin: $here"))), 405,
	'OPTIONS that is no preflight');

# requests

my @origin = ("Origin: $here");
my %got = (
	'an answer' => ask('hi', headers => \@origin),
	'a stream' => get('/chat?query=hi&stream=1', headers => \@origin),
	400 => get('/chat?query=%FF', headers => \@origin),
	502 => ask('[status 500]', headers => \@origin),
	401 => get('/v1/models', headers => \@origin),
	404 => get('/v1/nothing', headers => \@origin),
	405 => $t->http(raw('PUT', '/chat', @origin)),
	413 => post_json('x' x 2000, uri => '/v1/chat/completions',
		headers => \@origin),
	403 => get('/denied', headers => \@origin),
	200 => get('/v1/models', headers => [@origin, 'Authorization: Bearer sk-web']),
);
ask('hi', uri => '/limited');
$got{429} = ask('hi', uri => '/limited', headers => \@origin);
is(header($got{429}, 'Retry-After'), 7, '429, when to come again');
for my $name (sort keys %got) {
	is(status($got{$name}), $name, "status $name") if $name =~ /^\d/;
	is(header($got{$name}, 'Access-Control-Allow-Origin'), $here, "$name, origin");
	is(header($got{$name}, 'Vary'), 'Origin', "$name, Vary");
	like(header($got{$name}, 'Access-Control-Expose-Headers'),
		qr/Retry-After.*X-Request-ID/, "$name, exposed");
}
for ($stranger, 'null') {
	my $got = ask('hi', headers => ["Origin: $_"]);
	is(status($got), 200, "answered, origin $_");
	unlike($got, qr/Access-Control/i, 'but not for that page');
	is(header($got, 'Vary'), 'Origin', 'Vary');
}
is(header(ask('hi'), 'Vary'), 'Origin', 'Vary without an origin');
unlike(ask('hi'), qr/Access-Control/i, 'and nothing else');
my $any = ask('hi', uri => '/any', headers => ["Origin: $stranger"]);
is(header($any, 'Access-Control-Allow-Origin'), '*', 'any origin');
unlike($any, qr/Vary/, 'the same for all');
unlike(ask('hi', uri => '/none', headers => \@origin),
	qr/Access-Control|Vary/i, 'off');
unlike(get('/page', headers => \@origin), qr/Access-Control|Vary/i,
	'no chatbot');

# internal redirects

for ('/limited/page', '/limited/any') {
	my $got = ask('hi', uri => $_, headers => \@origin);
	is(status($got), 429, "$_, over the limit");
	is(header($got, 'Access-Control-Allow-Origin'), /any/ ? '*' : $here,
		'as the chatbot says');
}
is(header(ask('hi', uri => '/named', headers => \@origin),
	'Access-Control-Allow-Origin'), $here, 'to a chatbot');
for my $got (preflight('/app', $here), get('/app', headers => \@origin)) {
	is(body($got), 'backend', 'to no chatbot');
	is(join(' ', $got =~ /^Access-Control-\S+ (.*)\r$/mg),
		'https://example.com', 'its own header only');
}
unlike(get('/old', headers => \@origin), qr/Access-Control|Vary/i,
	'to another URI');

# nginx's own errors, from before it has found a location

my $long = get('/any?' . 'x' x 40000, headers => \@origin);
is(status($long), 414, 'a line too long');
is(header($long, 'Access-Control-Allow-Origin'), '*', 'any origin may read that');
is(decode_json(body(get('/v1/models?' . 'x' x 40000)))->{error}{type},
	'invalid_request_error', "in OpenAI's form");

# records

my $postgres = $t->postgres;
my $rows = sub { $postgres->sql('select count(*) from request_logs where'
	. " http_status = $_[0]") };
ok(wait_for { $rows->(403) }, 'refused ones are recorded');
is($rows->(204), 0, 'but no preflights');

# a browser

SKIP: {
	my $missing = Test::Chatbot::Browser::missing() // (-d $sdk ? undef : 'SDK');
	skip "no $missing", 1 if $missing;
	skip 'a browser beside a sanitizer is too slow', 1 if $ENV{CHATBOT_PRELOAD};

	my $browser = Test::Chatbot::Browser->new;
	$browser->open("$here/");
	my $said = decode_json($browser->value(in_page(<<'EOF')));
const { default: OpenAI } = await import("/sdk/index.mjs");
const client = (apiKey) => new OpenAI({ baseURL: API + "/v1", apiKey,
    maxRetries: 0, dangerouslyAllowBrowser: true });
const model = "gpt-6-luna", messages = [{ role: "user", content: "browser" }];

const reply = await client("sk-web").chat.completions.create({ model, messages });
said.text = reply.choices[0].message.content;
said.id = reply._request_id;

const stream = await client("sk-web").chat.completions.create({ model, messages,
    stream: true });
said.stream = "";
for await (const chunk of stream) said.stream += chunk.choices[0]?.delta?.content ?? "";

await client("sk-wrong").models.list().catch((error) => {
    said.wrong = error.status + " " + error.code; });

const limited = await fetch(API + "/limited?query=hi");
said.limited = limited.status + " " + limited.headers.get("retry-after");

said.none = await fetch(API + "/none?query=hi").then(() => "read", () => "refused");
said.any = await fetch(API + "/any", { method: "POST", body: '{"query":"any"}',
    headers: { "content-type": "application/json" } })
    .then((response) => response.json()).then((answer) => answer.source);

const events = new EventSource(API + "/chat?query=events&stream=1");
said.events = await new Promise((resolve) => events.addEventListener("done",
    (event) => { events.close(); resolve(JSON.parse(event.data).response); }));
EOF
	is($said->{failed}, undef, 'no exception');
	like($said->{text}, qr/^answer \d+: browser$/, 'an SDK in a page');
	like($said->{id}, qr/^[0-9a-f]{32}$/, 'its request id');
	like($said->{stream}, qr/^answer \d+: browser$/, 'a stream');
	is($said->{wrong}, '401 invalid_api_key', 'a wrong key');
	is($said->{limited}, '429 7', 'over the limit');
	is($said->{none}, 'refused', 'a location without');
	is($said->{any}, 'api', 'a location for all');
	like($said->{events}, qr/^answer \d+: events$/, 'EventSource');
}

# configurations

for ('""', 'example.com', 'https://', 'https://example.com/', 'null',
	'https://Example.com', 'https://*.example.com', '* https://a', 'https://a off')
{
	like($t->check(location($_)),
		qr/\[emerg\].*invalid origin ".*" in "chatbot_cors"/, "chatbot_cors $_");
}
for ('http://localhost:3000 https://a', 'http://[::1]:8080',
	'chrome-extension://abc', '*', 'off')
{
	like($t->check(location($_)), qr/test is successful/, "chatbot_cors $_");
}

done_testing();

###############################################################################

sub location { "location / {\nchatbot_pass http://a;\nchatbot_cors $_[0];\n}" }

sub raw {
	my ($method, $uri, @headers) = @_;
	return join "\r\n", "$method $uri HTTP/1.1", 'Host: localhost',
		'Connection: close', @headers, '', '';
}

sub preflight {
	my ($uri, $origin) = @_;
	return $t->http(raw('OPTIONS', $uri, "Origin: $origin",
		'Access-Control-Request-Method: POST',
		"Access-Control-Request-Headers: $asked"));
}

# A script that says what it found as JSON.
sub in_page {
	my ($script) = @_;
	my $api = 'http://127.0.0.1:' . $t->port;

	return "(async () => { const API = '$api', said = {};"
		. "try { $script } catch (error) { said.failed = String(error.stack); }"
		. 'return JSON.stringify(said); })()';
}
