package Test::Chatbot::Relay;

# Connections that go through, until they die without a word.
#
#     my $relay = Test::Chatbot::Relay->new(to => "127.0.0.1:$port");
#     $relay->port;
#     $relay->connections;      # so many were made
#     $relay->freeze;           # those that are there; new ones go through
#
# Without `to` it is an HTTP proxy that knows CONNECT.

use warnings;
use strict;

use IO::Select;
use IO::Socket::INET;
use POSIX qw/ _exit /;

sub new {
	my ($class, %self) = @_;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
		LocalPort => 0, Listen => 1024) or die "listen: $!";
	my $self = bless { %self, port => $listener->sockport }, $class;
	pipe $self->{made}, my $made or die "pipe: $!";
	$self->{made}->blocking(0);

	defined($self->{pid} = fork) or die "fork: $!";
	return $self if $self->{pid};

	setpgrp 0, 0;
	local $SIG{CHLD} = 'IGNORE';
	while (1) {
		my $socket = $listener->accept or next;
		defined(my $pid = fork) or next;
		if (!$pid) {
			eval { $self->relay($socket) };
			_exit(0);
		}
		syswrite $made, "$pid\n";
	}
}

sub relay {
	my ($self, $client) = @_;

	my $to = $self->{to};
	if (!$to) {
		my $head = '';
		sysread $client, $head, 4096, length $head or return
			until $head =~ /\r\n\r\n/;
		($to) = $head =~ m{^CONNECT (\S+) HTTP/1} or return;
	}
	my $server = IO::Socket::INET->new(PeerAddr => $to) or return;
	syswrite $client, "HTTP/1.1 200 Connection established\r\n\r\n"
		if !$self->{to};

	my %other = ($client => $server, $server => $client);
	my $select = IO::Select->new($client, $server);
	while (1) {
		for my $from ($select->can_read) {
			sysread $from, my $bytes, 65536 or return;
			$other{$from}->print($bytes);
		}
	}
}

sub port { $_[0]{port} }

# The processes of all connections so far.
sub processes {
	my ($self) = @_;
	my $pids = '';
	1 while sysread $self->{made}, $pids, 4096, length $pids;
	push @{$self->{pids}}, split /\n/, $pids;
	return @{$self->{pids} // []};
}

sub connections { scalar(my @pids = $_[0]->processes) }
sub freeze { kill STOP => $_[0]->processes }

sub DESTROY {
	my ($self) = @_;
	return if !$self->{pid};

	local ($?, $!);
	kill KILL => -$self->{pid};
	waitpid $self->{pid}, 0;
}

1;
