#!/usr/bin/perl

# Requests that were refused before they were a question are recorded, too.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(
	http => join("", map { "limit_req_zone \$uri zone=$_:1m rate=1r/m;\n" }
		qw/ one two /),
	conf => <<'EOF')->run;
chatbot_model gpt-6-luna;
chatbot_redis off;
chatbot_postgres %%POSTGRES%%;
chatbot_log_refused on max=3/s;

location /limited {
    chatbot_pass %%API%%;
    limit_req zone=one;
    limit_req_status 429;
}

location /chat {
    chatbot_pass %%API%%;
}

location /quiet {
    chatbot_pass %%API%%;
    chatbot_log_refused off;
}

location /other {
    return 404;
}

# as in the shipped nginx.conf, and with a page

location /elsewhere/ {
    chatbot_pass %%API%%;
    chatbot_log_refused on max=100/s;
    client_max_body_size 1k;
    limit_req zone=one;
    limit_req_status 429;
    error_page 413 429 = @told;

    location /elsewhere/page {
        chatbot_pass %%API%%;
        error_page 429 /told.html;
    }
}

location @told {
    return 429 "wait";
}

location = /told.html {
    internal;
    return 200 "wait";
}

# the second chatbot refuses what the first was asked in vain

location /first {
    chatbot_pass http://127.0.0.1:%%PORT_1%%;
    chatbot_retries 0;
    error_page 503 = @second;
}

location @second {
    chatbot_pass %%API%%;
    chatbot_log_refused on max=100/s;
    limit_req zone=two;
    limit_req_status 429;
}
EOF

my $postgres = $t->postgres;

is(status(ask('first', uri => '/limited')), 200, 'let in');
my $refused = ask('second', uri => '/limited');
is(status($refused), 429, 'refused');
is(wait_rows(2), 2, 'both are recorded');
is(sql('select ip_address, status, http_status, response_text, model is null'
	. " from request_logs where request_text = 'second'"),
	'127.0.0.1|error|429|Error: Too many requests, try again later.|t',
	'the row');
is(sql("select request_id from request_logs where request_text = 'second'"),
	header($refused, 'X-Request-ID'), 'its id');

get($_) for '/chat', '/quiet?query=', '/other?query=x', '/chat?query=%FF';
ask('last');
is(wait_rows(5), 5, 'others are not');
is(sql("select string_agg(request_text || ' ' || http_status, ', ' order by id)"
	. ' from request_logs'),
	'first 200, second 429,  422,  400, last 200', 'what is recorded');

# no flood of them

sql('delete from request_logs');
many(map { request(GET => '/chat?query=') } 1 .. 50);
ask('after the flood');
ok(wait_for { sql("select count(*) from request_logs where request_text ="
	. " 'after the flood'") }, 'after the flood');
cmp_ok(sql('select count(*) from request_logs where http_status = 422'), '<',
	25, 'only some are recorded');

# error_page leads to another location

sql('delete from request_logs');
ask("$_, page", uri => '/elsewhere/page') for 1, 2;
ask("$_, named", uri => '/elsewhere/') for 1, 2;
get('/elsewhere/?query=large', body => 'x' x 2000);
is(wait_rows(5), 5, 'recorded all the same');
is(sql("select string_agg(request_text || ' ' || http_status, ', ' order by id)"
	. ' from request_logs'), '1, page 200, 2, page 429, 1, named 200,'
	. ' 2, named 429, large 429', 'as what the client was told');

get('/elsewhere/?query=' . 'x' x 40000);
is(wait_rows(6), 6, 'so is an error from before a location is found');
is(sql('select request_text, http_status from request_logs order by id desc'
	. ' limit 1'), '|414', 'without the question');

my @asked = map { header(ask($_, uri => '/first'), 'X-Request-ID') } 1, 2;
is(wait_rows(10), 10, 'asked in vain');
is(sql("select string_agg(request_id || ' ' || http_status, ', ' order by id)"
	. " from request_logs where request_id like '$asked[1]%'"),
	"$asked[1] 503, $asked[1]-2 429", 'and refused by another chatbot');

like($t->check("location / {\nchatbot_pass http://a;\n"
	. "chatbot_log_refused $_;\n}"), qr/\[emerg\].*"chatbot_log_refused"/, $_)
	for 'maybe', 'on max=0/s', 'on max=5', 'off max=5/s', 'on 5/s';

done_testing();

###############################################################################

sub sql { $postgres->sql(@_) }
