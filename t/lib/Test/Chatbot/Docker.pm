package Test::Chatbot::Docker;

# What tests with Docker need: an engine, docker-compose, and images of Debian.
#
#     use Test::Chatbot::Docker;
#
#     need_docker();              or skips all, and says why
#     need_images('redis:8', ...);
#     docker('ps');               what it prints; dies if it fails
#
# The engine that is there is used; else, for root, one is started for the time
# of the test.  Images that no registry has for us are made: those of Debian by
# debootstrap (DEBIAN_MIRROR: from there), others of t/docker/images.  These keep
# the names chatbot-test-*, so that the next time is quick, and lose the name that
# they stood in for when the test ends.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use Exporter qw/ import /;
use File::Basename qw/ dirname /;
use File::Path qw/ make_path /;
use File::Temp qw/ tempdir /;
use Test::More ();

use Test::Chatbot::Server qw/ capture /;

our @EXPORT = qw/ build compose docker must need_docker need_images succeeds /;

my $root = dirname(dirname(dirname(dirname(dirname(abs_path(__FILE__))))));
my $images = "$root/t/docker/images";
my ($engine, @compose, %stands_in);

sub need_docker {
	succeeds(qw/ docker --version /) or skip('there is no docker');
	@compose = grep { succeeds(@$_, 'version') } ['docker', 'compose'],
		['docker-compose'] or skip('there is no docker-compose');
	succeeds(qw/ docker info /) || start_engine();
}

sub skip { Test::More::plan(skip_all => @_) }

sub start_engine {
	my $dockerd = '/usr/sbin/dockerd';
	skip('no Docker engine can be reached') if $ENV{DOCKER_HOST} || $>
		|| !-x $dockerd;

	my $dir = tempdir('chatbot-docker-XXXXXX', TMPDIR => 1, CLEANUP => 1);
	make_path("$root/build");
	$ENV{DOCKER_HOST} = "unix://$dir/socket";
	$engine = Test::Chatbot::Dockerd->new(dir => $dir, program => $dockerd,
		data => "$root/build/docker");

	eval { $engine->start; 1 } or skip('no Docker engine can be started here: '
		. ($@ =~ /.*(failed to start.*)/ ? $1 : 'see dockerd'));
}

sub need_images {
	for my $name (@_) {
		next if succeeds(qw/ docker image inspect /, $name)
			|| succeeds(qw/ docker pull -q /, $name) || eval { make($name); 1 };

		Test::More::diag($@);
		skip("$name is in no registry that can be reached, nor can it be made");
	}
}

sub make {
	my ($name) = @_;
	(my $own = "chatbot-test-$name") =~ tr/:/-/;
	(my $file = "$images/$name") =~ s/:.*//;

	$name =~ /^debian:(\w+)-slim$/ ? debian($1, $own)
		: build($own, "$file.Dockerfile", $images);
	docker('tag', $own, $name);
	$stands_in{$name} = $own;
}

sub debian {
	my ($suite, $own) = @_;
	return if succeeds(qw/ docker image inspect /, $own);

	die "debootstrap is for root\n" if $>;
	must("$root/t/lib/install-packages", 'debootstrap');

	my $dir = tempdir('chatbot-debian-XXXXXX', TMPDIR => 1);
	must('sh', '-ec', 'mkdir -p "$1"; echo force-unsafe-io >"$1/docker"', 'sh',
		"$dir/root/etc/dpkg/dpkg.cfg.d");       # as in Docker's: no fsync()
	must(qw/ debootstrap --variant=minbase /, $suite, "$dir/root",
		$ENV{DEBIAN_MIRROR} // ());
	must('sh', '-ec', 'cd "$1"; rm -rf var/cache/apt/* var/lib/apt/lists/*'
		. ' usr/share/doc/* usr/share/man/* usr/share/locale/*; tar -cf- .'
		. ' | docker import - "$2"; rm -rf "$3"', 'sh', "$dir/root", $own, $dir);
}

sub build {
	my ($name, $file, $context, @args) = @_;
	docker('build', '-q', '-t', $name, '-f', $file, @args, $context);
}

sub docker { must('docker', @_) }
sub compose { must(@{$compose[0]}, @_) }

sub must {
	my @command = @_;
	my $said = capture(@command);
	die "@command:\n$said\n" if $?;
	return $said;
}

sub succeeds {
	my @command = @_;
	return eval { must(@command); 1 };
}

END {
	local $?;
	succeeds(qw/ docker rmi --no-prune /, $_) for keys %stands_in;
	if ($engine) {
		$engine->stop(seconds => 60);
		# It may leave these mounted, so that its directory cannot be removed.
		succeeds('umount', glob "$engine->{dir}/exec/netns/*");
	}
}

###############################################################################

package Test::Chatbot::Dockerd;

use parent -norequire, 'Test::Chatbot::Server';

# Takes: dir, program, data (where images are kept).
sub command {
	my ($self) = @_;

	return ($self->{program}, '--host', "unix://$self->{dir}/socket",
		'--data-root', $self->{data}, '--exec-root', "$self->{dir}/exec",
		'--pidfile', "$self->{dir}/pid");
}

sub ready { Test::Chatbot::Docker::succeeds(qw/ docker info /) }

1;
