#!/usr/bin/perl

# The question in the arguments of a URI.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(http => <<'HTTP', conf => <<'EOF')->run;
large_client_header_buffers 4 64k;
HTTP

chatbot_redis off;

location /chat {
    chatbot_pass %%API%%;
}

location /small {
    chatbot_pass %%API%%;
    chatbot_query_max_size 16;
}

location /q {
    chatbot_pass %%API%%;
    chatbot_query $arg_q;
}

location /both {
    chatbot_pass %%API%%;
    chatbot_query "$arg_what of $http_x_thing?";
}

location /body {
    chatbot_pass %%API%%;
    chatbot_query $request_body;
}

location /fixed {
    chatbot_pass %%API%%;
    chatbot_query "What is new?";
}

location /key {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
    chatbot_cache_key $arg_key;
}

location /tenant {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
    chatbot_cache_key "$http_x_tenant $chatbot_query";
    add_header X-Query $chatbot_query;
}
EOF

# decoding

is(asked('query=hi'), 'hi', 'plain');
is(asked('query=a+b'), 'a b', 'plus');
is(asked('query=a%20b%2Bc%2bd'), 'a b+c+d', 'escapes');
is(asked('query=5%+of+10'), '5% of 10', 'no escape');
is(asked('query=%'), '%', 'broken escape, alone');
is(asked('query=a%2'), 'a%2', 'broken escape, at the end');
is(asked('query=%zz%4'), '%zz%4', 'broken escape, no digits');
is(asked('query=%%41%4%41'), '%A%4A', 'broken escape, followed by another');
is(asked('query=%2541'), '%41', 'decoded once');
is(asked('query=%E2%82%AC%e2%82%ac'), '€€', 'UTF-8');
is(asked("query=\xE2\x82\xAC"), '€', 'UTF-8, as it is');
is(asked('query=%F0%9F%99%82'), "\xF0\x9F\x99\x82", 'beyond the BMP');
is(asked('query=a%0D%0Ab'), "a\r\nb", 'lines');
is(asked('query=a%26b=c'), 'a&b=c', 'ampersand, equals sign');
is(asked('query=a;b?c/d'), 'a;b?c/d', 'other delimiters');

# names

is(asked('qu%65ry=hi'), 'hi', 'encoded name');
is(asked('a=1&query=hi&b=2'), 'hi', 'other arguments');
is(asked('&&query=hi&'), 'hi', 'empty arguments');
is(asked('query=one&query=two'), 'two', 'the last counts');
is(asked('query=one&query='), 422, 'the last counts, if empty too');
is(asked('Query=hi'), 422, 'letter case of the name');
is(asked('queryx=hi&xquery=hi'), 422, 'other names');

# none

is(status(get('/chat')), 422, 'none');
is(asked(''), 422, 'no arguments');
is(asked('query'), 422, 'no value');
is(asked('query='), 422, 'empty');
is(asked('query=+%20%09%0D%0A'), 422, 'blank');
is(asked('query=%C2%A0%E2%80%83%E3%80%80%E2%80%A8%C2%85'), 422,
	'blank, of Unicode');
is(asked('query=%C2%A0a%C2%A0'), "\xC2\xA0a", 'not blank');

# no text

is(asked('query=%FF'), 400, 'no UTF-8');
is(asked("query=\xE9"), 400, 'Latin-1');
is(asked('query=a%E2%82'), 400, 'cut short');
is(asked('query=%C0%AF'), 400, 'overlong');
is(asked('query=%E0%80%AF'), 400, 'overlong, three bytes');
is(asked('query=%ED%A0%80'), 400, 'surrogate');
is(asked('query=%ED%A0%BD%ED%B9%82'), 400, 'surrogate pair');
is(asked('query=%F4%90%80%80'), 400, 'beyond Unicode');
is(asked('query=%00'), 400, 'U+0000');
is(asked('query=a%00b'), 400, 'U+0000 within');

# size

is(asked('query=' . 'a' x 16, '/small'), 'a' x 16, 'largest');
is(asked('query=' . 'a' x 17, '/small'), 413, 'too large');
is(asked('query=' . '%61' x 16, '/small'), 'a' x 16, 'largest, encoded');
is(asked('query=' . '%D1%8F' x 8, '/small'), 'я' x 8, 'largest, of Unicode');
is(asked('query=' . '%D1%8F' x 9, '/small'), 413, 'too large, of Unicode');
is(asked('query=' . '%61' x 16384), 'a' x 16384, 'largest by default');
is(asked('query=' . '%61' x 16385), 413, 'too large by default');
is(asked('query=hi&a=' . 'a' x 20000), 'hi', 'a long URI');

# chatbot_query

is(asked('q=a+b%3F', '/q'), 'a b?', 'chatbot_query');
is(asked('query=hi', '/q'), 422, 'chatbot_query, empty');
is(asked('q=%FF', '/q'), 400, 'chatbot_query, no UTF-8');
is(asked('what=Size', '/both', headers => ['X-Thing: nginx']),
	'Size of nginx?', 'chatbot_query, of several variables');
is(received(post_json('What is it?', uri => '/body', type => 'text/plain')),
	'What is it?', 'chatbot_query, the body');
is(asked('', '/fixed'), 'What is new?', 'chatbot_query, fixed');

# chatbot_cache_key

is(cached('one', 1), 'one from api', 'chatbot_cache_key');
is(cached('two', 1), 'one from cache', 'chatbot_cache_key, the same');
is(cached('one', 2), 'one from api', 'chatbot_cache_key, another');
is(cached('one', ''), 'one from api', 'chatbot_cache_key, empty');
is(cached('two', ''), 'two from api', 'chatbot_cache_key, empty again');
is(cached('two', ''), 'two from api', 'an empty key is not cached');

is(of_tenant('a', 'Что?'), 'Что? from api', '$chatbot_query');
is(of_tenant('b', 'Что?'), 'Что? from api', 'another tenant');
is(of_tenant('a', 'Как?'), 'Как? from api', 'another question');
is(of_tenant('a', 'Что?'), 'Что? from cache', 'the same');
is(header(post_form({ query => 'x & y' }, uri => '/tenant'), 'X-Query'), 'x & y',
	'$chatbot_query, decoded');
is(header(post_form({ query => "100%\r\nX-Evil: 1\r\n\r\n" }, uri => '/tenant'),
	'X-Query'), '100%25%0D%0AX-Evil: 1%0D%0A%0D%0A',
	'$chatbot_query, no header of the client\'s');

done_testing();

###############################################################################

# The question that arrived at the API, as bytes; or the status.
sub asked {
	my ($args, $uri, %opt) = @_;
	return received(get(($uri // '/chat') . "?$args", %opt));
}

sub cached {
	my ($text, $key) = @_;
	return with_source(get("/key?query=$text&key=$key"));
}

sub of_tenant {
	my ($tenant, $text) = @_;
	return with_source(post_form({ query => $text }, uri => '/tenant',
		headers => ["X-Tenant: $tenant"]));
}

sub with_source { received($_[0]) . ' from ' . json($_[0])->{source} }
