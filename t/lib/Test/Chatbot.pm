package Test::Chatbot;

# Tests of ngx_http_chatbot_module over a real nginx, Redis and PostgreSQL and a
# stand-in for the OpenAI API.
#
#     use Test::More;
#     use lib 't/lib';
#     use Test::Chatbot;
#
#     my $t = Test::Chatbot->new(conf => <<'EOF')->run;
#     location /chat {
#         chatbot_pass %%API%%;
#         chatbot_redis %%REDIS%%;
#         chatbot_postgres %%POSTGRES%%;
#     }
#     EOF
#
#     like(ask('hi'), qr/"answer 1: hi".*"api"/, 'asked once');
#     like(ask('hi'), qr/"answer 1: hi".*"cache"/, 'then cached');
#     is(wait_rows(2), 2, 'both recorded');
#
#     done_testing();
#
# new() takes
#     conf      locations, or (with a "server {" in it) servers, or (with
#               "events {") all but the first lines of nginx.conf
#     http, main  further directives of these contexts
#     workers   how many (1)
#     user      of them, where the test runs as root (root)
#     env       environment of nginx: { NAME => value }; by default it holds
#               OPENAI_API_KEY and nothing else that the module reads
#     openai, redis, postgres   arguments of these servers: [...]
#     with      another Test::Chatbot whose servers are to be used
#     alerts    a regular expression of alerts that are expected
#
# In these texts are replaced: %%PORT%% where nginx listens, %%PORT_n%% further
# free ports, %%TEST%% the directory of the test, %%KEY%% of the API; and
# %%API%%, %%REDIS%%, %%REDIS_PORT%%, %%POSTGRES%%, %%POSTGRES_PORT%%: where
# these are, which also starts them.
#
# At the end everything is stopped, and the test fails if a log holds an alert
# or a sanitizer's report.
#
# Environment: CHATBOT_MODULE (the module; empty: none is loaded),
# CHATBOT_PRELOAD (LD_PRELOAD of nginx alone), CHATBOT_VALGRIND (a command for
# nginx to run under), TEST_NGINX_BINARY, TEST_LEAVE=1
# (leaves the directory), TEST_VERBOSE=1 (shows the logs of a failed test).

use warnings;
use strict;

use Cwd qw/ abs_path /;
use Exporter qw/ import /;
use File::Basename qw/ dirname /;
use File::Path qw/ make_path remove_tree /;
use File::Temp qw/ tempdir /;
use IO::Socket::INET;
use JSON::PP qw/ decode_json encode_json /;
use List::Util qw/ max /;
use Scalar::Util qw/ blessed /;
use Test::More ();
use Time::HiRes qw/ time /;

use Test::Chatbot::Server qw/ capture read_file wait_for /;

our @EXPORT = qw/ ask body dial get header http json many port post_form
	post_json received request slowest status wait_for wait_rows /;

my $root = dirname(dirname(dirname(dirname(abs_path(__FILE__)))));
my $module = $ENV{CHATBOT_MODULE} // "$root/build/ngx_http_chatbot_module.so";

my @tests;                      # all instances
my $current;                    # the one that ask() and the like speak to
my $slowest = 0;

$SIG{INT} = $SIG{TERM} = sub { exit 1 };
$SIG{PIPE} = 'IGNORE';
delete @ENV{grep { /^(OPENAI_|REDIS_|POSTGRES_|DATABASE_URL$|PG)|_proxy$/i }
	keys %ENV};

sub new {
	my ($class, %self) = @_;

	my $self = bless { conf => '', workers => 1, %self, pid => $$ }, $class;
	$self->{dir} = tempdir('chatbot-test-XXXXXX', TMPDIR => 1);
	chmod 0755, $self->{dir};

	$self->{servers} = $self->{with} ? $self->{with}{servers} : {};
	$self->{nginx} = Test::Chatbot::Nginx->new(dir => $self->{dir},
		conf => "$self->{dir}/nginx.conf", errors => "$self->{dir}/error.log");

	push @tests, $self;
	return $current = $self;
}

###############################################################################
# nginx

sub run {
	my ($self) = @_;

	$self->write_conf($self->{conf});
	my %env = (OPENAI_API_KEY => key(), %{$self->{env} // {}});
	local @ENV{keys %env} = map { $self->expand($_) } values %env;

	eval { $self->{nginx}->start; 1 } or die $@, $self->error_log;
	wait_for { $self->workers >= $self->{workers} };
	return $self;
}

# Takes effect with the next run() or reload().
sub write_conf {
	my ($self, $conf) = @_;

	my $text = $self->expand($self->wrapped($conf));
	open my $fh, '>', $self->{nginx}{conf} or die "$self->{nginx}{conf}: $!";
	print $fh $text;
	close $fh;
}

# What "nginx -t" says to a configuration.
sub check {
	my ($self, $conf) = @_;

	local $ENV{OPENAI_API_KEY} = $self->{env}{OPENAI_API_KEY} // key();
	local $self->{nginx}{conf} = "$self->{dir}/check.conf";
	$self->write_conf($conf);
	return capture($self->{nginx}->command('-e', 'stderr', '-t'));
}

# Returns when the new workers are there and the old ones accept no more; false
# if nginx refused to.
sub reload {
	my ($self, $conf) = @_;
	$self->write_conf($conf) if defined $conf;

	my $count = sub { scalar(() = $self->error_log =~ /$_[0]/g) };
	my $refused = $count->('\[emerg\]');
	my ($started, $ending) = ('start worker process \d', 'gracefully shutting');
	my %enough = map { $_ => $count->($_) + $self->{workers} }
		$started, $ending;

	CORE::kill 'HUP', $self->{nginx}->pid;
	wait_for { $count->('\[emerg\]') > $refused
		|| !grep { $count->($_) < $enough{$_} } keys %enough } 30;
	return $count->('\[emerg\]') == $refused;
}

# Fast; quit() lets requests in flight be answered.
sub stop { $_[0]{nginx}->stop(signal => 'TERM', @_[1 .. $#_]) }
sub quit { $_[0]{nginx}->stop(signal => 'QUIT', @_[1 .. $#_]) }
sub kill { $_[0]{nginx}->kill }
sub workers { $_[0]{nginx}->children }
sub nginx { $_[0]{nginx} }

sub dir { $_[0]{dir} }
sub read { read_file("$_[0]{dir}/$_[1]") }
sub error_log { $_[0]->read('error.log') }

sub wrapped {
	my ($self, $conf) = @_;
	my $loaded = $self->{module} // $module;

	if ($conf !~ /^\s*events\s*\{/m) {
		$conf = "server {\nlisten 127.0.0.1:%%PORT%% backlog=4096;\n"
			. "server_name localhost;\n$conf}\n" if $conf !~ /^\s*server\s*\{/m;
		$conf = "events {\nworker_connections 16384;\n}\n\nhttp {\n"
			. "access_log off;\n"
			. join('', map { "${_}_temp_path temp_$_;\n" } qw/ client_body
				proxy fastcgi uwsgi scgi /)
			. ($self->{http} // '') . "\n$conf}\n";
	}

	return join '', "daemon off;\npid nginx.pid;\n",
		"error_log %%TEST%%/error.log info;\n",
		$> ? '' : 'user ' . ($self->{user} // 'root') . ";\n",
		$loaded eq '' ? '' : "load_module $loaded;\n",
		"worker_processes $self->{workers};\n", $self->{main} // '',
		"\n$conf";
}

sub expand {
	my ($self, $text) = @_;
	my %value = (
		TEST => sub { $self->{dir} },
		KEY => \&key,
		API => sub { $self->openai->url },
		REDIS => sub { $self->redis->url },
		REDIS_PORT => sub { $self->redis->{port} },
		POSTGRES => sub { $self->postgres->url },
		POSTGRES_PORT => sub { $self->postgres->port },
	);

	$text =~ s/%%PORT(?:_(\d+))?%%/$self->port($1 || 0)/ge;
	$text =~ s/%%([A-Z_]+)%%/$value{$1} ? $value{$1}->() : die "what is $1?"/ge;
	return $text;
}

sub key { 'sk-test' }

# A port of 127.0.0.1 that is ours: we keep a socket bound to it, which does
# not listen, so that servers of ours can, and nobody else gets it.
sub port {
	my $self = this(\@_);
	my ($n) = (@_, 0);

	$self->{ports}{$n} //= free_port();
	return $self->{ports}{$n}->sockport();
}

sub free_port {
	return IO::Socket::INET->new(Proto => 'tcp', LocalAddr => '127.0.0.1',
		LocalPort => 0, ReuseAddr => 1) || die "no free port: $!";
}

###############################################################################
# The other servers, started when first asked for.

sub redis { $_[0]->server('redis', 'Redis') }

sub openai {
	my ($self) = @_;
	return $self->server('openai', 'OpenAI',
		requests => "$self->{dir}/requests.jsonl");
}

sub postgres {
	my ($self) = @_;

	make_path("$root/build");
	return $self->server('postgres', 'Postgres',
		template => "$root/build/pgtemplate",
		args => ['-c', 'fsync=off', @{$self->{postgres} // []}]);
}

sub server {
	my ($self, $name, $class, %args) = @_;

	return $self->{servers}{$name} //= do {
		my $port = free_port();
		"Test::Chatbot::$class"->new(dir => "$self->{dir}/$name",
			port => $port->sockport(), reserved => $port,
			args => $self->{$name}, %args)->start;
	};
}

# Waits until the table has so many rows; returns how many it has.
sub wait_rows {
	my $self = this(\@_);
	my ($n, $seconds) = @_;

	wait_for { $self->postgres->rows >= $n } $seconds // 10;
	return $self->postgres->rows;
}

###############################################################################
# HTTP.  These are functions for the test that was made last, and methods.
# A response is its bytes, '' if there is none.
#
# Options: headers => ['Name: value'], body => bytes, uri => '/chat',
# port => N, timeout => seconds (10).

sub ask {
	my $self = this(\@_);
	my ($text, %opt) = @_;
	return $self->http(question($text, %opt), %opt);
}

sub get {
	my $self = this(\@_);
	my ($uri, %opt) = @_;
	return $self->http(request('GET', $uri, %opt), %opt);
}

# The data is a structure, or the very bytes.
sub post_json {
	my $self = this(\@_);
	my ($data, %opt) = @_;

	my @type = $opt{type} // 'application/json';
	return $self->post(ref $data ? encode_json($data) : $data, @type, %opt);
}

sub post_form {
	my $self = this(\@_);
	my ($data, %opt) = @_;

	my $body = ref $data ? join '&', map { "$_=" . escaped($data->{$_}) }
		sort keys %$data : $data;
	my @type = $opt{type} // 'application/x-www-form-urlencoded';
	return $self->post($body, @type, %opt);
}

sub post {
	my ($self, $body, $type, %opt) = @_;

	return $self->http(request('POST', $opt{uri} // '/chat', %opt,
		headers => ["Content-Type: $type", @{$opt{headers} // []}],
		body => $body), %opt);
}

sub http {
	my $self = this(\@_);
	my ($request, %opt) = @_;
	return ($self->many(\%opt, $request))[0];
}

# All at once, each on a connection of its own: whole requests, or questions.
# many({ timeout => 30 }, map { "question $_" } 1 .. 1000)
sub many {
	my $self = this(\@_);
	my %opt = ref $_[0] ? %{shift()} : ();
	my @requests = map { m{^[A-Z]+ \S+ HTTP/}m ? $_ : question($_, %opt) } @_;

	return exchange($opt{port} // $self->port, $opt{timeout} // 10, @requests);
}

# Seconds that the slowest of the last many() (or other request) took.
sub slowest { $slowest }

# A connection to do with what you like.
sub dial {
	my $self = this(\@_);
	my (%opt) = @_;

	return IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $opt{port} // $self->port) || die "cannot connect: $!";
}

sub question {
	my ($text, %opt) = @_;
	my $uri = $opt{uri} // '/chat';
	return request('GET', "$uri?query=" . escaped($text), %opt);
}

sub request {
	my ($method, $uri, %opt) = @_;

	my @headers = ('Host: localhost', 'Connection: close',
		@{$opt{headers} // []});
	push @headers, 'Content-Length: ' . length $opt{body}
		if defined $opt{body};

	return join("\r\n", "$method $uri HTTP/1.1", @headers, '', '')
		. ($opt{body} // '');
}

sub status { $_[0] =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0 }

sub header {
	my ($response, $name) = @_;
	my ($head) = split /\r\n\r\n/, $response, 2;
	return $head =~ /^\Q$name\E:\s*(.*?)\r?$/mi ? $1 : undef;
}

sub body {
	my ($response) = @_;
	my (undef, $body) = split /\r\n\r\n/, $response, 2;
	return $body // '' if lc(header($response, 'Transfer-Encoding') // '')
		ne 'chunked';

	my $all = '';
	while ($body =~ s/^([0-9a-f]+)\r\n//i && hex $1) {
		$all .= substr $body, 0, hex $1, '';
		$body =~ s/^\r\n//;
	}
	return $all;
}

# The body decoded, undef if it isn't JSON.
sub json { scalar eval { decode_json(body($_[0])) } }

# The question that arrived at the API, as bytes; or the status.
sub received {
	my ($reply) = @_;
	return status($reply) if status($reply) != 200;

	my $text = json($reply)->{response};
	utf8::encode($text);
	return $text =~ s/^answer \d+: //r;
}

sub escaped {
	my ($text) = @_;

	utf8::encode($text) if utf8::is_utf8($text);
	$text =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ge;
	return $text;
}

# Sends all requests at once; reads each response until its end.
sub exchange {
	my ($port, $timeout, @requests) = @_;
	my $deadline = time() + $timeout;
	my ($reading, $writing) = ('', '');
	my (@responses, %open);

	$slowest = 0;

	for my $i (0 .. $#requests) {
		$responses[$i] = '';
		my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
			PeerPort => $port, Blocking => 0) or next;
		$open{fileno $socket} = { i => $i, socket => $socket,
			out => $requests[$i], since => time() };
		vec($reading, fileno $socket, 1) = vec($writing, fileno $socket, 1) = 1;
	}

	while (%open && (my $left = $deadline - time()) > 0) {
		select my $readable = $reading, my $writable = $writing, undef, $left;

		for my $fd (grep { vec $writable, $_, 1 } keys %open) {
			my $n = syswrite $open{$fd}{socket}, $open{$fd}{out};
			substr $open{$fd}{out}, 0, $n // 0, '';
			vec($writing, $fd, 1) = 0
				if $open{$fd}{out} eq '' || !defined $n && !$!{EAGAIN};
		}

		for my $fd (grep { vec $readable, $_, 1 } keys %open) {
			my $c = $open{$fd};
			my $n = sysread $c->{socket}, $responses[$c->{i}], 65536,
				length $responses[$c->{i}];
			next if $n || !defined $n && $!{EAGAIN};

			$slowest = max($slowest, time() - $c->{since});
			vec($reading, $fd, 1) = vec($writing, $fd, 1) = 0;
			delete $open{$fd};
		}
	}

	$slowest = $timeout if %open;
	return @responses;
}

# Takes the object off the arguments of what is a function and a method.
sub this {
	my ($args) = @_;
	return blessed($args->[0]) ? shift @$args : $current;
}

###############################################################################
# The end.

sub problems {
	my ($self) = @_;
	my @problems;

	for my $server (values %{$self->{servers}}) {
		$server->thaw if $server->alive;
	}

	# only calls that never end are an excuse, and are cut short
	my $calls = $self->calls_in_flight;
	$self->quit(seconds => $calls ? 5 : 30) || $calls
		or push @problems, 'nginx did not quit';

	my $logs = $self->error_log . $self->read('nginx.log');
	my @alerts = grep { !$self->{alerts} || $_ !~ $self->{alerts} }
		$logs =~ /.*\[(?:alert|emerg)\].*/g;
	push @alerts, $logs =~ /.*(?:Sanitizer:|runtime error:|^==\d+== ).*/gm;

	return @problems, @alerts;
}

sub calls_in_flight {
	my ($self) = @_;
	my $api = $self->{servers}{openai};
	return $api && $api->alive && $api->in_flight;
}

sub finish {
	my ($self, $failed) = @_;

	Test::More::diag($self->error_log) if $failed && $ENV{TEST_VERBOSE};
	return Test::More::diag("left: $self->{dir}") if $ENV{TEST_LEAVE};
	remove_tree($self->{dir});
}

END {
	my $status = $?;
	my @own = grep { $_->{pid} == $$ } @tests;

	my @problems = map { $_->problems } @own;
	Test::More::diag($_) for @problems;
	$status ||= 1 if @problems;

	for my $server (map { values %{$_->{servers}} } @own) {
		$server->kill;
	}

	my $failed = $status || !Test::More->builder->is_passing;
	$_->finish($failed) for @own;
	$? = $status;
}

1;
