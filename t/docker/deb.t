#!/usr/bin/perl

# "make deb" and "make install", for an nginx of Debian that is there already.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Docker;

###############################################################################

my @suites = qw/ bookworm trixie /;

need_docker();
need_images(map { "debian:$_-slim" } @suites);

my $tree = abs_path("$FindBin::Bin/../..");
my $dir = Test::Chatbot->new()->dir;
my $container;

for my $suite (@suites) {
	my $image = "chatbot-test-build-$suite";
	build($image, "$tree/docker/Dockerfile", $tree, qw/ --target build /,
		'--build-arg', "DEBIAN=$suite");

	subtest "package, $suite" => sub { package_of($image, $suite) };
	subtest "make install, $suite" => sub { make_install($image) };
}

done_testing();

###############################################################################

sub package_of {
	my ($image, $suite) = @_;

	$container = docker(qw/ run -d --rm /, "debian:$suite-slim",
		qw/ sleep infinity /);
	must('sh', '-ec', 'docker run --rm "$1" sh -c "cat build/*.deb" >"$2"', 'sh',
		$image, "$dir/chatbot.deb");
	docker('cp', $_, "$container:/tmp") for "$dir/chatbot.deb",
		"$tree/t/lib/openai";

	inside('apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy'
		. ' install --no-install-recommends nginx curl perl /tmp/chatbot.deb');
	like(nginx_t(), qr/successful/, 'nginx -t');
	like(inside('nginx -T 2>&1'), qr/load_module \S*chatbot/, 'enabled');

	# the example

	inside('cd /etc/nginx && sed "s|https://.*|http://127.0.0.1:8080/v1;|"'
		. ' /usr/share/doc/libnginx-mod-http-chatbot/examples/chatbot.conf'
		. ' >sites-enabled/chatbot.conf && echo sk-test >openai.key');
	like(nginx_t(), qr/successful/, 'nginx -t with the example');

	docker('exec', '-d', $container, '/tmp/openai', '--port', 8080);
	inside('nginx');
	ok(wait_for { ask_inside('hi') =~ /"answer \d+: hi", "source": "api"/ },
		'it answers');
	like(ask_inside(''), qr/"status": 422/, 'problem');
	like(inside('curl -si http://127.0.0.1:8000/'),
		qr{ 200 .*text/html.*Content-Security-Policy.*<title>Chatbot}s, 'page');
	like(inside('cat /var/lib/nginx/chatbot-journal/*'), qr/"hi"/, 'recorded');

	# gone, and back

	inside('rm /etc/nginx/sites-enabled/chatbot.conf;'
		. ' apt-get -qy remove libnginx-mod-http-chatbot');
	like(nginx_t(), qr/successful/, 'nginx -t once it is removed');
	unlike(inside('nginx -T 2>&1'), qr/chatbot/, 'disabled');
	inside('apt-get -qy install /tmp/chatbot.deb');
	like(inside('nginx -T 2>&1'), qr/load_module \S*chatbot/, 'enabled again');

	remove();
}

sub make_install {
	my ($image) = @_;

	$container = docker(qw/ run -d --rm /, $image, qw/ sleep infinity /);

	inside('make install DESTDIR=/tmp/it');
	is(inside('cd /tmp/it && find * -type f'),
		'usr/lib/nginx/modules/ngx_http_chatbot_module.so', 'DESTDIR');

	inside('make install');
	like(nginx_t(), qr/successful/, 'nginx -t');
	like(inside('nginx -T 2>&1'), qr/load_module \S*chatbot/, 'enabled');

	remove();
}

sub inside { docker('exec', $container, 'sh', '-c', @_) }
sub nginx_t { inside('nginx -t 2>&1; :') }

sub ask_inside {
	my ($text) = @_;
	return inside("curl -sG http://127.0.0.1:8000/chat"
		. " --data-urlencode 'query=$text'; :");
}

sub remove {
	docker('rm', '-f', $container);
	undef $container;
}

# After a failure, too.
END {
	local $?;
	remove() if $container;
}
