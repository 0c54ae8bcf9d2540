#!/usr/bin/perl

# What is told of a call of the model, by variables and in the row: first byte,
# tokens, attempts, the server, and its own id of the request.

use warnings;
use strict;

use JSON::PP qw/ encode_json /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Upstream;

###############################################################################

my $usage = 'data: ' . encode_json({ choices => [],
	usage => { prompt_tokens => 50, completion_tokens => 40,
		prompt_tokens_details => { cached_tokens => 30 },
		completion_tokens_details => { reasoning_tokens => 20 } } })
	. "\n\n";

my $upstream = Test::Chatbot::Upstream->new(sub {
	my ($request) = @_;
	my $question = $request->{question};
	my @id = ("x-request-id: req_$request->{nth}");

	return failing(500, { error => { message => 'sorry' } }, @id)
		if $question =~ /broken/ || $question =~ /shaky/ && $request->{nth} == 1;
	return if $question =~ /nothing/;
	return whole(completion('in one piece'), headers => ['request-id: req_whole'])
		if $question =~ /whole/;
	return head(qq(x-request-id: \xff\xfe "a\tb" sk-report ) . 'x' x 300),
		delta('hello', finish_reason => 'stop'), "data: [DONE]\n\n"
		if $question =~ /odd/;
	return head(@id), delta(''), delta("\n"), 0.3, delta('hello'), 0.3,
		delta('', finish_reason => 'stop'), $usage, "data: [DONE]\n\n";
});

my $t = Test::Chatbot->new(http => <<"HTTP", conf => <<'CONF' =~ s/%%URL%%/$upstream->url/er)->run;
log_format report '\$arg_query|\$chatbot_first_byte_time|\$chatbot_upstream_time';
chatbot_upstream team {
    server ${\$upstream->url}?secret=7;
}
chatbot_redis %%REDIS%%;
chatbot_postgres %%POSTGRES%%;
chatbot_model m;
chatbot_api_key sk-report;
chatbot_retries 1;
HTTP
server {
    listen 127.0.0.1:%%PORT%%;
    access_log %%TEST%%/access.log report;

    add_header X-Report "$chatbot_cached_tokens|$chatbot_reasoning_tokens|$chatbot_attempts|$chatbot_upstream|$chatbot_upstream_request_id" always;

    location /chat {
        chatbot_pass %%URL%%?secret=7;
    }

    location /team {
        chatbot_pass team;
    }
}
CONF

my $url = $upstream->url;
my $place = $url =~ s!http://!!r;

# a stream: the first byte is one of text

is(report('stream'), "30|20|1|$url|req_1", 'variables');
is(row('stream'), "30|20|1|$url|req_1", 'row');
my ($first, $took) = times_of('stream');
cmp_ok($first, '>=', 0.3, 'white space is no text');
cmp_ok($took - $first, '>=', 0.1, 'and the end is not the first byte');
is(column('first_byte_ms', 'stream'), $first * 1000, 'first byte in the row');

# from the cache: there was no call

is(report('stream'), '', 'a hit');
is(column("coalesce(first_byte_ms, attempts)::text || upstream", 'stream',
	'cached'), '', 'row of a hit');

# attempts

is(report('shaky'), "30|20|2|$url|req_2", 'the second call answered');
is(report('broken'), "||2|$url|req_2", 'both failed');
is(row('broken'), "||2|$url|req_2", 'row of a failure');
is((times_of('broken'))[0], '-', 'no text came');
is(column('first_byte_ms', 'broken'), '', 'nor in the row');

is(report('nothing'), "||2|$url|", 'no reply, no id');

# a reply in one piece, by a server of a "chatbot_upstream"

is(report('whole', '/team'), "||1|team/1 ($place)|req_whole", 'in one piece');
like((times_of('whole'))[0], qr/^\d\.\d{3}$/, 'its first byte');

# what an upstream calls its request is not trusted

like(report('odd'), qr/^\|\|1\|\Q$url\E\|"ab"\*\*\*x{87}$/,
	'a short text of visible ASCII, without the key');
like(row('odd'), qr/\|"ab"\*\*\*x{87}$/, 'the same in the row');

unlike($t->error_log . $t->read('access.log'), qr/secret/, 'nor is the query told');

done_testing();

###############################################################################

sub head {
	return join "\r\n", 'HTTP/1.1 200 OK', 'Content-Type: text/event-stream',
		'Connection: close', @_, '', '';
}

sub report {
	my ($question, $uri) = @_;
	return header(ask($question, uri => $uri // '/chat'), 'X-Report')
		=~ s/^\|+$//r;
}

# What the row of the question says.
sub column {
	my ($what, $question, $status) = @_;
	my $where = "from request_logs where request_text = '$question'"
		. ($status ? " and status = '$status'" : " and status <> 'cached'");

	wait_for { $t->postgres->sql("select count(*) $where") };
	return $t->postgres->sql("select $what $where");
}

sub row {
	return column('cached_tokens, reasoning_tokens, attempts, upstream,'
		. ' upstream_request_id', @_);
}

# First byte and end, of the first such line of the access log.
sub times_of {
	my ($question) = @_;
	my @times;

	wait_for {
		@times = $t->read('access.log') =~ /^$question\|(.*)\|(.*)$/m };
	return @times;
}
