#!/usr/bin/perl

# "make run", as a user meets it, in a copy of what it needs.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture read_file /;

###############################################################################

my $t = Test::Chatbot->new();
my $dir = $t->dir . '/it';
my @at = (port => port());

system("cd $FindBin::Bin/.. && mkdir -p $dir/t && cp -r $FindBin::Bin/lib $dir/t"
	. " && cp --parents -r nginx.conf docker/html $dir") == 0 or die;
symlink "$FindBin::Bin/../build", "$dir/build" or die;
write_env("POSTGRES_DB='my db'", 'POSTGRES_USER=me', 'POSTGRES_HOST=postgres',
	'export REDIS_HOST=redis  # in Docker', 'OPENAI_API_KEY=');

$ENV{PORT} = port();

my $run = Run->new(dir => $dir)->start;
my $said = read_file($run->{log});

like($said, qr/OPENAI_API_KEY is not set/, 'says that there is no key');
like($said, qr/POSTGRES_HOST=postgres is for docker-compose/, 'old .env');

like(get('/', @at), qr{ 200 .*Content-Security-Policy: .*<title>Chatbot}s,
	'the page');
like(get('/health', @at), qr/ 200 .*ok/s, 'health');
like(get('/chat/', @at), qr/ 404 /, 'not found');

# it tells how to look into Redis and PostgreSQL

my ($keys) = $said =~ /Answers: +(.*)/;
my ($psql) = $said =~ /Requests: +(psql .*) -c/;

my $question = 'What is the capital of France?';
is(json(ask($question, @at))->{source}, 'api', 'asked');
ok(wait_for { capture('sh', '-c', $keys) =~ /^chatbot:/m }, 'in Redis');
is(json(ask($question, @at))->{source}, 'cache', 'then cached');
is(json(ask(uc $question, @at))->{source}, 'cache', 'in capitals, too');

my $answer = ask($question, @at);
like($answer, qr/"response":.*stand-in.*What is the capital of France\?/,
	'answer');
like($answer, qr/X-Content-Type-Options: nosniff\r.*Cache-Control: private\r/s,
	'headers');
unlike($answer, qr/nginx\//, 'no version');

is(status(ask('And of Spain?', @at)), 200, 'fifth in a minute');

my $refused = ask('And of Italy?', @at);
is(status($refused), 429, 'sixth');
is(header($refused, 'Retry-After'), 12, 'retry after');
is(header($refused, 'Content-Type'), 'application/problem+json', 'type');
is(json($refused)->{detail}, 'Rate limit exceeded: 5 per 1 minute', 'detail');

my $statuses = sub { join ' ', split /\n/, capture('sh', '-c', "$psql -XAtc"
	. " 'select status from request_logs order by timestamp'") };
wait_for { $statuses->() =~ /^(\w+ ){4}\w+$/ };
is($statuses->(), 'success cached cached cached success', 'in PostgreSQL');

unlike(read_file("$dir/run/nginx/nginx.log"), qr/capital/,
	'no question in the log');

like(capture($run->command), qr/runs already/, 'only once');
ok($run->stop, 'Ctrl-C');
is($run->{status}, 0, 'exit status');
is(get('/', @at), '', 'nothing left');

# all is kept; limit_req's memory is not

unlink $run->{log};
$run->start;
is(json(ask($question, @at))->{source}, 'cache', 'still cached');

$run->kill_redis;
wait_for { !$run->alive };
like(read_file($run->{log}), qr/redis died/, 'tells who died');
isnt($run->{status}, 0, 'exit status of a failure');
is(get('/', @at), '', 'nothing left');

# a Redis that is there already

$ENV{REDIS_URL} = $t->redis->url;
unlink $run->{log};
$run->start;
($keys) = read_file($run->{log}) =~ /Answers: +(.*)/;
is(json(ask($question, @at))->{source}, 'api', 'another Redis');
ok(wait_for { capture('sh', '-c', $keys) =~ /^chatbot:/m }, 'in this Redis');
$run->stop;

my $taken = IO::Socket::INET->new(LocalPort => port(), Listen => 1,
	ReuseAddr => 1);
like(capture($run->command), qr/Port \d+ is taken/, 'port taken');

done_testing();

###############################################################################

sub write_env {
	open my $fh, '>', "$dir/.env" or die $!;
	print $fh "\xEF\xBB\xBF", map { "$_\r\n" } @_;      # as Windows writes it
	close $fh;
}

package Run;

use parent -norequire, 'Test::Chatbot::Server';

sub command { "$_[0]{dir}/t/lib/run" }
sub gentle_signal { 'INT' }
sub ready { Test::Chatbot::Server::read_file($_[0]{log}) =~ /Ctrl-C/ }

sub kill_redis {
	my ($self) = @_;
	my ($redis) = grep { Test::Chatbot::Server::read_file("/proc/$_/cmdline")
		=~ /redis-server/ } $self->children;
	CORE::kill 'KILL', $redis;
}
