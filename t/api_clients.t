#!/usr/bin/perl

# Clients of "chatbot_protocol openai": whose key is whose, what of a request
# goes upstream, and requests as programs send them that the tests cannot install.

use warnings;
use strict;

use Digest::SHA qw/ sha256_hex /;
use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF');
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_protocol openai;
chatbot_clients clients;
add_header X-Cache "$chatbot_cache_status $chatbot_user" always;

location /v1/ {
    chatbot_pass %%API%%;
}

location /own/ {
    chatbot_pass %%API%%;
    chatbot_cache_key "$chatbot_user $request_body";
}
EOF

my %key = (ann => 'key-of-ann', bob => 'key-of-bob', eve => 'a' x 1000);
open my $fh, '>', $t->dir . '/clients' or die $!;
print $fh "ann $key{ann}\n", 'bob sha256:' . sha256_hex($key{bob}) . "\n",
	"eve $key{eve}\n";
close $fh;
$t->run;

my $json = JSON::PP->new->canonical->utf8;
my ($api, $postgres) = ($t->openai, $t->postgres);

# keys are compared by their digests, as a whole

is(header(asked("hi from $_", $key{$_}), 'X-Cache'), "MISS $_", "the key of $_")
	for sort keys %key;
for my $key ('', 'key-of-an', 'key-of-anne', 'KEY-OF-ANN', 'a' x 999, 'a' x 1001,
	sha256_hex($key{bob}), 'sha256:' . sha256_hex($key{bob}),
	sha256_hex($key{ann}), 'ann', "$key{ann} $key{bob}", "$key{ann},$key{bob}") {
	my $refused = asked('hi', $key);
	is(status($refused), 401, 'no key: "' . substr($key, 0, 20) . '"');
	is(header($refused, 'WWW-Authenticate'), 'Bearer', 'what is expected');
	unlike($refused, qr/ann|bob|eve/, 'and nothing else');
}
is(status($t->http(chat('hi', $_))), 401, $_)
	for 'X-Api-Key: key-of-ann', 'Authorization: Basic a2V5LW9mLWFubg==',
		'Authorization: key-of-ann', 'Authorization: Bearerkey-of-ann',
		'Cookie: Authorization=Bearer key-of-ann';
is(status($t->http(chat('hi', $_))), 200, $_)
	for 'authorization: bearer key-of-ann', 'Authorization: Bearer   key-of-ann';

# two clients' requests are never mixed: on one connection, and all at once

my $connection = dial();
my @names = map { $_ % 3 ? 'ann' : 'bob' } 1 .. 40;
syswrite $connection, join '', map { chat("$names[$_ - 1] $_ on a connection",
	bearer($key{$names[$_ - 1]})) =~ s/Connection: close\r\n//r } 1 .. 40;
my $said = '';
wait_for { sysread $connection, $said, 65536, length $said;
	(() = $said =~ m{HTTP/1.1 200}g) == 40 };
is(join(' ', $said =~ /^X-Cache: MISS (\w+)/mg), "@names", 'on one connection');

my @at_once = many({ timeout => 30 },
	map { chat($_ % 2 ? "[delay 0.5] all the same" : "[delay 0.2] their $_",
		bearer($key{$_ % 4 < 2 ? 'ann' : 'bob'})) } 1 .. 100);
my @wrong = grep { header($at_once[$_ - 1], 'X-Cache')
	!~ ($_ % 4 < 2 ? qr/ ann$/ : qr/ bob$/) } 1 .. 100;
is("@wrong", '', 'all at once');
wait_rows(45 + 100 - 2);
is($postgres->sql("select count(*) filter (where request_text like '%all the"
	. " same' and client_name = 'ann'), count(*) filter (where request_text like"
	. " '%all the same' and client_name = 'bob') from request_logs"), '25|25',
	'who asked the same is recorded under his own name');
is($postgres->sql("select count(*) from request_logs where request_text ~"
	. " '^(ann|bob) ' and split_part(request_text, ' ', 1) <> client_name"), 0,
	'and so are the others');

# answers are shared, unless the key of the cache says who asks

my $shared = asked('Who am I?', $key{ann});
is(header(asked('Who am I?', $key{bob}), 'X-Cache'), 'HIT bob', 'shared');
for (qw/ ann bob /) {
	is(header(asked('Who am I?', $key{$_}, '/own'), 'X-Cache'), "MISS $_",
		"$_\'s own");
	ok(wait_for { header(asked('Who am I?', $key{$_}, '/own'), 'X-Cache')
		eq "HIT $_" }, 'which is found again');
}

# nothing of a client's headers goes upstream

my @before = $api->requests;
my @secrets = ('Cookie: secret=1', 'Origin: http://secret', 'Accept-Encoding: br',
	'User-Agent: secret', 'X-Forwarded-For: 192.0.2.7', 'X-Request-ID: secret',
	'OpenAI-Organization: secret', 'OpenAI-Project: secret', 'Expect: secret=1',
	'OpenAI-Beta: secret', 'Referer: http://secret', 'X-Stainless-Lang: secret',
	'Proxy-Authorization: Basic secret', 'Accept-Language: xx', 'Range: bytes=0-1');
asked('headers', $key{ann}, '/v1', @secrets);
my $received = ($api->requests)[-1];
unlike($json->encode($received), qr/secret|key-of|192\.0\.2\.7|\bbr\b|"xx"|range/i,
	'no header of the client');
is($received->{headers}{authorization}, 'Bearer sk-test', 'but our own key');
is(join(' ', sort keys %{ $received->{headers} }),
	join(' ', sort keys %{ $before[-1]{headers} }), 'none of them at all');

# as OpenAI's SDK for Python sends it

my $python = join "\r\n", 'POST /v1/chat/completions HTTP/1.1',
	'Host: localhost:8000', 'Accept-Encoding: gzip, deflate',
	'Connection: close', 'Accept: application/json',
	'Content-Type: application/json', 'User-Agent: OpenAI/Python 1.109.1',
	'X-Stainless-Lang: python', 'X-Stainless-Package-Version: 1.109.1',
	'X-Stainless-OS: Linux', 'X-Stainless-Arch: x64',
	'X-Stainless-Runtime: CPython', 'X-Stainless-Runtime-Version: 3.11.2',
	'Authorization: Bearer key-of-ann', 'X-Stainless-Async: false',
	'x-stainless-retry-count: 0', 'x-stainless-read-timeout: 600';
my $reply = with_body($python, '{"messages":[{"role":"user","content":"pythön"}],'
	. '"model":"gpt-6-luna"}');
like(json($reply)->{choices}[0]{message}{content}, qr/: pyth\x{f6}n$/, 'Python');
is(header($reply, 'Content-Encoding'), undef, 'as it is read');
$reply = with_body($python, '{"messages":[{"role":"user","content":"pythön"}],'
	. '"model":"gpt-6-luna","stream":true}');
is(header($reply, 'Content-Type'), 'text/event-stream', 'a stream');
like(body($reply), qr/\Adata: \{.*\n\ndata: \[DONE\]\n\n\z/s, 'to its end');
like(body(with_body($python =~ s{/chat/completions}{/responses}r,
	'{"input":"a response","model":"gpt-6-luna"}')), qr/"output_text"/,
	'responses.create');

# as Open WebUI does

my @webui = ('Host: chatbot', 'Authorization: Bearer key-of-ann',
	'Content-Type: application/json', 'X-OpenWebUI-User-Name: Ann',
	'X-OpenWebUI-User-Email: ann@example.com', 'Accept: */*',
	'Accept-Encoding: gzip, deflate, br', 'Connection: close',
	'User-Agent: Python/3.11 aiohttp/3.12.15');
my $models = json($t->http(join "\r\n", 'GET /v1/models HTTP/1.1', @webui, '', ''));
is($models->{data}[0]{id}, 'gpt-6-luna', 'Open WebUI, models');
my $webui = join "\r\n", 'POST /v1/chat/completions HTTP/1.1', @webui;
$reply = with_body($webui, '{"stream": true, "model": "gpt-6-luna", "messages": '
	. '[{"role": "user", "content": "in the web"}], "stream_options": '
	. '{"include_usage": true}, "temperature": 0.8, "max_tokens": 128}');
like($reply, qr/"usage":\{/, 'a chat, and its usage');
like(body($reply), qr/data: \[DONE\]\n\n\z/, 'to its end');
$reply = with_body($webui, '{"model": "gpt-6-luna", "messages": [{"role": "user",'
	. ' "content": "### Task:\nGenerate a concise title"}], "stream": false,'
	. ' "max_completion_tokens": 1000, "metadata": {"task": "title_generation"}}');
like(json($reply)->{choices}[0]{message}{content}, qr/title$/, 'a title');

done_testing();

###############################################################################

sub bearer { "Authorization: Bearer $_[0]" }

sub chat {
	my ($content, $auth, $uri, @headers) = @_;

	return request('POST', ($uri // '/v1') . '/chat/completions',
		headers => ['Content-Type: application/json', $auth, @headers],
		body => $json->encode({ model => 'gpt-6-luna',
			messages => [{ role => 'user', content => $content }] }));
}

sub asked { $t->http(chat($_[0], bearer($_[1]), @_[2 .. $#_])) }

sub with_body {
	my ($head, $body) = @_;
	return $t->http("$head\r\nContent-Length: " . length($body) . "\r\n\r\n$body");
}
