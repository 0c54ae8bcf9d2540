package Test::Chatbot::Server;

# Server processes, for tests and for "make run": each is one child process,
# known by its pid, and goes when the program that started it goes.
#
#     $server->start;     returns once it serves, dies with its log if it won't
#     $server->stop;      with its own gentle signal, by force after 10 seconds
#     $server->kill;      kill -9 of it and of its children
#     $server->freeze;    SIGSTOP to all of it; thaw() ends it

use warnings;
use strict;

use Exporter qw/ import /;
use IPC::Open3 qw/ open3 /;
use POSIX qw/ WNOHANG _exit /;
use Time::HiRes qw/ sleep time /;

our @EXPORT_OK = qw/ capture read_file wait_for /;

# A thousand connections need more descriptors than the usual soft limit; what
# we start inherits it.
chomp(my $hard = `sh -c 'ulimit -Hn'`);
$hard = 65536 if $hard eq 'unlimited' || $hard > 65536;
system('prlimit', "--pid=$$", "--nofile=$hard:");

# Polls until the code returns true, at most so many seconds; returns what it
# returned last.
sub wait_for(&;$) {
	my ($code, $seconds) = @_;
	my $deadline = time() + ($seconds // 30);

	while (1) {
		my $result = $code->();
		return $result if $result || time() > $deadline;
		sleep 0.01;
	}
}

# What a command prints, errors included, without the last newline.
sub capture {
	my $pid = open3(my $in, my $out, undef, @_);
	close $in;
	my $text = do { local $/; <$out> } // '';
	waitpid $pid, 0;

	chomp $text;
	return $text;
}

# Empty if there is no such file.
sub read_file {
	my ($path) = @_;
	open my $fh, '<', $path or return '';
	local $/;
	return <$fh> // '';
}

# Every server has a `dir` for its files and writes its output to its `log`.
sub new {
	my ($class, %self) = (@_, owner => $$);
	(my $name = lc $class) =~ s/.*:://;

	$self{name} = $name;
	$self{log} //= "$self{dir}/$name.log";
	mkdir $self{dir};
	return bless \%self, $class;
}

# For the heirs: command(), ready(), and perhaps prepare() and these.
sub prepare { }
sub gentle_signal { 'TERM' }
sub privileges { }

sub start {
	my ($self) = @_;
	return $self if $self->alive;

	$self->prepare;
	delete $self->{frozen};
	$self->{pid} = $self->spawn($self->command);
	wait_for { !$self->alive || $self->ready } 30;

	die "$self->{name} did not start:\n", read_file($self->{log})
		if !$self->alive || !$self->ready;
	return $self;
}

# In a process group of its own, so that Ctrl-C reaches only its parent.
sub spawn {
	my ($self, @command) = @_;
	my @setpriv = ('setpriv', $self->privileges,
		'--pdeathsig=' . $self->gentle_signal, '--');

	my $pid = fork // die "fork: $!";
	return $pid if $pid;

	setpgrp 0, 0;
	open STDIN, '<', '/dev/null';
	open STDOUT, '>>', $self->{log} or _exit(126);
	open STDERR, '>&', \*STDOUT;
	exec(@setpriv, @command) or _exit(127);
}

sub pid { $_[0]{pid} }

sub alive {
	my ($self) = @_;

	return 0 if !$self->{pid};
	return 1 if waitpid($self->{pid}, WNOHANG) == 0;

	$self->{status} = $?;
	$self->{pid} = undef;
	return 0;
}

# Returns whether it went by itself in time.
sub stop {
	my ($self, %how) = @_;
	return 1 if !$self->alive;

	$self->thaw;
	CORE::kill $how{signal} // $self->gentle_signal, $self->{pid};
	return 1 if wait_for { !$self->alive } $how{seconds} // 10;

	$self->kill;
	return 0;
}

sub kill {
	my ($self) = @_;
	return if !$self->alive;

	my @children = $self->freeze;
	CORE::kill 'KILL', $self->{pid}, @children;
	wait_for { !$self->alive && !grep { parent_of($_) } @children };
}

# The parent first, so that it makes no more children.
sub freeze {
	my ($self) = @_;

	$self->{frozen} = 1;
	CORE::kill 'STOP', $self->{pid};
	my @children = $self->children;
	CORE::kill 'STOP', @children;
	return @children;
}

# Only what is frozen: a CONT that meets a process in LeakSanitizer's hands, which
# stops it for a moment, makes it hang.
sub thaw {
	my ($self) = @_;
	CORE::kill 'CONT', $self->children, $self->{pid} if delete $self->{frozen};
}

sub children {
	my ($self) = @_;

	return grep { (parent_of($_) // 0) == $self->{pid} }
		map { m{^/proc/(\d+)$} } glob '/proc/*';
}

# Nothing if the process is gone.
sub parent_of {
	my ($pid) = @_;
	my ($state, $parent) = read_file("/proc/$pid/stat") =~ /.*\) (\S) (\d+)/s;

	# a killed process holds its sockets until the last of its threads is gone
	return if !defined $state || $state eq 'X'
		|| $state eq 'Z' && (() = glob "/proc/$pid/task/*") < 2;
	return $parent;
}

sub DESTROY {
	my ($self) = @_;
	local ($?, $!);
	$self->kill if $self->{owner} == $$;
}

###############################################################################

package Test::Chatbot::Redis;

use parent -norequire, 'Test::Chatbot::Server';

use IO::Socket::UNIX;

# Takes: dir, port (0: none), args, sockets (a directory for them, if not dir).
sub command {
	my ($self) = @_;

	return ('redis-server', '--port', $self->{port} // 0,
		'--bind', '127.0.0.1', '--unixsocket', $self->path,
		'--dir', $self->{dir}, @{$self->{args} // ['--save', '']});
}

sub ready { defined IO::Socket::UNIX->new(Peer => $_[0]->path) }
sub path { ($_[0]{sockets} // $_[0]{dir}) . '/redis.sock' }
sub url { 'unix:' . $_[0]->path }

# cli('GET', 'key') as redis-cli prints it.
sub cli {
	my ($self, @args) = @_;
	return Test::Chatbot::Server::capture('redis-cli', '-s', $self->path,
		@args);
}

###############################################################################

package Test::Chatbot::Postgres;

use parent -norequire, 'Test::Chatbot::Server';

use Fcntl qw/ LOCK_EX /;

# Takes: dir, port (tests: also on 127.0.0.1), args, template (a data directory
# to copy, made if it isn't there, as initdb takes long), sockets as above.
#
# PostgreSQL refuses to run as root.
sub privileges {
	return $> ? () : qw/ --reuid=postgres --regid=postgres --clear-groups
		--inh-caps=+dac_override --ambient-caps=+dac_override /;
}

sub gentle_signal { 'INT' }

sub command {
	my ($self) = @_;

	return (bin('postgres'), '-D', "$self->{dir}/data",
		'-k', $self->{sockets} // $self->{dir}, '-p', $self->port,
		'-h', $self->{port} ? '127.0.0.1' : '', @{$self->{args} // []});
}

sub prepare {
	my ($self) = @_;
	my $data = "$self->{dir}/data";

	return if -e "$data/PG_VERSION";
	return $self->initdb($data) if !$self->{template};

	my $template = $self->{template};
	open my $lock, '>', "$template.lock" or die "$template.lock: $!\n";
	flock $lock, LOCK_EX;

	if (!-e "$template/PG_VERSION") {
		$self->initdb("$template.new");
		rename "$template.new", $template or die "$template: $!\n";
	}

	system('cp', '-a', $template, $data) == 0 or die "cannot copy $template\n";
}

sub initdb {
	my ($self, $data) = @_;

	system('rm', '-rf', $data);
	chown +(getpwnam 'postgres')[2, 3], $self->{dir} if !$>;

	my $said = Test::Chatbot::Server::capture('setpriv', $self->privileges,
		'--', bin('initdb'), '-D', $data, qw/ -U postgres -A trust -E UTF8
		--locale=C.UTF-8 --wal-segsize=1 --no-sync /);
	-e "$data/PG_VERSION" or die "initdb:\n$said\n";
}

# The newest that is installed.
sub bin {
	my ($name) = @_;
	my ($newest) = sort { ($b =~ m{(\d+)/bin/})[0] <=> ($a =~ m{(\d+)/bin/})[0]
		} glob "/usr/lib/postgresql/*/bin/$name";
	return $newest // $name;
}

# The server says so itself, in a file.
sub ready {
	my ($self) = @_;
	my @lines = split /\n/,
		Test::Chatbot::Server::read_file("$self->{dir}/data/postmaster.pid");

	return @lines > 7 && $lines[0] == $self->{pid} && $lines[7] =~ /^ready/;
}

sub port { $_[0]{port} || 5432 }

sub url {
	my ($self, $user, $database) = @_;

	my @parts = ($user // 'postgres', $database // 'postgres',
		$self->{sockets} // $self->{dir});
	s{([^\w./-])}{sprintf '%%%02X', ord $1}ge for @parts;
	return sprintf 'postgresql://%s@/%s?host=%s&port=%d', @parts, $self->port;
}

# sql('select 1, 2') is "1|2"; an error is returned as text.
sub sql {
	my ($self, $sql, $url) = @_;
	return Test::Chatbot::Server::capture(bin('psql'), '-XAtq', '-d',
		$url // $self->url, '-v', 'ON_ERROR_STOP=1', '-c', $sql);
}

sub rows {
	my ($self, $table) = @_;
	my $n = $self->sql('select count(*) from ' . ($table // 'request_logs'));
	return $n =~ /^\d+$/ ? $n : 0;
}

###############################################################################

package Test::Chatbot::OpenAI;

use parent -norequire, 'Test::Chatbot::Server';

use Cwd qw/ abs_path /;
use File::Basename qw/ dirname /;
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;

my $program = dirname(dirname(dirname(abs_path(__FILE__)))) . '/openai';

# Takes: dir, port, args; with requests => FILE what it receives is kept there.
sub command {
	my ($self) = @_;

	return ($^X, $program, '--port', $self->{port},
		$self->{requests} ? ('--log', $self->{requests}) : (),
		@{$self->{args} // []});
}

sub ready {
	return defined IO::Socket::INET->new(PeerAddr => '127.0.0.1',
		PeerPort => $_[0]{port});
}

sub url { "http://127.0.0.1:$_[0]{port}/v1" }

# Calls that passed the checks of the API; those that did not; those that wait
# for their answer; the most that did so at once; connections that brought one.
sub calls { $_[0]->counters->{calls} }
sub refused { $_[0]->counters->{refused} }
sub in_flight { $_[0]->counters->{in_flight} }
sub max_in_flight { $_[0]->counters->{max_in_flight} }
sub connections { $_[0]->counters->{connections} }

sub counters { $_[0]->control(GET => '_calls') }
sub reset { $_[0]->control(POST => '_reset') }

sub control {
	my ($self, $method, $path) = @_;
	my $http = HTTP::Tiny->new(http_proxy => undef, timeout => 10);

	my $reply = $http->request($method, "http://127.0.0.1:$self->{port}/$path");
	return decode_json($reply->{content});
}

# What was received: { method, path, headers, body }, and the body as `json`.
sub requests {
	my ($self) = @_;

	my @requests = map { decode_json($_) } split /\n/,
		Test::Chatbot::Server::read_file($self->{requests});
	$_->{json} = eval { JSON::PP->new->decode($_->{body}) } for @requests;
	return @requests;
}

###############################################################################

package Test::Chatbot::Nginx;

use parent -norequire, 'Test::Chatbot::Server';

# Takes: dir (the prefix), conf (a file), globals (further directives).  With
# CHATBOT_PRELOAD in the environment that is preloaded, in nginx alone; it runs
# under CHATBOT_VALGRIND, a command.
sub command {
	my ($self, @args) = @_;
	my $preload = $ENV{CHATBOT_PRELOAD};

	return ($preload ? ('env', "LD_PRELOAD=$preload") : (),
		split(/ /, $ENV{CHATBOT_VALGRIND} // ''), nginx(),
		'-p', "$self->{dir}/", '-c', $self->{conf},
		'-e', $self->{errors} // 'stderr', '-g', $self->{globals} // '', @args);
}

# Not in the PATH of Debian's ordinary users.
sub nginx {
	my $installed = '/usr/sbin/nginx';
	return $ENV{TEST_NGINX_BINARY} // (-x $installed ? $installed : 'nginx');
}

sub gentle_signal { 'QUIT' }

sub ready {
	my ($self) = @_;
	my $pid = Test::Chatbot::Server::read_file("$self->{dir}/nginx.pid");

	return $pid eq "$self->{pid}\n";
}

1;
