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
chatbot_history 0;
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

location /large {
    client_max_body_size 1m;
    chatbot_pass %%API%%;
}

location /tiny {
    chatbot_pass %%API%%;
    chatbot_query_max_size 1;
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
is(received(post_json("\xEF\xBB\xBF{\"query\": \"hi\"}")), 'hi',
	'JSON, byte order mark');
is(received(post_json({ query => 'hi' }, type => $_)), 'hi', "JSON, $_")
	for 'application/json; charset=utf-8', 'Application/JSON;x=y',
		'application/ld+json', 'application/json ;a; charset="UTF-8"';

is(received(post_json($_)), 400, "no JSON: $_")
	for '{"query": "hi"', '{"query": "hi"} x', '{query: "hi"}', 'hi',
		"{'query': 'hi'}", '{"query": "a\u0000b"}', '{"query": "\ud800"}',
		'{"query": "\x41"}', '[]', '["query"]', '"hi"', 'null', '1';
is(received(post_json($_ x 2000)), 400, "no JSON: $_ many times")
	for '[', '{"query":';
is(received(post_json("{\"query\": \"\xFF\"}")), 400, 'JSON, no UTF-8');
is(received(post_json("{\"query\": \"a\0b\"}")), 400, 'JSON, U+0000');

is(received(post_json($_)), 400, "not by RFC 8259: $_")
	for '{"query": "hi",}', '{"query": "hi", "a": 01}', '{"query": "hi", "a": 1.}',
		'{"query": "hi", "a": [1,]}', '{"query": "hi", "a": NaN}',
		"{\"query\": \"a\tb\"}", "{\"query\": \"a\nb\"}", '{"query": "hi"}}',
		'{"query": "hi" /* */}', "\xEF\xBB\xBF\xEF\xBB\xBF{\"query\": \"hi\"}";
like(post_json('{"query": "cut emoji \ud83d"}'),
	qr/ 400 .*half of a surrogate pair at byte 21\./s, 'JSON, the reason');
like(post_json('{"query": "hi", "a": [' . '0,' x 12000 . '0]}'),
	qr/ 400 .*too many values/s, 'JSON, values are counted');

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

# forms of several parts

is(received(post_parts(part("a b+c%20\r\n\xC3\xA9"))), "a b+c%20\r\n\xC3\xA9",
	'parts');
is(received(post_parts(part('one') . part('two') . part('x', 'other'))), 'two',
	'parts, the last counts');
is(received(post_parts(part('x', 'other'), uri => '/chat?query=arg')), 'arg',
	'parts, no field');
is(received(post_parts(part('hi'), type => 'Multipart/Form-Data;'
	. ' charset=utf-8; boundary="--x:y"')), 'hi', 'parts, quoted boundary');
is(received(post_parts(part($_))), 422, 'parts, blank') for '', " \r\n";
is(received(post_parts(part("\xFF"))), 400, 'parts, no UTF-8');
is(received(post_parts(part("a\0b"))), 400, 'parts, U+0000');
like(post_parts(part('hi'), type => 'multipart/form-data'),
	qr/ 400 .*no valid boundary/s, 'parts, no boundary');
like(post_parts(part('hi'), type => 'multipart/form-data; boundary=other'),
	qr/ 400 .*boundary/s, 'parts, another boundary');
like($t->post(part('hi'), 'multipart/form-data; boundary="--x:y"'),
	qr/ 400 .*closing delimiter/s, 'parts, cut off');

# other types

is(received(post_json('{"query": "hi"}', type => $_)), 415, "type $_")
	for 'text/plain', 'application/jsonx', "application/json\xFF",
		'application/json; charset=utf-16', 'application/json;charset=latin1';
is(received(post_form('query=hi', type => 'application/x-www-form-urlencoded;'
	. ' charset=ISO-8859-1')), 415, 'form, another charset');
is(received(post_parts(part('hi', 'query',
	"Content-Type: text/plain; charset=koi8-r\r\n"))), 415,
	'parts, another charset');
is(received(post_parts(part('hi', 'query', "$_\r\n"))), 'hi', "parts, $_")
	for 'Content-Type: text/plain', 'content-type:text/plain;charset=utf-8',
		'Content-Transfer-Encoding: binary';
is(received(post_parts(part('aGk=', 'query',
	"Content-Transfer-Encoding: base64\r\n"))), 415, 'parts, base64');

# compressed

like(encoded($_), qr/ 415 .*Content-Encoding/s, "Content-Encoding: $_")
	for 'gzip', 'br', 'identity, gzip', 'x';
is(received(encoded($_)), 'hi', "Content-Encoding: $_")
	for 'identity', 'Identity';
is(received(http(request('POST', '/chat?query=arg',
	headers => ['Content-Encoding: gzip']))), 'arg', 'Content-Encoding, no body');
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

# larger than any question: refused before it is read, or parsed

my $large = '{"query": "hi", "a": "' . 'a' x 114_664 . '"}';

is(length $large, 114_688, 'the longest body');
is(received(post_json($large, uri => '/large')), 'hi', 'the longest body');
like(post_json("$large ", uri => '/large'), qr/ 413 .*than 114688 bytes/s,
	'one byte longer');
like(http(request('POST', '/large', body => '') =~ s/h: 0/h: 114689/r),
	qr/ 413 /, 'refused before it is read');
like(http(request('POST', '/large', headers => ['Expect: 100-continue'],
	body => '') =~ s/h: 0/h: 114689/r), qr{^HTTP/1.1 413 }, 'not asked for');
like(http(chunked("$large " =~ /.{1,5000}/gs) =~ s{/chat}{/large}r),
	qr/ 413 .*than 114688 bytes/s, 'longer, chunked');
is(received(http(chunked($large =~ /.{1,5000}/gs) =~ s{/chat}{/large}r)), 'hi',
	'the longest body, chunked');

is(received(post_json('{"query": "\u0061", "a": "' . 'a' x 16_000 . '"}',
	uri => '/tiny')), 'a', 'a small limit');
like(post_form('query=a&a=' . 'a' x 16_400, uri => '/tiny'),
	qr/ 413 .*than 16390 bytes/s, 'a small limit, longer');

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

sub encoded {
	return post_json({ query => 'hi' }, headers => ["Content-Encoding: $_[0]"]);
}

# A form of these parts, with options of Test::Chatbot::post().
sub post_parts {
	my ($parts, %opt) = @_;
	return $t->post("$parts----x:y--\r\n",
		$opt{type} // 'multipart/form-data; boundary=--x:y', %opt);
}

sub part {
	my ($value, $name, $header) = @_;
	$name //= 'query';
	$header //= '';
	return "----x:y\r\nContent-Disposition: form-data; name=\"$name\"\r\n"
		. "$header\r\n$value\r\n";
}

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
