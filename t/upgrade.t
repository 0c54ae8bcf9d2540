#!/usr/bin/perl

# Another binary (USR2) takes over what the environment says.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture read_file /;

###############################################################################

# for a module with a sanitizer
my $preload = join '', map { "env $_;\n" } qw/ LD_PRELOAD LSAN_OPTIONS
	TSAN_OPTIONS UBSAN_OPTIONS /;

my $t = Test::Chatbot->new(main => $preload, conf => <<'EOF');
location /chat {
    chatbot_pass env:OPENAI_BASE_URL;
    chatbot_system_prompt env:MY_PROMPT;
}
EOF

my ($api, $postgres) = ($t->openai, $t->postgres);
my %env = (OPENAI_API_KEY => $t->key, OPENAI_BASE_URL => $api->url,
	OPENAI_MODEL => 'gpt-6-luna', REDIS_URL => $t->redis->url,
	DATABASE_URL => $postgres->url, MY_PROMPT => 'Be brief.');

# One that stands in the foreground of its parent knows no USR2.
$t->write_conf($t->{conf});
my $conf = $t->read('nginx.conf') =~ s/daemon off;//r;
open my $fh, '>', $t->nginx->{conf} or die $!;
print $fh $conf;
close $fh;

{
	local @ENV{keys %env} = values %env;
	is(capture($t->nginx->command), '', 'started');
}
wait_for { pid('nginx.pid') } or die $t->error_log;
my $first = pid('nginx.pid');

like(ask('hi'), qr/"answer 1: hi".*"api"/, 'asked');
my $slow = dial();
print $slow request(GET => '/chat?query=[delay%202]%20old%20binary');
wait_for { $api->in_flight == 1 };

my $second = upgraded($first);
like(join('', <$slow>), qr/ 200 .*old binary"/s, 'answer of the old one');
ok(gone($first), 'the old one is gone');

like(ask('hi'), qr/"answer 1: hi".*"cache"/, 'the same Redis');
like(ask('hello'), qr/"answer 3: hello".*"api"/, 'the same API');
my $asked = ($api->requests)[-1]{json};
is($asked->{model}, 'gpt-6-luna', 'the same model');
is($asked->{messages}[0]{content}, 'Be brief.', 'the same prompt');
is(wait_rows(4), 4, 'the same PostgreSQL');

# and yet another

my $third = upgraded($second);
ok(gone($second), 'that one is gone, too');
like(ask('HELLO'), qr/"answer 3: hello".*"cache"/, 'the third');
is(wait_rows(5), 5, 'the third, row');

kill 'QUIT', $third;
ok(gone($third), 'quit');

done_testing();

END { kill 'TERM', $_ for grep { $_ } map { pid($_) } 'nginx.pid',
	'nginx.pid.oldbin' }

###############################################################################

sub pid { $t->read($_[0]) =~ /^(\d+)\n/ ? $1 : 0 }

# The pid of the master process that takes the place of this one.
sub upgraded {
	my ($old) = @_;

	kill 'USR2', $old;
	wait_for { pid('nginx.pid.oldbin') == $old && pid('nginx.pid') }
		or die "no other binary:\n", $t->error_log;
	kill 'QUIT', $old;
	return pid('nginx.pid');
}

sub gone {
	my ($pid) = @_;
	return wait_for { read_file("/proc/$pid/stat") !~ /\) [^ZX] / };
}
