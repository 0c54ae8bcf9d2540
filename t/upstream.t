#!/usr/bin/perl

# Several servers of an API: weights, the breaker, backup, spent keys; what a
# server does not take; and which blocks are refused.

use warnings;
use strict;

use JSON::PP qw/ encode_json /;
use List::Util qw/ sum0 /;
use Test::More;
use Time::HiRes qw/ time /;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Upstream;

###############################################################################

my $answer = sub {
	my ($request) = @_;
	my $mode = $request->{mode};
	my %sent = %{$request->{json}};

	return 600 if $mode eq 'frozen';
	return failing(429, { error => { message => 'slow down' } })
		if $mode eq 'busy';
	return failing(429, { error => { code => 'insufficient_quota' } },
		'Retry-After: 1000') if $mode eq 'spent';
	return failing(404, { error => { code => 'model_not_found' } })
		if $sent{model} eq 'missing';
	return failing(400, { error => { code => 'unsupported_parameter',
		param => $_, message => "Unsupported: '$_'" } })
		for grep { exists $sent{$_} } split ' ', $mode;
	return whole(completion("by $sent{model}"));
};
my ($one, $two, $spare) = map { Test::Chatbot::Upstream->new($answer) } 1 .. 3;

my $t = Test::Chatbot->new(http => <<"HTTP", conf => <<'CONF')->run;
chatbot_redis off;
chatbot_postgres off;
chatbot_read_timeout 3s;
chatbot_upstream both {
    server ${\$one->url} key=key-1 max_fails=1 fail_timeout=2s;
    server ${\$two->url}/chat/completions key=key-2 models="missing two";
    server ${\$spare->url} backup;
}
chatbot_model m;
HTTP
location /chat {
    chatbot_pass both;
    add_header X-Attempts $chatbot_attempts;
}

location /params {
    chatbot_pass both;
    chatbot_param seed 1;
    chatbot_param top_p 0.5 model=two;
    chatbot_param top_p 0.7;
    chatbot_set_header X-Team 'a b';
    chatbot_set_header api-key secret-7;
}
CONF

# spread

like(ask("first $_"), qr/"by (m|two)"/, 'answered') for 1 .. 8;
is(calls(), '4 5 0', 'both asked, and a missing model once');
my ($first) = $one->requests;
my ($last) = reverse $two->requests;
is("$first->{headers}{authorization} $first->{json}{model}", 'Bearer key-1 m',
	'key and model of the location');
is("$last->{headers}{authorization} $last->{json}{model}", 'Bearer key-2 two',
	'key and model of the server');

# one is gone

$one->stop;
is(served(20), 20, 'one killed, all answered');
is((split ' ', calls())[2], 0, 'no call for the backup');
like($t->error_log, qr/\[warn\].* server both\/1 \(\S+\) is not asked for 2 s/,
	'and it is told');
$one->start;
ok(back_again(), 'it is asked again');
like($t->error_log, qr/\[notice\].* server both\/1 \(\S+\) is asked again/,
	'and that is told');

# one is frozen

$one->mode('frozen');
reset_calls();
is(served(20), 20, 'one frozen, all answered');
cmp_ok($one->calls, '<=', 20, 'it got the first calls only');
reset_calls();
is(served(10), 10, 'later ones, too');
cmp_ok($one->calls, '<=', 1, 'and is tried by one call');
$one->mode('');
ok(back_again(), 'it is asked again');

# one says 429

$one->mode('busy');
reset_calls();
is(served(20), 20, 'one busy, all answered');
reset_calls();
is(served(10), 10, 'later ones, too');
cmp_ok($one->calls, '<=', 1, 'and it is tried by one call');
$one->mode('');
ok(back_again(), 'it is asked again');

# a key without money

$one->mode('spent');
reset_calls();
ask("spend $_") for 1 .. 4;
is(calls(), '1 4 0', 'a spent key is asked once');
like($t->error_log, qr/is not asked for 1000 s/, 'until its reset');
$two->mode('spent');
reset_calls();
is(served(1), 1, 'both spent, the backup answers');
is((split ' ', calls())[2], 1, 'backup');

# parameters

ok($t->reload, 'a new worker');
$_->mode('') for $one, $two;
reset_calls();
ask("params $_", uri => '/params') for 1 .. 2;
my ($of_one) = $one->requests;
my ($of_two) = grep { $_->{json}{model} eq 'two' } $two->requests;
is("$of_one->{json}{seed} $of_one->{json}{top_p}", '1 0.7', 'for all models');
is("$of_two->{json}{seed} $of_two->{json}{top_p}", '1 0.5', 'for one model');
is("$of_one->{headers}{'x-team'} $of_one->{headers}{'api-key'}",
	'a b secret-7', 'headers');

$one->mode('seed top_p stream_options');
$two->mode('seed');
reset_calls();
ask("refused $_", uri => '/params') for 1 .. 4;
is(calls(), '5 3 0', 'refused members are left out, each is refused once');
($last) = reverse $one->requests;
is(join(' ', sort keys %{$last->{json}}), 'messages model stream',
	'nothing else is');
is(() = $t->error_log =~ /\[warn\].*"seed" is left out for model "m"/g, 1,
	'and it is told once');
unlike($t->error_log, qr/secret-7|key-[12]/, 'no secret in the log');

# blocks that are refused

my $server = 'server http://127.0.0.1:1;';
my %wrong = (
	'chatbot_upstream a { }' => 'no server in "chatbot_upstream" "a"',
	'chatbot_upstream a { server http://b backup; }' => 'that is no backup',
	"chatbot_upstream 'a/b' { $server }" => 'invalid name "a/b"',
	"chatbot_upstream a { $server } chatbot_upstream a { $server }"
		=> 'duplicate "chatbot_upstream" "a"',
	'chatbot_upstream a { listen 80; }' => 'unknown directive "listen"',
	'chatbot_upstream a { server; }' => 'no URL in "server"',
	'chatbot_upstream a { server b; }'
		=> 'neither http:// nor https:// in the URL of "server"',
	'chatbot_upstream a { server http://b weight=0; }'
		=> 'invalid parameter "weight=0" of "server": a number from 1',
	'chatbot_upstream a { server http://b max_fails=x; }'
		=> 'invalid parameter "max_fails=x" of "server": a number',
	'chatbot_upstream a { server http://b fail_timeout=x; }'
		=> 'invalid parameter "fail_timeout=x" of "server": a time',
	'chatbot_upstream a { server http://b keys=secret; }'
		=> 'unknown parameter "keys" of "server"',
	'chatbot_upstream a { server http://b key=; }' => 'no key',
	'chatbot_upstream a { server http://b key=env:NO_SUCH; }'
		=> 'environment variable "NO_SUCH"',
	'chatbot_upstream a { server http://b models=; }'
		=> 'names of models are expected',
	'chatbot_upstream a { server http://b { } }' => 'unexpected "{"',
);
for my $block (sort keys %wrong) {
	my $said = checked($block, 'return 200;');
	like($said, qr/\[emerg\].*\Q$wrong{$block}\E/, $block);
	unlike($said, qr/secret/, 'no secret') if $block =~ /secret/;
}
like(checked('', 'chatbot_pass nowhere;'),
	qr/\[emerg\].*no "chatbot_upstream" "nowhere" for "chatbot_pass"/,
	'no such upstream');
unlike(checked("chatbot_upstream a.b-c { $server }", 'chatbot_pass a.b-c;'),
	qr/emerg/, 'a good one');

done_testing();

###############################################################################

# How many of so many questions at once are answered.
sub served {
	my ($count) = @_;
	my $round = ++our $rounds;

	my @replies = many({}, map { "round $round, question $_" } 1 .. $count);
	my $answered = grep { status($_) == 200 } @replies;
	my $in_vain = sum0(map { (header($_, 'X-Attempts') // 1) - 1 } @replies);
	note("$count questions at once, $answered answered,"
		. " $in_vain calls of a sick server");
	return $answered;
}

sub calls { join ' ', map { $_->calls } $one, $two, $spare }
sub reset_calls { $_->reset for $one, $two, $spare }

# Whether the first server gets calls again.
sub back_again {
	my $n = 0;
	my $start = time;
	reset_calls();
	my $back = wait_for {
		ask('back? ' . $n++ . $one->calls . rand); $one->calls > 1 } 30;
	note(sprintf 'asked again %.1f s after it is well', time - $start);
	return $back;
}

sub checked {
	my ($http, $location) = @_;

	return $t->check(<<"CONF");
events {
}
http {
    $http
    server {
        location /chat {
            $location
        }
    }
}
CONF
}
