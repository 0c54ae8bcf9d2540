#!/usr/bin/perl

# Equal requests of the API at once: the model is asked once, and each client
# gets all of it.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $t = Test::Chatbot->new(conf => <<'EOF')->run;
chatbot_model gpt-6-luna;
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
add_header X-Cache $chatbot_cache_status always;

location /v1/ {
    chatbot_pass %%API%%;
    chatbot_protocol openai;
}
EOF

my $json = JSON::PP->new->canonical->utf8;
my ($api, $postgres) = ($t->openai, $t->postgres);

# two hundred streams

my $question = '[delay 0.5] [slowstream 0.02] twelve words that each of them'
	. ' is to get one by one';
my @replies = many({ timeout => 30 }, (streamed($question)) x 200);
is(scalar(grep { status($_) == 200 } @replies), 200, 'all are answered');
is($api->calls, 1, 'by one call');
is(scalar(keys %{{ map { body($_) => 1 } @replies }}), 1, 'in the same words');
is(text($replies[0]), "answer 1: $question", 'in all of them');
like(body($replies[0]), qr/data: \[DONE\]\s+\z/, 'to the end');
cmp_ok(scalar(events($replies[0])), '>', 12, 'in pieces');

my %status;
$status{header($_, 'X-Cache')}++ for @replies;
is($status{MISS}, 1, 'one is a miss');
is(($status{COLLAPSED} // 0) + ($status{HIT} // 0), 199, 'the others are not');
is(wait_rows(200), 200, 'each is recorded');
is($postgres->sql('select count(distinct request_id), count(distinct'
	. ' response_text), bool_and(status <> \'error\') from request_logs'),
	'200|1|t', 'once');

# those that come while it is being written, with usage and without

my $slow = '[slowstream 0.1] ten words that are written while some are coming in';
my $first = dial();
syswrite $first, streamed($slow);
my $head = '';
sysread $first, $head, 4096, length $head or last
	until $head =~ /"content":"answer/;
@replies = many({ timeout => 30 },
	map { streamed($slow, $_ % 2 ? (stream_options =>
		{ include_usage => JSON::PP::true }) : ()) } 1 .. 50);
is($api->calls, 2, 'those that come later join it');
is(scalar(grep { text($_) eq "answer 2: $slow" } @replies), 50,
	'from its start to its end');
is(scalar(grep { /"usage":\{/ } @replies), 25, 'with usage where it is wanted');
is($api->max_in_flight, 1, 'never two calls');

# a failure is one for all

@replies = many((streamed('[delay 1] [status 400] no')) x 50);
is(scalar(grep { status($_) == 400 && json($_)->{error}{message} } @replies), 50,
	'all are told of an error');
is($api->calls, 3, 'which is of one call');
@replies = many((streamed('[status 200] [error message=oh] [delay 1]'
	. ' [slowstream 0.05] it breaks off')) x 50);
is(scalar(grep { /data: \{"error":/ && !/\[DONE\]/ } @replies), 50,
	'also in mid-stream');
is($api->calls, 4, 'of one call');

done_testing();

###############################################################################

sub streamed {
	my ($content, %more) = @_;

	return request('POST', '/v1/chat/completions',
		headers => ['Content-Type: application/json'],
		body => $json->encode({ model => 'gpt-6-luna', stream => JSON::PP::true,
			messages => [{ role => 'user', content => $content }], %more }));
}

sub events { map { /^data: (\{.*)/ ? decode_json($1) : () }
	split /\n\n/, body($_[0]) }

sub text { join '', map { $_->{choices}[0]{delta}{content} // '' } events(@_) }
