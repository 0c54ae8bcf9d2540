#!/usr/bin/perl

# The debugging log tells each step of a request, but no text of it.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

plan skip_all => 'nginx has no debugging log'
	unless `nginx -V 2>&1` =~ /--with-debug/;

my $t = Test::Chatbot->new(main => "error_log %%TEST%%/debug.log debug;\n",
	conf => <<'EOF')->run;
server {
    listen 127.0.0.1:%%PORT%%;

    chatbot_redis %%REDIS%%;
    chatbot_postgres %%POSTGRES%%;

    location /chat {
        chatbot_pass %%API%%;
    }
}
EOF

###############################################################################

like(ask('an unusual question'), qr/"api"/, 'from the model');
$t->wait_rows(1);
my $log = wait_for { $t->read('debug.log') =~ /batch committed/ && $t->read('debug.log') };

like($log, qr/chatbot\ question:\ 19\ bytes,\ 0\ messages.*
	chatbot\ key:\ [0-9a-f]{64}.*
	chatbot\ errand\ of\ flight\ 1.*
	chatbot\ flight\ 1:\ MISS.*
	chatbot\ event\ of\ flight\ 1:\ answered.*
	chatbot\ recorded:\ \d+\ bytes.*
	chatbot\ answer:\ MISS,\ problem\ 0.*
	http\ finalize\ request.*
	chatbot\ batch\ sent.*
	chatbot\ batch\ committed:\ 1\ rows,\ 0\ bytes\ refused/sx, 'all steps');

like(ask('an unusual question'), qr/"cache"/, 'from the cache');
like($t->read('debug.log'), qr/flight\ 2:\ MISS.*
	event\ of\ flight\ 2:\ hit.*
	answer:\ HIT/sx, 'a hit');

my @ours = grep { /chatbot (question|key|errand|flight|event|answer|batch)/ }
	split /\n/, $t->read('debug.log');
cmp_ok(scalar(@ours), '>', 10, 'our lines');
is(scalar(grep { /unusual|sk-test/ } @ours), 0,
	'no text, no key');

done_testing();
