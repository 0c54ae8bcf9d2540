#!/usr/bin/perl

# Equal questions in flight are asked once, the "chatbot_cache_lock" directive.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;

location /chat {
    chatbot_pass %%API%%;
}

location /pirate {
    chatbot_pass %%API%%;
    chatbot_system_prompt "You are a pirate.";
}

location /each {
    chatbot_pass %%API%%;
    chatbot_cache_lock off;
}
EOF

my ($api, $postgres) = ($t->openai, $t->postgres);

my @answers = many(('[delay 1] the same') x 200);
is(count(qr/^HTTP.* 200 .*"answer 1: \[delay 1\] the same", "source": "api"/s,
	@answers), 200, '200 answers');
is(count(qr/Cache-Status: chatbot; fwd=miss\r/, @answers), 1, 'MISS');
is(count(qr/Cache-Status: chatbot; fwd=miss; collapsed\r/, @answers), 199,
	'COLLAPSED');
is($api->calls, 1, 'one call');

is(wait_rows(200), 200, '200 rows');
is($postgres->sql('select cache_status, status, http_status, count(*)'
	. ' from request_logs group by 1, 2, 3 order by 1'),
	"COLLAPSED|success|200|199\nMISS|success|200|1", 'what they say');

like(ask('[delay 1] the same'), qr/"cache"/, 'then cached');

@answers = many('[delay 0.5] a Question', '[delay 0.5] A QUESTION');
is(count(qr/answer 2: .*"api"/, @answers), 2, 'letter case aside');

@answers = many(map { request(GET => "$_?query=[delay%200.5]%20it") }
	qw{ /chat /pirate });
is(count(qr/collapsed/, @answers), 0, 'not with another prompt');
is($api->calls, 4, 'two calls');

# a failure is for all that wait, and for nobody else

@answers = many(('[delay 1 x1] [status 400 x1] failure') x 50);
is(count(qr/^HTTP.* 502 /, @answers), 50, '50 failures');
is($api->calls, 5, 'one call that failed');
like(ask('[delay 1 x1] [status 400 x1] failure'),
	qr/ 200 .*fwd=miss\r.*answer 6: /s, 'asked anew');

# off

@answers = many((request(GET => '/each?query=[delay%200.5]%20each')) x 20);
is(count(qr/^HTTP.* 200 .*fwd=miss\r/s, @answers), 20, 'off');
is($api->calls, 26, 'off, a call each');

done_testing();

###############################################################################

sub count {
	my ($re, @responses) = @_;
	return scalar grep { $_ =~ $re } @responses;
}
