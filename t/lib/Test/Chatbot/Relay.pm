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

use parent 'Test::Chatbot::Upstream';

use IO::Select;
use IO::Socket::INET;

use Test::Chatbot::Server qw/ read_file /;

sub new {
	my ($class, %self) = @_;
	return $class->make(%self);
}

sub serve {
	my ($self, $client) = @_;

	open my $log, '>>', "$self->{dir}/processes" or die $!;
	syswrite $log, "$$\n";
	close $log;

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

# Each connection so far has one.
sub processes { split /\n/, read_file("$_[0]{dir}/processes") }

sub connections { scalar(my @pids = $_[0]->processes) }
sub freeze { kill STOP => $_[0]->processes }

1;
