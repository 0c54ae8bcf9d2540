#!/usr/bin/perl

# The configuration: what is refused, where values come from, what is inherited.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

###############################################################################

my $t = Test::Chatbot->new(openai => ['--models', 'http-2,server,location'],
	env => { OPENAI_BASE_URL => '%%API%%/env/', MY_KEY => "sk-test\r\n",
		MY_PROMPT => 'environment' },
	main => <<'MAIN', http => <<'HTTP', conf => <<'EOF');
thread_pool small threads=2;
MAIN
chatbot_thread_pool small;
chatbot_model http-1 http-2;
chatbot_system_prompt http;
chatbot_param user http;
chatbot_param seed 1;
HTTP
server {
    listen 127.0.0.1:%%PORT%%;
    chatbot_system_prompt server;

    location /http {
        chatbot_pass %%API%%;
    }

    location /prompt {
        chatbot_pass %%API%%;
        chatbot_system_prompt env:MY_PROMPT;
    }

    location /files {
        chatbot_pass file:%%TEST%%/url;
        chatbot_api_key file:key;
        chatbot_model file:model;
    }

    location /env {
        chatbot_pass env:OPENAI_BASE_URL;
        chatbot_api_key env:MY_KEY;
        chatbot_param user location;
    }

    location /if {
        chatbot_pass %%API%%;

        if ($arg_header) {
            add_header X-If yes;
        }

        if ($arg_other) {
            chatbot_pass %%API%%/other;
        }
    }

    location /limit_except {
        chatbot_pass %%API%%;

        limit_except GET {
            deny all;
        }
    }

    location /replaced {
        chatbot_pass %%API%%;

        if ($arg_old) {
            proxy_pass http://127.0.0.1:%%PORT_2%%;
        }

        limit_except GET {
            proxy_pass http://127.0.0.1:%%PORT_2%%;
        }
    }

    location /outer {
        chatbot_pass %%API%%/outer;
        chatbot_system_prompt outer;

        location /outer/inner {
            chatbot_pass %%API%%/inner;
        }

        location /outer/none {
            return 200 none;
        }
    }
}

server {
    listen 127.0.0.1:%%PORT_1%%;
    chatbot_model server;

    location / {
        chatbot_pass %%API%%;
    }
}

server {
    listen 127.0.0.1:%%PORT_2%%;
    return 200 old;
}
EOF

write_file('key', "\xEF\xBB\xBFsk-test\r\n");       # as Windows writes it
write_file('url', $t->openai->url . "/file\n");
write_file('model', "location\r\n\n");
$t->run;

# inheritance

is(sent(get('/http?query=hi')), '/v1 http-2 server [seed 1 user http]',
	'http and server');
is(sent(get('/?query=hi', port => port(1))),
	'/v1 server http [seed 1 user http]', 'another server');
is(sent(get('/prompt?query=hi')), '/v1 http-2 environment [seed 1 user http]',
	'location');
is(sent(get('/outer?query=hi')), '/v1/outer http-2 outer [seed 1 user http]',
	'outer location');
is(sent(get('/outer/inner?query=hi')),
	'/v1/inner http-2 outer [seed 1 user http]', 'inner location');
like(get('/outer/none'), qr/ 200 .*none$/s, 'chatbot_pass is not inherited');

# values from elsewhere

is(sent(get('/files?query=hi')), '/v1/file location server [seed 1 user http]',
	'files');
is(sent(get('/env?query=hi')), '/v1/env http-2 server [user location]',
	'environment');

# blocks without a name

is(sent(get('/if?query=hi')), '/v1 http-2 server [seed 1 user http]', 'if');
my $reply = get('/if?query=hi&header=1');
is(header($reply, 'X-If'), 'yes', 'if, header');
is(sent($reply), '/v1 http-2 server [seed 1 user http]', 'if, true');
is(sent(get('/if?query=hi&other=1')),
	'/v1/other http-2 server [seed 1 user http]', 'if, another URL');
is(sent(get('/limit_except?query=hi')), '/v1 http-2 server [seed 1 user http]',
	'limit_except');
like(post_json({ query => 'hi' }, uri => '/limit_except'),
	qr/ 403 .*problem\+json/s, 'limit_except, denied');

is(sent(get('/replaced?query=hi')), '/v1 http-2 server [seed 1 user http]',
	'with others');
is(body(get('/replaced?query=hi&old=1')), 'old', 'if, something else');
is(body(post_json({ query => 'hi' }, uri => '/replaced')), 'old',
	'limit_except, something else');

# reload

write_file('model', "no-such-model\nhttp-2");
ok($t->reload, 'reload');
is(sent(get('/files?query=hi')), '/v1/file http-2 server [seed 1 user http]',
	'reload, another value in a file');
{
	local $ENV{LSAN_OPTIONS} = 'detect_leaks=0';  # nginx itself leaks then
	is(capture($t->nginx->command('-s', 'reopen')), '',
		'nginx -s, from an environment without the variables');
}

# the names of the old service are enough

$t = Test::Chatbot->new(openai => ['--key', 'sk-env', '--models', 'my'],
	env => { OPENAI_API_KEY => 'sk-env', OPENAI_BASE_URL => '%%API%%',
		OPENAI_MODEL => 'my', REDIS_HOST => '127.0.0.1',
		REDIS_PORT => '%%REDIS_PORT%%', POSTGRES_HOST => '127.0.0.1',
		POSTGRES_PORT => '%%POSTGRES_PORT%%', POSTGRES_DB => "my'd\\b",
		POSTGRES_USER => 'me', POSTGRES_PASSWORD => 'it\'s a \\ secret' },
	conf => <<'EOF');
location /chat {
    chatbot_pass env:OPENAI_BASE_URL;
}
EOF

$t->postgres->sql($_) for 'create role me login', 'create database "my\'d\\b"'
	. ' owner me';
$t->run;

like(ask('hi'), qr/"api"/, 'environment, asked');
like(ask('hi'), qr/"cache"/, 'environment, cached');
my $url = $t->postgres->url('me', "my'd\\b");
ok((wait_for { $t->postgres->sql('select status, model from request_logs'
	. ' order by id', $url) eq "success|my\ncached|my" }),
	'environment, recorded');

# URLs in the environment, which come first

$t->stop;
$t->redis->cli('FLUSHALL');
$t->{env} = { OPENAI_API_KEY => 'sk-env', OPENAI_BASE_URL => '%%API%%',
	OPENAI_MODEL => 'no-such-model my', REDIS_URL => '%%REDIS%%', REDIS_HOST => '',
	DATABASE_URL => '%%POSTGRES%%', POSTGRES_HOST => '127.0.0.1' };
$t->run;

like(ask('hi'), qr/"api"/, 'URLs, asked; two models');
like(ask('hi'), qr/"cache"/, 'URLs, cached');
is(wait_rows(2), 2, 'URLs, recorded');

# what is accepted

write_file('blank', " \n");

accepts('');
accepts($_) for 'chatbot_redis off;', 'chatbot_postgres off;',
	'chatbot_postgres "";',
	'chatbot_redis redis://localhost;', 'chatbot_redis unix:/a/b;',
	'chatbot_redis redis://user:pass@[::1]:6380/15;',
	'chatbot_postgres "host=a password=\'b c\'";',
	'chatbot_postgres postgresql://a:b@c:1,d:2/e;',
	'chatbot_log_table a.b;', 'chatbot_log_table "Ä ö";',
	'chatbot_retries 0;', 'chatbot_ssl_verify off;',
	'chatbot_system_prompt "";', 'chatbot_cache_valid 30d;';

capture(qw/ openssl req -x509 -newkey rsa:2048 -nodes -subj \/CN=ca /,
	'-keyout', $t->dir . '/key.pem', '-out', $t->dir . '/ca.pem');
accepts("chatbot_ssl_trusted_certificate ${\$t->dir}/ca.pem;");
refuses("chatbot_ssl_trusted_certificate ${\$t->dir}/nginx.conf;",
	$t->dir . '/nginx.conf');
like(conf("chatbot_$_;"), qr/cannot be read \(21: Is a directory\)/,
	"why $_ cannot be read") for 'api_key file:/etc',
	'ssl_trusted_certificate /etc';

# what is refused, with directive and value

refuses("$_ x;", 'x') for map { "chatbot_$_" } qw/ query_max_size
	answer_max_size connect_timeout read_timeout timeout retries ssl_verify
	redis_timeout cache_valid cache_lock /;
refuses("$_ 0;", '0') for map { "chatbot_$_" } qw/ query_max_size
	answer_max_size connect_timeout read_timeout timeout redis_timeout
	cache_valid /;
refuses("$_ -1;", '-1') for map { "chatbot_$_" } qw/ query_max_size timeout
	retries cache_valid /;
refuses('chatbot_timeout 1000d;', '1000d');
refuses('chatbot_upstream_stream sometimes;', 'sometimes');
refuses('chatbot_answer_max_size 4g;', '4g');
refuses('chatbot_log_table a.b.c;', 'a.b.c');
refuses('chatbot_log_table "";', '');
refuses("chatbot_log_table 'a\"b';", 'a"b');
refuses("chatbot_log_table " . 'a' x 64 . ';', 'a' x 64);
refuses('chatbot_model "";', '');
refuses("chatbot_model a '\xff';", "\xff");
refuses("chatbot_model 'a\nb';", "a\nb");
refuses('chatbot_model file:blank;', '');
refuses('chatbot_model env:NO_SUCH_NAME;', 'NO_SUCH_NAME');
refuses('chatbot_api_key file:/not/there;', '/not/there');
refuses('chatbot_api_key file:/dev/null;', 'file:/dev/null');
refuses('chatbot_ssl_trusted_certificate /not/there;', '/not/there');
refuses("chatbot_$_", '/etc') for 'api_key file:/etc;', 'model a file:/etc;',
	'ssl_trusted_certificate /etc;';
refuses("chatbot_param $_ x;", $_) for qw/ model messages stream n /;
refuses('chatbot_param "" x;', '');
refuses('chatbot_param a 1 for=b;', 'for=b');
refuses("chatbot_set_header $_ x;", $_) for 'Host', 'a:b';
refuses("chatbot_set_header a 'secret\nb';");
refuses('chatbot_proxy me:secret@proxy;');
refuses("chatbot_param a '$_';", $_) for '01', '1.', '.5', '{a:1}', '[1,]', 'True';
refuses('chatbot_param a 1; chatbot_param a 2;', 'a');

# what is refused, with the directive alone

refuses("chatbot_redis $_;") for '""', 'localhost', 'redis://',
	'redis://me:secret@host:99999', 'redis://me:secret@host/x',
	'redis://:p@ss/secret#1@host', 'redis+cluster://:secret@host',
	'http://me:secret@host', 'unix:', 'unix:relative', 'unix:/a?db=1';
refuses("chatbot_postgres $_;") for 'secret', '"port=99999"',
	'"host=a,b port=1,2,3"', '"sslmode=maybe"', '"service=none"',
	'"password=secret x=y"', 'postgres://me:secret@host/?x=y',
	'postgres://me:secret@host:port/';
refuses("chatbot_api_key 'sk-secret\nmore';");
refuses("chatbot_system_prompt '\xff';");
refuses("chatbot_param a '\xff';");
refuses("$_;") for 'chatbot_model', 'chatbot_param a', 'chatbot_redis',
	'chatbot_nonsense on', 'chatbot_max_in_flight 1',
	'chatbot_thread_pool default', 'chatbot_log_journal off';

my %wrong = (
	'' => 'neither http:// nor https://',
	'api.openai.com/v1' => 'neither http:// nor https://',
	'ftp://host/v1' => 'neither http:// nor https://',
	'http://' => 'No host',
	'http://:80' => 'No host',
	'https:///v1' => 'no host',
	'http://host:abc/v1' => 'Port number',
	'http://host:70000' => 'Port number',
	'http://host/v1#secret' => 'a fragment',
	'http://me:secret@host/v1' => 'a user',
	'http://secret host' => 'a space',
	"http://secret\nhost" => 'a control character',
	"http://host/\tsecret" => 'a control character',
);
for my $pass (sort keys %wrong) {
	my $said = $t->check("location /chat {\nchatbot_pass '$pass';\n}");
	like($said, qr{\[emerg\].* \Q$wrong{$pass}\E.* in "chatbot_pass"},
		"chatbot_pass $pass");
	unlike($said, qr/secret/, "chatbot_pass $pass, no secret");
}

like($t->check("location / {\nchatbot_pass http://a;\n"
	. "chatbot_pass http://b;\n}"),
	qr/"chatbot_pass" directive is duplicate/, 'chatbot_pass twice');
like(conf("chatbot_$_ 1;\nchatbot_$_ 2;"),
	qr/"chatbot_$_" directive is duplicate/, "chatbot_$_ twice")
	for qw/ api_key model system_prompt query query_max_size answer_max_size
		connect_timeout read_timeout timeout retries cache_valid cache_key
		log_table redis_timeout /;
like(conf("chatbot_$_ off;\nchatbot_$_ off;"),
	qr/"chatbot_$_" directive is duplicate/, "chatbot_$_ twice")
	for qw/ redis postgres ssl_verify cache_lock /;

# where the directive stands, even if no location needs it

for my $wrong ('redis nonsense', 'postgres nonsense', 'log_table a.b.c') {
	my $said = $t->check("chatbot_$wrong;\nlocation / {\n}\n");
	my $line = line_of("chatbot_$wrong;");
	like($said, qr/\[emerg\].*check.conf:$line$/m, "line of $wrong");
}

like($t->check('chatbot_pass http://a;'), qr/not allowed here/,
	'chatbot_pass in a server');

# of http

for my $wrong ('max_in_flight 0', 'max_in_flight x', 'log_journal a b',
	'log_journal a max_size=x', 'log_journal a max_size=1k',
	'thread_pool no_such_pool')
{
	my ($value) = $wrong =~ /([^ =]+)$/;
	like(with_http("chatbot_$wrong;"), qr/\[emerg\].*"\Q$value\E"/, $wrong);
}

write_file('empty', "\n");
like(with_http("chatbot_log_journal $_;"),
	qr/\[emerg\].*"chatbot_log_journal"/, "log_journal $_")
	for '""', "file:${\$t->dir}/empty";
like(with_http("chatbot_log_journal empty;"),
	qr{\[emerg\].*"empty" of "chatbot_log_journal" is no directory in .*:\d},
	'log_journal a file');

like(with_http("chatbot_$_ a;\nchatbot_$_ b;"),
	qr/"chatbot_$_" directive is duplicate/, "chatbot_$_ twice")
	for qw/ log_journal thread_pool /;
like(with_http('chatbot_log_journal off;',
		'chatbot_postgres "host=a password=secret";'),
	qr/\[emerg\].*"chatbot_log_journal off".*"chatbot_postgres off"/,
	'PostgreSQL without a journal');
like(with_http('chatbot_log_journal off;', 'chatbot_postgres off;'),
	qr/test is successful/, 'neither');
like(with_http("chatbot_log_journal ${\$t->dir}/journal max_size=1m;"),
	qr/test is successful/, 'journal');

# the environment

is(scalar(() = without_key("limit_except GET { deny all; } if (\$arg_a) { }")
	=~ /no "chatbot_api_key"/g), 1, 'no key, one warning');
unlike(without_key('chatbot_api_key "";'), qr/warn/, 'no key is wanted');

{
	local @ENV{qw/ REDIS_URL DATABASE_URL OPENAI_MODEL POSTGRES_HOST
		REDIS_HOST OPENAI_BASE_URL /} = ('') x 6;
	like(conf(''), qr/test is successful/, 'empty names');
	like($t->check('location / { chatbot_pass env:OPENAI_BASE_URL; }'),
		qr/test is successful/, 'OPENAI_BASE_URL, by default');
}

for ([REDIS_URL => 'redis://me:secret@host/x'],
	[REDIS_URL => 'redis://:secret/x@host'], [REDIS_PORT => 'secret'],
	[REDIS_PORT => 2 ** 32 + 6379], [POSTGRES_PORT => 'tcp://secret:5432'],
	[DATABASE_URL => 'postgres://me:secret@host/?x=y'],
	[OPENAI_MODEL => "\xff secret"], [OPENAI_MODEL => "secret \xff"],
	[OPENAI_MODEL => ' '])
{
	my ($name, $value) = @$_;
	local @ENV{'REDIS_HOST', 'POSTGRES_HOST', $name} = ('host', 'host', $value);

	my $said = conf('');
	like($said, qr/\[emerg\].*"$name"/, "wrong $name");
	unlike($said, qr/secret/, "wrong $name, no secret");
}

done_testing();

###############################################################################

# What the API was asked last: path, model, system prompt, parameters.
sub sent {
	my ($reply) = @_;
	return $reply if status($reply) != 200;

	my $request = ($t->openai->requests)[-1];
	my %json = %{$request->{json}};
	my ($model, $messages) = delete @json{qw/ model messages /};
	delete @json{qw/ stream stream_options /};

	return join ' ', $request->{path} =~ s{/chat/completions$}{}r, $model,
		$messages->[0]{content}, '[' . join(' ', map { "$_ $json{$_}" }
			sort keys %json) . ']';
}

sub write_file {
	my ($name, $text) = @_;
	open my $fh, '>', $t->dir . "/$name" or die "$name: $!";
	print $fh $text;
	close $fh;
}

sub conf {
	my ($directives) = @_;
	return $t->check("location /chat {\nchatbot_pass http://127.0.0.1:1/v1;\n"
		. "$directives\n}");
}

# Of the configuration that was checked last.
sub line_of {
	my ($text) = @_;
	my @lines = split /\n/, $t->read('check.conf');
	return (grep { $lines[$_ - 1] eq $text } 1 .. @lines)[0] // 0;
}

sub without_key {
	local $t->{env}{OPENAI_API_KEY} = '';
	return conf("@_");
}

sub with_http {
	my ($directives, $location) = @_;
	local $t->{http} = $directives;
	return conf($location // '');
}

sub accepts {
	my ($directives) = @_;
	like(conf($directives), qr/test is successful/, "accepted: $directives");
}

sub refuses {
	my ($directives, $value) = @_;
	my ($name) = $directives =~ /^(\w+)/;
	my $said = conf($directives);

	like($said, qr/\[emerg\].*"$name"/s, "refused: $directives");
	like($said, qr/"\Q$value\E"/, "refused with its value: $directives")
		if defined $value;
	unlike($said, qr/secret/, "refused without secrets: $directives")
		if $directives =~ /secret/;
}
