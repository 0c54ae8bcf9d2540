package Test::Chatbot::Upstream;

# A fake upstream that answers as a sub of the test says, byte by byte, and
# notes what it was asked.
#
#     my $upstream = Test::Chatbot::Upstream->new(sub {
#         my ($request) = @_;       # path, headers, body, json, question, mode;
#                                   # nth: how often this was asked by now
#         return whole('{"choices": ...}'), 0.5, 'more bytes';
#     });
#     $upstream->mode('sick');      # told to the sub from now on
#     is($upstream->calls, 1);
#
# The sub returns bytes to send, and between them numbers of seconds to wait;
# undef closes the connection without a reply.  Each request has a connection
# and a process of its own.

use warnings;
use strict;

use Exporter qw/ import /;
use File::Temp qw/ tempdir /;
use IO::Socket::INET;
use JSON::PP qw/ decode_json encode_json /;
use POSIX qw/ _exit /;
use Time::HiRes qw/ sleep /;

use Test::Chatbot::Server qw/ read_file /;

our @EXPORT = qw/ completion delta failing whole /;

# A reply of status 200 with this body, unless other values are given.
sub whole {
	my ($body, %opt) = @_;
	my $type = $opt{type} // 'application/json';

	return join "\r\n", 'HTTP/1.1 ' . ($opt{status} // 200) . ' X',
		"Content-Type: $type", 'Content-Length: ' . length $body,
		'Connection: close', @{$opt{headers} // []}, '', $body;
}

# The body of an answer; `choice` replaces members of its choice.
sub completion {
	my ($text, %choice) = @_;

	return encode_json({ model => 'm', created => 1_780_000_000,
		choices => [{ index => 0, finish_reason => 'stop',
			message => { role => 'assistant', content => $text }, %choice }],
		usage => { prompt_tokens => 5, completion_tokens => 7 } });
}

# An event of a stream.
sub delta {
	my ($text, %choice) = @_;

	return 'data: ' . encode_json({ choices => [{ index => 0,
		delta => { content => $text }, %choice }] }) . "\n\n";
}

# A reply with an error of this status.
sub failing {
	my ($status, $error, @headers) = @_;

	return whole(ref $error ? encode_json($error) : $error,
		status => $status, headers => \@headers);
}

sub new {
	my ($class, $answer) = @_;
	return $class->make(answer => $answer);
}

# For heirs, whose serve() does something else with a connection.
sub make {
	my ($class, %self) = @_;
	my $self = bless { %self,
		dir => tempdir('chatbot-upstream-XXXXXX', TMPDIR => 1,
			CLEANUP => 1) }, $class;

	return $self->start;
}

sub start {
	my ($self) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
		LocalPort => $self->{port} // 0, Listen => 1024, ReuseAddr => 1)
		or die "listen: $!";
	$self->{port} = $listener->sockport;

	defined($self->{pid} = fork) or die "fork: $!";
	return $self if $self->{pid};

	setpgrp 0, 0;
	local $SIG{CHLD} = 'IGNORE';
	while (1) {
		my $socket = $listener->accept or next;
		next if fork;
		eval { $self->serve($socket) };
		_exit(0);
	}
}

sub serve {
	my ($self, $socket) = @_;

	local $/ = "\r\n\r\n";
	my $head = <$socket> // return;
	my ($size) = $head =~ /^content-length: *(\d+)/mi;
	my $body = '';
	read $socket, $body, $size if $size;

	my ($path) = $head =~ /^POST (\S+)/ or return;
	my %headers = map { /^([^:\s]+): *(.*?)\r?$/ ? (lc $1 => $2) : () }
		split /\n/, $head;
	my $json = eval { decode_json($body) };
	my %request = (path => $path, headers => \%headers, body => $body,
		json => $json, mode => $self->mode,
		question => ($json->{messages} // [])->[-1]{content} // '');
	$request{nth} = 1 + grep { $_->{question} eq $request{question} }
		$self->requests;

	open my $log, '>>', "$self->{dir}/requests" or die $!;
	syswrite $log, encode_json({ %request, body => '' }) . "\n";
	close $log;

	for my $step ($self->{answer}->(\%request)) {
		return if !defined $step;
		$step =~ /^[\d.]+$/ ? sleep $step : syswrite $socket, $step;
	}
	shutdown $socket, 1;
}

sub url { "http://127.0.0.1:$_[0]{port}/v1" }
sub port { $_[0]{port} }

# Tells the mode, or sets it.
sub mode {
	my ($self, $mode) = @_;
	my $file = "$self->{dir}/mode";

	if (defined $mode) {
		open my $out, '>', "$file.new" or die $!;
		print $out $mode;
		close $out;
		rename "$file.new", $file or die $!;
	}
	return -e $file ? read_file($file) : '';
}

# What it was asked so far, or since the last reset().
sub requests {
	my ($self) = @_;
	my $file = "$self->{dir}/requests";
	return -e $file ? map { decode_json($_) } split /\n/, read_file($file) : ();
}

sub calls { scalar(my @requests = $_[0]->requests) }
sub reset { unlink "$_[0]{dir}/requests" }

# Kills it; start() brings it back on the same port.
sub stop {
	my ($self) = @_;
	my $pid = delete $self->{pid} or return;
	kill KILL => -$pid;
	waitpid $pid, 0;
}

sub DESTROY {
	my ($self) = @_;
	local ($?, $!, $@);
	$self->stop;
}

1;
