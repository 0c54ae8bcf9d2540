package Test::Chatbot::Load;

# Questions without a pause, each another one, asked by a process of its own
# while the test does something to the servers.
#
#     my $load = Test::Chatbot::Load->start;      # speaks to the current test
#     $load->wait(100);       # until so many more were answered
#     $load->stop;            # once those that wait have their answer
#
#     $load->ids              # X-Request-IDs of all answers of status 200
#     $load->failures         # first lines of all other responses
#     $load->slowest          # seconds
#     $load->lost($postgres)  # how many of the ids are in no row

use warnings;
use strict;

use File::Temp qw/ tempfile /;
use List::Util qw/ max /;
use POSIX qw/ _exit /;

use Test::Chatbot qw/ header many status wait_for /;
use Test::Chatbot::Server qw/ read_file /;

my $loads = 0;

# Takes: at_once (10), text (what the questions start with).
sub start {
	my ($class, %self) = (@_, owner => $$);
	my $self = bless { at_once => 10, text => '', %self }, $class;

	$self->{text} .= ' load ' . ++$loads;
	(my $log, $self->{log}) = tempfile('chatbot-load-XXXXXX', TMPDIR => 1,
		UNLINK => 1);
	$log->autoflush(1);

	$self->{pid} = fork // die "fork: $!";
	return $self if $self->{pid};

	$self->ask_all($log);
	_exit(0);
}

sub ask_all {
	my ($self, $log) = @_;
	my ($done, $n) = (0, 0);

	local $SIG{TERM} = sub { $done = 1 };
	until ($done || getppid() != $self->{owner}) {
		my @answers = many({ timeout => 30 },
			map { "$self->{text}, question " . ++$n } 1 .. $self->{at_once});

		print $log map { join(' ', Test::Chatbot::slowest(), status($_) == 200
			? header($_, 'X-Request-ID') : 'failed: '
			. (/^(.*?)\r?\n/ ? $1 : 'no response')) . "\n" } @answers;
	}
}

sub wait {
	my ($self, $n) = @_;

	my $until = $self->ids + $n;
	wait_for { $self->ids >= $until } 30;
	return $self;
}

sub stop {
	my ($self) = @_;

	my $pid = delete $self->{pid} or return $self;
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return $self;
}

sub lines { map { [split / /, $_, 2] } split /\n/, read_file($_[0]{log}) }
sub slowest { max(map { $_->[0] } $_[0]->lines) }
sub ids { map { $_->[1] !~ /^failed/ ? $_->[1] : () } $_[0]->lines }
sub failures { map { $_->[1] =~ /^failed: (.*)/ ? $1 : () } $_[0]->lines }

sub lost {
	my ($self, $postgres) = @_;

	my %left = map { $_ => 1 } $self->ids;
	delete @left{split /\n/,
		$postgres->sql('select request_id from request_logs')};
	return scalar keys %left;
}

sub DESTROY {
	my ($self) = @_;
	local ($?, $!);
	$self->stop if $self->{owner} == $$;
}

1;
