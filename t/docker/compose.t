#!/usr/bin/perl

# "docker-compose up --build", as a user of the old service meets it.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use FindBin;
use POSIX ();
use Test::More;
use Time::HiRes qw/ time /;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot;
use Test::Chatbot::Docker;
use Test::Chatbot::Server qw/ capture read_file /;

###############################################################################

need_docker();
need_images('debian:trixie-slim', 'postgres:18', 'redis:8');

my $tree = abs_path("$FindBin::Bin/../..");
build('chatbot-test-openai', "$FindBin::Bin/images/openai.Dockerfile",
	"$tree/t/lib");

my $t = Test::Chatbot->new();
my $dir = $t->dir . '/it';
my @at = (port => port(), timeout => 60);
my $question = 'What is nginx?';
my $other;                      # a container beside those of docker-compose

must('sh', '-ec', 'mkdir "$2"; cd "$1"; tar -c --exclude=./build --exclude=./run'
	. ' --exclude=./.git . | tar -xC "$2"', 'sh', $tree, $dir);
chdir $dir or die;

write_file('.env', <<'EOF');
OPENAI_API_KEY="sk-test"
POSTGRES_DB='chat db'
POSTGRES_USER=me
POSTGRES_PASSWORD="p@ss w0rd's #1"
POSTGRES_HOST=postgres
REDIS_HOST=redis
EOF

write_file('docker-compose.override.yml', <<'EOF');
services:
  nginx:
    environment:
      OPENAI_BASE_URL: http://openai:8080/v1
    depends_on:
      openai: {condition: service_started}
  openai:
    image: chatbot-test-openai
EOF

$ENV{COMPOSE_PROJECT_NAME} = "chatbot-test-$$";
$ENV{PORT} = port();

# so that the time below is not that of apt-get and g++
my $begin = time();
compose('build');
note sprintf 'image built in %.0f s', time() - $begin;

$begin = time();
compose(qw/ up --build -d /);
like(asked($question), qr/"answer 1: What is nginx\?", "source": "api"/,
	'asked');
note sprintf 'first answer %.1f s after "up"', time() - $begin;
healthy($_) for qw/ nginx db redis /;
like(get('/', @at), qr{ 200 .*Content-Security-Policy.*<title>Chatbot}s, 'page');
is(compose(qw/ exec -T redis redis-cli ping /), 'PONG', 'redis-cli');

like(asked(uc $question), qr/ 200 .*"cache"/s, 'then cached');
my @statuses = map { status($_) }
	many({ @at, headers => ['X-Forwarded-For: 192.0.2.1'] }, ($question) x 8);
my $served = 2 + grep { $_ == 200 } @statuses;
like(join(' ', sort @statuses), qr/^(200 ){3,5}429 .*429$/, 'limit');

is(rows($served), $served, 'rows');
is(sql('select status, count(*) from request_logs group by 1 order by 1'),
	'cached|' . ($served - 1) . "\nsuccess|1", 'what they say');
like(sql('select distinct ip_address from request_logs'),
	qr/^(?!192\.0\.2|127)[\d.]+$/, 'one address, not the one it claims');

# what an operator looks at

my $nginx = container('nginx');
my $image = inspect($nginx, '{{.Image}}');
docker('tag', $image, 'chatbot-test-nginx');

is(ports(), "0.0.0.0:$ENV{PORT}->8000/tcp", 'one port');
is(docker('exec', $nginx, 'id', '-un'), 'www-data', 'not root');
ok(!succeeds('docker', 'exec', $nginx, 'touch', '/tmp/it'), 'read-only');
ok(!succeeds('docker', 'exec', $nginx, 'sh', '-c', 'command -v cc c++ make'),
	'no compiler');
like(docker('logs', $nginx), qr{"GET /chat" 200 .*"HIT"}, 'access log');
unlike(docker('logs', $nginx), qr/What is nginx|sk-test|p\@ss|\[(alert|emerg)\]/,
	'no question, no secret, no alert in it');
is(docker(qw{ run --rm -e OPENAI_API_KEY_FILE=/etc/nginx/nginx.conf }, $image,
	'sh', '-c', 'test "$OPENAI_API_KEY" = "$(cat /etc/nginx/nginx.conf)"'
	. ' && echo same'), 'same', 'a secret as a file');
note sprintf 'image: %.0f MB, of which Debian %.0f MB',
	map { docker(qw/ image inspect -f {{.Size}} /, $_) / 1e6 } $image,
	'debian:trixie-slim';

# a configuration of one's own: README's example

my ($example) = read_file('README.md')
	=~ /^## Example configuration\n\n```nginx\n(.*?)^```/ms;
write_file('my.conf', $example);
write_file('openai.key', "sk-test\n");
write_file('postgres.conninfo', "host=127.0.0.1 user=me\n");
$other = docker(qw{ run -d --read-only --tmpfs /run/chatbot -v },
	"$dir/my.conf:/etc/nginx/nginx.conf:ro",
	map({ ('-v', "$dir/$_:/etc/nginx/$_:ro") } qw/ openai.key
		postgres.conninfo /), $image);
my $status = sub { capture('docker', 'exec', $other, qw{ curl -s -o /dev/null
	-w %{http_code} http://127.0.0.1:8000/chat }) };
ok((wait_for { $status->() eq '422' } 30), "README's example")
	or diag docker('logs', $other);
like(docker('logs', $other), qr{"GET /chat HTTP/1.1" 422}, 'its access log');
ok((wait_for { inspect($other, '{{.State.Health.Status}}') eq 'healthy' } 60),
	'it is healthy');
remove_other();

# restart

compose('restart');
healthy('redis');       # nginx may be up before it, and answers without
like(asked($question), qr/ 200 .*"cache"/s, 'restarted, still cached');

# with a password for Redis

write_file('.env', read_file('.env') . "REDIS_PASSWORD='p\@ss \"1\" #2'\n");
compose(qw/ up -d /);
healthy($_) for qw/ redis nginx /;
is(compose(qw/ exec -T redis redis-cli ping /), 'PONG', 'redis-cli, password');
like(compose('exec', '-T', 'redis', 'sh', '-c',
	'unset REDIS_PASSWORD; redis-cli ping'), qr/NOAUTH/, 'which is needed');
like(asked($question), qr/ 200 .*"cache"/s, 'and nginx has it');
++$served;

write_file('redis.password', "from a file\n");
chmod 0644, 'redis.password' or die $!;
write_file('.env', read_file('.env')
	. "REDIS_PASSWORD_FILE=/run/secrets/redis\n");
(my $override = read_file('docker-compose.override.yml'))
	=~ s/^  nginx:\n\K/    secrets: [redis]\n/m;
write_file('docker-compose.override.yml', $override . <<'EOF');
  redis:
    secrets: [redis]
secrets:
  redis: {file: ./redis.password}
EOF
compose(qw/ up -d /);
healthy($_) for qw/ redis nginx /;
is(compose(qw/ exec -T redis redis-cli ping /), 'PONG', 'a password in a file');
like(compose('exec', '-T', 'redis', 'sh', '-c',
	'unset REDIS_PASSWORD_FILE; redis-cli ping'), qr/WRONGPASS/, 'that counts');
like(asked($question), qr/ 200 .*"cache"/s, 'and nginx has read it');
++$served;

# without a database

compose('kill', 'db');
like(asked('And what is Redis?'), qr/ 200 .*"api"/s, 'db killed');
compose('start', 'db');
is(rows($served + 2), $served + 2, 'rows when it is back');

# down in the middle of things, and up again

compose('kill', 'db');
like(asked('And what is SQL?'), qr/ 200 .*"api"/s, 'db killed again');
my $asking = in_background('[delay 3] Still there?');
wait_for { calls() =~ /"in_flight":1/ };
compose('down');
like(<$asking>, qr/ 200 .*Still there/s, 'answered on the way down');

compose(qw/ up -d /);
like(asked('And what is SQL?'), qr/ 200 .*"cache"/s, 'up again, still cached');
is(rows($served + 5), $served + 5, 'nothing lost');
is(sql('select count(distinct request_id) from request_logs'), $served + 5,
	'nothing twice');

# rows of the old service

$other = docker(qw/ run -d -e POSTGRES_USER=old -e POSTGRES_PASSWORD=old -e
	POSTGRES_DB=chat /, 'postgres:18');
wait_for { succeeds('docker', 'exec', $other, qw/ pg_isready -h 127.0.0.1 /) } 60;
docker('exec', $other, qw/ psql -Xq -U old -d chat -c /, 'CREATE TABLE'
	. ' request_logs AS SELECT 100000 + i AS id, \'192.0.2.1\' AS ip_address,'
	. ' \'question \' || i AS request_text, \'answer\' AS response_text,'
	. ' \'success\' AS status, now() AS timestamp FROM generate_series(1, 1000) i');
like(capture('docker/import-requests', $other), qr/^1000 rows copied\r?$/m,
	'import-requests');
is(rows($served + 1005), $served + 1005, 'rows of both');
like(capture('docker/import-requests', $other), qr/^0 rows copied\r?$/m,
	'import-requests, again');

done_testing();

###############################################################################

sub write_file {
	my ($file, $text) = @_;
	open my $fh, '>', $file or die "$file: $!";
	print $fh $text;
	close $fh;
}

# Asks once nginx is there to be asked.
sub asked {
	my ($text) = @_;

	wait_for { get('/health', @at) =~ / 200 / } 120;
	return ask($text, @at);
}

# A handle to read the response from.
sub in_background {
	my ($text) = @_;

	my $pid = open(my $handle, '-|') // die "fork: $!";
	return $handle if $pid;

	syswrite STDOUT, ask($text, @at) =~ s/\s+/ /gr;
	POSIX::_exit(0);
}

sub remove_other {
	eval { docker('rm', '-f', '-v', $other) } if $other;
	undef $other;
}

sub container { compose('ps', '-q', @_) }

sub inspect {
	my ($container, $format) = @_;
	return docker('inspect', '-f', $format, $container);
}

sub healthy {
	my ($service) = @_;
	my $health = sub { inspect(container($service), '{{.State.Health.Status}}') };

	wait_for { $health->() eq 'healthy' } 60;
	is($health->(), 'healthy', "$service is healthy");
}

# Those of all containers that can be reached from outside.
sub ports {
	my $ports = docker('ps', '--format', '{{.Ports}}', '--filter',
		"label=com.docker.compose.project=$ENV{COMPOSE_PROJECT_NAME}");
	return join ' ', $ports =~ /\S+->\S+/g;
}

sub calls {
	return docker('exec', container('openai'), 'perl', '-MHTTP::Tiny', '-e',
		'print HTTP::Tiny->new->get("http://127.0.0.1:8080/_calls")->{content}');
}

sub sql {
	return compose('exec', '-T', 'db', 'psql', '-XAtq', '-U', 'me', '-d',
		'chat db', '-c', @_);
}

sub rows {
	my ($n) = @_;
	my $rows = sub { eval { sql('select count(*) from request_logs') } // 0 };

	wait_for { $rows->() >= $n } 60;
	return $rows->();
}

# After a failure, too.
END {
	local $?;
	remove_other();
	if ($dir && -e "$dir/docker-compose.override.yml") {
		diag(eval { compose('logs', '--tail=20') })
			if !Test::More->builder->is_passing;
		eval { compose(qw/ down -v --rmi local /) };
		chdir '/';
	}
}
