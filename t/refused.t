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
	http => "limit_req_zone \$server_name zone=one:1m rate=1r/m;\n",
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

like($t->check("location / {\nchatbot_pass http://a;\n"
	. "chatbot_log_refused $_;\n}"), qr/\[emerg\].*"chatbot_log_refused"/, $_)
	for 'maybe', 'on max=0/s', 'on max=5', 'off max=5/s', 'on 5/s';

done_testing();

###############################################################################

sub sql { $postgres->sql(@_) }
