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

location /steered {
    chatbot_pass %%API%%;
    chatbot_system_prompt "Steered.";
    chatbot_cache_control on;
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

# chatbot_cache_control

my $steered = sub {
	my ($text, $control, %opt) = @_;
	return request(GET => '/steered?query=' . $text =~ s/ /%20/gr, %opt,
		headers => $control ? ["Cache-Control: $control"] : []);
};
my $calls = $api->calls;
my $said = sub {
	my $got = $t->http($steered->(@_));
	return header($got, 'Cache-Status') =~ s/; ttl=\d+//r . ' '
		. (json($got)->{response} =~ /answer (\d+)/ && $1 - $calls);
};
is($said->('it'), 'chatbot; fwd=miss 1', 'a miss');
is($said->('it', 'no-cache'), 'chatbot; fwd=request 2', 'no-cache asks anew');
ok((wait_for { $said->('it') eq 'chatbot; hit 2' }), 'and keeps that');
is($said->('it', 'max-age=0'), 'chatbot; fwd=request 3', 'so does max-age=0');
ok((wait_for { $said->('it') eq 'chatbot; hit 3' }), 'and keeps that');
is($said->('it', 'max-age=60'), 'chatbot; hit 3', 'all else is nothing');
is($said->('it', 'no-store'), 'chatbot; fwd=request 4', 'no-store asks anew');
is($said->('it'), 'chatbot; hit 3', 'and keeps nothing');
is($said->('new', 'no-store'), 'chatbot; fwd=request 5', 'no-store');
is($said->('new'), 'chatbot; fwd=miss 6', 'kept nothing');
like(ask('[delay 1] the same', headers => ['Cache-Control: no-cache']),
	qr/"cache"/, 'only where it is on');

# Nobody joins an older flight by no-cache, nor any by no-store.
$calls = $api->calls;
my $first = dial();
print $first $steered->('[delay 1] steer');
wait_for { $api->calls > $calls };
@answers = many(map { $steered->('[delay 1] steer', $_) }
	('no-cache') x 3, ('no-store') x 2);
is($api->calls - $calls, 4, 'one call, one for all new ones, and two');
is(count(qr/ 200 .*fwd=request\r/s, @answers), 3, 'asked for these');
is(count(qr/ 200 .*fwd=request; collapsed\r/s, @answers), 2, 'and collapsed');
like(join('', readline $first), qr/ 200 .*fwd=miss\r/s, 'the first');
ok((wait_for { $postgres->sql(q{select string_agg(distinct cache_status, ' '
	order by cache_status) from request_logs where request_text like '%steer'})
	eq 'BYPASS COLLAPSED MISS' }), 'recorded');

done_testing();

###############################################################################

sub count {
	my ($re, @responses) = @_;
	return scalar grep { $_ =~ $re } @responses;
}
