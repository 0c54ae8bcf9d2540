#!/usr/bin/perl

# What is kept in Redis, for how long, and for whom.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
chatbot_redis %%REDIS%%;

location /chat {
    chatbot_pass %%API%%;
}

location /same {
    chatbot_pass %%API%%/;
    chatbot_api_key env:OPENAI_API_KEY;
    chatbot_timeout 10s;
    chatbot_system_prompt "You are a helpful assistant.";
}

location /model {
    chatbot_pass %%API%%;
    chatbot_model gpt-6-luna;
}

location /prompt {
    chatbot_pass %%API%%;
    chatbot_system_prompt "You are a poet.";
}

location /no_prompt {
    chatbot_pass %%API%%;
    chatbot_system_prompt "";
}

location /param {
    chatbot_pass %%API%%;
    chatbot_param temperature 0.5;
}

location /other_param {
    chatbot_pass %%API%%;
    chatbot_param top_p 0.5;
}

location /elsewhere {
    chatbot_pass %%API%%?elsewhere;
}

location /brief {
    chatbot_pass %%API%%;
    chatbot_cache_valid 1s;
}

location /long {
    chatbot_pass %%API%%;
    chatbot_cache_valid 1d;
}

location /tcp {
    chatbot_pass %%API%%;
    chatbot_redis redis://127.0.0.1:%%REDIS_PORT%%;
}

location /user {
    chatbot_pass %%API%%;
    chatbot_redis redis://bob:p%40ss%3A%2F@127.0.0.1:%%REDIS_PORT%%/3;
}

location /wrong {
    chatbot_pass %%API%%;
    chatbot_redis redis://bob:wr0ng@127.0.0.1:%%REDIS_PORT%%/4;
}

location /off {
    chatbot_pass %%API%%;
    chatbot_redis off;
}
EOF

my $redis = $t->redis;
$redis->cli(qw/ ACL SETUSER bob on >p@ss:\/ ~* +@all /);

# what is kept

# An answer is stored behind the client's back: once a lookup on the same
# connection finds it, it is there for all.

is(source('hi'), $_, "hi, $_") for qw/ api cache /;
my ($key, @others) = keys_of();
like($key, qr/^chatbot:[0-9a-f]{64}$/, 'key');
is(scalar @others, 0, 'one key');

my $value = decode_json($redis->cli('GET', $key));
is(join(' ', sort keys %$value),
	'completion_tokens created model prompt_tokens response', 'members');
is($value->{response}, 'answer 1: hi', 'response');
is($value->{model}, 'gpt-6-luna', 'model');
is("$value->{prompt_tokens} $value->{completion_tokens}", '1 4', 'tokens');
cmp_ok(abs(time() - $value->{created}), '<', 60, 'created');
like($redis->cli('TTL', $key), qr/^(3600|359\d)$/, 'chatbot_cache_valid');

# what is found

$redis->cli('SET', $key, '{"response": "put there \u2713", "model": "m",'
	. ' "created": ' . (time() - 100) . ', "prompt_tokens": 7,'
	. ' "completion_tokens": 8}');
my $reply = ask('hi');
is(json($reply)->{response}, "put there \x{2713}", 'found');
like(header($reply, 'Cache-Status'), qr/^chatbot; hit; ttl=(3500|349\d)$/,
	'ttl');

for my $value ('', 'nonsense', '{"response": "cut sh', '{}', '[]', 'null',
	'"hi"', '{"response": 1}', '{"response": null}', '{"response": ""}',
	"{\"response\": \"\xFF\"}", '{"response": "a\u0000b"}')
{
	$redis->cli('SET', $key, $value);
	is(source('hi'), 'api', "not an answer: $value");
	is(source('hi'), 'cache', "put right: $value");
}

$redis->cli('SET', $key, '{"response": "less"}');
is(json(ask('hi'))->{response}, 'less', 'no other members');
$redis->cli('DEL', $key);
$redis->cli('LPUSH', $key, 'x');
is(source('hi'), 'api', 'another type of value');
is(source('hi'), 'cache', 'another type of value, put right');

# other keys

is(source('hi', '/same'), 'cache', 'same model, prompt, parameters');
is(source('hi', $_), 'api', "$_ has its own")
	for qw{ /model /prompt /no_prompt /param /other_param /elsewhere };
is(source('hi', $_), 'cache', "$_ has its own, cached")
	for qw{ /chat /model /prompt /no_prompt /param /other_param
		/elsewhere };

# time

my @before = keys_of();
is(source('how long?', '/long'), $_, "long, $_") for qw/ api cache /;
my ($long) = grep { my $key = $_; !grep { $_ eq $key } @before } keys_of();
like($redis->cli('TTL', $long), qr/^863\d\d|86400$/, 'a day');

is(source('how brief?', '/brief'), 'api', 'a second');
ok((wait_for { source('how brief?', '/brief') eq 'api' } 5), 'is over');

# where

is(source('where?', '/tcp'), 'api', 'TCP');
is(source('where?', '/tcp'), 'cache', 'TCP, cached');
is(source('where?'), 'cache', 'unix socket, the same Redis');
is(source('where?', '/user'), 'api', 'user and database');
is(source('where?', '/user'), 'cache', 'user and database, cached');
like($redis->cli('-n', 3, 'KEYS', '*'), qr/^chatbot:\w{64}$/, 'database');
is(source('how?', '/wrong'), 'api', 'wrong password');
is(source('how?', '/wrong'), 'api', 'wrong password, again');
ok((wait_for { $t->error_log =~ /WRONGPASS/ }), 'wrong password, logged');
unlike($t->error_log, qr/wr0ng|p\@ss|p%40ss/, 'no password in the error log');
like(ask('off', uri => '/off'), qr/Cache-Status: chatbot; fwd=miss\r/, 'off');
is(source('off', '/off'), 'api', 'off, again');
is(source('off'), 'api', 'off, not kept');

$redis->cli('CONFIG', 'SET', 'requirepass', 'pa ss');
my $second = Test::Chatbot->new(with => $t, conf => <<'EOF')->run;
location /chat {
    chatbot_pass %%API%%;
    chatbot_redis redis://:pa%20ss@127.0.0.1:%%REDIS_PORT%%/0;
}
EOF

is($second->get('/chat?query=where%3F') =~ /"(cache|api)"/ && $1, 'cache',
	'another nginx with the password');
like($second->ask('second'), qr/"$_"/, "another nginx, $_") for qw/ api cache /;
is($t->get('/same?query=SECOND') =~ /"(cache|api)"/ && $1, 'cache',
	'and found by the first');

done_testing();

###############################################################################

sub source {
	my ($text, $uri) = @_;
	return json($t->ask($text, uri => $uri))->{source};
}

sub keys_of { split /\n/, $redis->cli('KEYS', '*') }
