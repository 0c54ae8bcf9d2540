#!/usr/bin/perl

# The question in the body of a POST.

use warnings;
use strict;

use Socket qw/ IPPROTO_TCP TCP_NODELAY /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
client_max_body_size 32k;

location /chat {
    chatbot_pass %%API%%;
}

location /file {
    chatbot_pass %%API%%;
    client_body_buffer_size 1k;
}

location /always_file {
    chatbot_pass %%API%%;
    client_body_in_file_only clean;
}

location /cached {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
}
EOF

# JSON

is(received(post_json({ query => 'hi' })), 'hi', 'JSON');
is(received(post_json('{"query": "\u20ac \ud83d\ude42\n\"a\""}')),
	"\xE2\x82\xAC \xF0\x9F\x99\x82\n\"a\"", 'JSON, escapes');
is(received(post_json('{"query": "a+b%20c"}')), 'a+b%20c',
	'JSON, not decoded twice');
is(received(post_json(" {\"a\": {\"query\": 1}, \"query\": \"hi\"}\n")), 'hi',
	'JSON, other members');
is(received(post_json({ query => 'hi' }, type => $_)), 'hi', "JSON, $_")
	for 'application/json; charset=utf-8', 'Application/JSON;x=y',
		'application/ld+json';

is(received(post_json($_)), 400, "no JSON: $_")
	for '{"query": "hi"', '{"query": "hi"} x', '{query: "hi"}', 'hi',
		"{'query': 'hi'}", '{"query": "a\u0000b"}', '{"query": "\ud800"}',
		'{"query": "\x41"}', '[]', '["query"]', '"hi"', 'null', '1';
is(received(post_json($_ x 2000)), 400, "no JSON: $_ many times")
	for '[', '{"query":';
is(received(post_json("{\"query\": \"\xFF\"}")), 400, 'JSON, no UTF-8');
is(received(post_json("{\"query\": \"a\0b\"}")), 400, 'JSON, U+0000');

is(received(post_json($_)), 422, "JSON without a question: $_")
	for '{}', '{"query": null}', '{"query": ""}', '{"query": " \u3000\t"}',
		'{"Query": "hi"}', '{"query": 1}', '{"query": true}',
		'{"query": ["hi"]}', '{"query": {"query": "hi"}}';

# forms

is(received(post_form({ query => "a b+c%d\xC3\xA9" })), "a b+c%d\xC3\xA9",
	'form');
is(received(post_form('query=5%+of+10')), '5% of 10', 'form, no escape');
is(received(post_form('a=1&query=one&query=two&b')), 'two',
	'form, the last counts');
is(received(post_form('query=hi', type =>
	'Application/X-WWW-Form-URLEncoded ; charset=UTF-8')), 'hi',
	'form, charset');
is(received(post_form($_)), 422, "form without a question: $_")
	for 'query=', 'query', 'a=b', 'query=+%0A';
is(received(post_form('query=%FF')), 400, 'form, no UTF-8');
is(received(post_form('query=%00')), 400, 'form, U+0000');
is(received(post_form('query=' . 'a' x 16385)), 413, 'form, too large');

# other types

is(received(post_json('{"query": "hi"}', type => $_)), 415, "type $_")
	for 'text/plain', 'application/jsonx', 'multipart/form-data; boundary=x',
		"application/json\xFF";
is(received(http(request('POST', '/chat', body => '{"query": "hi"}'))), 415,
	'no type');

# the argument

is(received(post_form('', uri => '/chat?query=arg')), 'arg', 'empty body');
is(received(http(request('POST', '/chat?query=arg'))), 'arg', 'no body');
is(received(post_json({}, uri => '/chat?query=arg')), 'arg', 'no member');
is(received(post_form('a=b', uri => '/chat?query=arg')), 'arg', 'no field');
is(received(post_json({ query => 'member' }, uri => '/chat?query=arg')),
	'member', 'argument and member');
is(received(post_form('query=field', uri => '/chat?query=arg')), 'field',
	'argument and field');
is(received(post_json({ query => '' }, uri => '/chat?query=arg')), 422,
	'argument and empty member');
is(received(post_json('{', uri => '/chat?query=arg')), 400,
	'argument and bad JSON');
is(received(http(request('GET', '/chat?query=arg', body => '{"query": "x"}',
	headers => ['Content-Type: application/json']))), 'arg', 'body of a GET');

# how the body arrives

my $long = 'long ' x 3000 . 'question';

is(received(post_json({ query => $long }, uri => '/file')), $long,
	'in a file');
is(received(post_form({ query => $long }, uri => '/file')), $long,
	'form in a file');
is(received(post_json({ query => 'hi' }, uri => '/always_file')), 'hi',
	'always in a file');
is(received(http(chunked('{"que', 'ry"', ': "hi"}'))), 'hi', 'chunked');
is(received(http(chunked("{\"query\": \"$long\"}" =~ /.{1,1000}/g))), $long,
	'chunked, long');
is(received(http(chunked(), timeout => 5)), 422, 'chunked, empty');
is(received(byte_by_byte(chunked('{"query": ', '"hi"}'))), 'hi',
	'byte by byte');
is(received(byte_by_byte(request('POST', '/file', body => 'query=slow+body',
	headers => ['Content-Type: application/x-www-form-urlencoded']))),
	'slow body', 'byte by byte, with a length');

is(received(post_form('query=hi&a=' . 'a' x 32768)), 413,
	'client_max_body_size');
is(received(http(chunked('x' x 16384, 'x' x 16385))), 413,
	'client_max_body_size, chunked');

# a client that leaves before it has asked

my $calls = $t->openai->calls;
my $socket = dial();
print $socket request('POST', '/chat', body => '{"query": "h')
	=~ s/Length: \d+/Length: 15/r;
close $socket;
is(received(post_json({ query => 'next' })), 'next', 'after half a body');
is($t->openai->calls, $calls + 1, 'half a body asks nothing');

# a question is the same however it is asked

like(get('/cached?query=How%3F'), qr/"api"/, 'GET');
like(post_json({ query => 'how?' }, uri => '/cached'), qr/"cache"/,
	'JSON, cached');
like(post_form({ query => 'HOW?' }, uri => '/cached'), qr/"cache"/,
	'form, cached');

done_testing();

###############################################################################

sub chunked {
	my (@chunks) = @_;

	return request('POST', '/chat', headers => ['Transfer-Encoding: chunked',
			'Content-Type: application/json'])
		. join('', map { sprintf "%x\r\n%s\r\n", length, $_ } @chunks)
		. "0\r\n\r\n";
}

sub byte_by_byte {
	my ($request) = @_;
	my $socket = dial();

	setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
	syswrite $socket, $_ for split //, $request;
	local $/;
	return scalar <$socket>;
}
