#!/usr/bin/perl

# README.md and the two others: each example is run, each link leads somewhere,
# and each directive and variable has its place.

use warnings;
use strict;

use FindBin;
use JSON::PP;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;
use Test::Chatbot::Browser;
use Test::Chatbot::Server qw/ capture read_file /;

chdir "$FindBin::Bin/.." or die;

###############################################################################

my @pages = qw{ README.md ngx_http_chatbot_module/README.md t/README.md };
my $readme = read_file($pages[0]);

# Commands that other tests run, and what of them is found there.
my @elsewhere = (
	[qr{^make run$}, 't/run.t', qr{lib/run}],
	[qr{^make test}, '.ci/run', qr{^make test\b}m],
	[qr{^make fuzz}, '.ci/run', qr{make fuzz\b}],
	[qr{^make deb$|^apt install}, 't/docker/deb.t', qr{/tmp/chatbot\.deb}],
	[qr{^(cp|install|nginx -t) }, 't/docker/deb.t', qr{examples/chatbot\.conf}],
	[qr{^make( packages)?$}, 'docker/Dockerfile', qr{^RUN make packages$}m],
	[qr{^docker(-compose)? |^cp \.env}, 't/docker/compose.t', qr{compose\(}],
	[qr{^docker/import-requests}, 't/import.t', qr{import-requests}],
	[qr{^mv -n}, 't/journal_dir.t', qr{README\.md}],
	[qr{^prove -v t/cache\.t}, '.ci/run', qr{^make test\b}m],
);

# They take long; whoever changes what they do runs them.
my $by_hand = qr{^make\ (NGINX_SRC|modules|test-|simulate)|^\./configure}x;

my %answers = (
	'What is the capital of France?' => 'The capital of France is Paris.',
	'And of Italy?' => 'The capital of Italy is Rome.',
	'hi' => 'Hello there.',
);

my $t = chatbot();

my %run = (
	console => \&console,
	js => \&javascript,
	nginx => \&configuration,
	python => \&python,
	sql => \&sql,
	text => sub { pass('a picture') },
	yaml => \&compose_file,
);

for my $page (@pages) {
	for (blocks($page)) {
		my ($language, $text) = @$_;
		my $run = $run{$language} or fail("$page: \"$language\""), next;
		subtest "$page: " . ($text =~ /(.*)/)[0] => sub { $run->($text) };
	}
}

links($_) for @pages;
directives();
variables();

done_testing();

###############################################################################
# The server: nginx.conf as it is shipped, but for where it listens and the limit.

sub chatbot {
	my $conf = read_file('nginx.conf');
	$conf =~ s/^(load_module|worker_processes|pid|error_log)\s.*\n//mg;
	$conf =~ s/\blisten 8000;/listen 127.0.0.1:%%PORT%%;/;
	$conf =~ s{/dev/stdout}{%%TEST%%/access.log};
	$conf =~ s/\brate=5r/rate=9999r/;

	my $server = Test::Chatbot->new(conf => $conf,
		openai => ['--answers', JSON::PP->new->utf8->encode(\%answers)],
		env => { OPENAI_BASE_URL => '%%API%%', REDIS_URL => '%%REDIS%%',
			DATABASE_URL => '%%POSTGRES%%', CHATBOT_CLIENTS => 'clients' });
	symlink "$FindBin::Bin/../docker/html", $server->dir . '/html' or die $!;
	write_file('clients', "ann key-of-ann\n", $server);
	return $server->run;
}

# As a reader with this server would have to write it.
sub here {
	my ($text) = @_;
	return $text =~ s/localhost:8000/'127.0.0.1:' . port()/ger;
}

###############################################################################
# Blocks of code, by their language.

sub blocks {
	my ($page) = @_;
	my $text = read_file($page);

	my @blocks = map { [$_->[0], $_->[1]] } matches($text,
		qr/^```(\w*)\n(.*?)^```$/ms);
	is(2 * @blocks, scalar(() = $text =~ /^```/mg), "$page, blocks");
	unlike($text, qr/^ {4,}[\$#] /m, "$page, no block without a language");
	return @blocks;
}

sub matches {
	my ($text, $pattern) = @_;
	my @matches;
	push @matches, [map { substr $text, $-[$_], $+[$_] - $-[$_] } 1 .. $#-]
		while $text =~ /$pattern/g;
	return @matches;
}

# "$ " and "# " begin a command; what follows is what it prints, if shown.
sub console {
	my ($text) = @_;
	$text =~ s/ {2,}# .*//g;

	for (split /^(?=[\$#] )/m, $text) {
		my ($command, $output) = /^[\$#] ((?:.*\\\n)*(?:[^'\n]*|'[^']*')*\n)(.*)/s;
		chomp $command;
		$command =~ /^curl / ? curl($command, $output)
			: $command =~ /^for f in / ? archive($command)
			: $command =~ /^redis-cli / ? remove_answers($command)
			: $command =~ /aside/ ? remove_person($command)
			: tested_elsewhere($command);
	}
}

sub curl {
	my ($command, $output) = @_;
	my $said = capture('sh', '-c', here($command =~ s/^curl/curl -sS/r));

	is($?, 0, $command);
	$output eq '' ? like($said, qr/Hello there\./, 'an answer')
		: is(alike($said), alike($output), 'what it prints');
}

# Without what is new each time: ids, and how a stream is cut into pieces.
sub alike {
	my ($text) = @_;

	if ($text =~ /^retry:/) {
		my $all = join '', map { $_->[0] } matches($text,
			qr/^event: delta\ndata: \{"text": "(.*)"\}$/m);
		$text =~ s/^id: \w+\.\d+\nevent: delta\n.*\n\n//mg;
		$text = "all: $all\n$text";
	}
	return $text =~ s/^id: \w{16}\./id: /mgr =~ s/\s+\z//r;
}

sub tested_elsewhere {
	my ($command) = @_;
	return pass("by hand: $command") if $command =~ $by_hand;

	my ($test) = grep { $command =~ $_->[0] } @elsewhere
		or return fail("a test runs: $command");
	like(read_file($test->[1]), $test->[2], "$test->[1]: $command");
}

# The files of a journal without PostgreSQL, one of which a worker writes to.
sub archive {
	my ($command) = @_;
	my $dir = $t->dir . '/archived';

	mkdir $_ for $dir, "$dir/archive";
	write_file("archived/requests-$_.jsonl", '') for 1 .. 3;
	$command =~ s{ /archive\b}{ $dir/archive}
		or fail("it moves to /archive: $command");
	capture('flock', "$dir/requests-2.jsonl", 'sh', '-c', "cd $dir; $command");
	is(join(' ', map { s/.*-//r } glob "$dir/archive/*"), '1.jsonl 3.jsonl',
		$command);
}

sub remove_answers {
	my ($command) = @_;
	my $redis = $t->redis;

	ok(wait_for { $redis->cli('--scan') =~ /^chatbot:/ }, 'answers are kept');
	capture('sh', '-c', $command =~ s/redis-cli/"redis-cli -s " . $redis->path/ger);
	is($redis->cli('--scan'), '', $command);
}

# The text of an address stays where it is in a question.
sub remove_person {
	my ($command) = @_;
	my ($his, $others) = map { qq({"ip_address":"$_","request_text":"192.0.2.1"}\n) }
		'192.0.2.1', '192.0.2.10';

	write_file('rejected.jsonl', $his . $others . $his);
	capture('sh', '-c', "cd '@{[ $t->dir ]}' && $command");
	is($t->read('kept.jsonl'), $others, $command);
	ok(!-e $t->dir . '/aside', 'the others are all that is left');
}

# In the first context in which nginx takes it.
sub configuration {
	my ($text) = @_;
	my $dir = $t->dir;

	write_file('openai.key', "sk-test\n");
	write_file('postgres.conninfo', "host=127.0.0.1\n");
	write_file('chatbot-clients', "ann key-of-ann\n");
	$text =~ s{^load_module modules/ngx_http_chatbot_module\.so;}{}m;
	$text =~ s{/path/to/docker/}{$FindBin::Bin/../docker/}g;
	$text =~ s{(?:/etc|/var/lib)/nginx/}{$dir/}g;

	my @said;
	local $ENV{SECOND_KEY} = 'sk-second';
	for ($text, "$text\nserver {\n}", "location / {\n$text\n}") {
		push @said, $t->check($_);
		return pass('nginx -t') if $said[-1] =~ /test is successful/;
	}
	fail('nginx -t');
	diag($_) for @said;
}

sub sql {
	my ($text) = @_;

	wait_rows(1);
	for (split /;\n/, $text) {
		my $said = $t->postgres->sql($_);
		unlike($said, qr/ERROR|FATAL/, $_) or diag($said);
	}
}

sub python {
	my ($text) = @_;
	write_file('example.py', here($text));

	SKIP: {
		my ($package) = $text =~ /^from (\w*openai) import/;
		skip "no package \"$package\"", 1 if $package
			&& capture('python3', '-c', "import $package") ne '';
		answered(capture('python3', $t->dir . '/example.py'));
	}
}

sub javascript {
	my ($text) = @_;
	return in_browser($text) if $text =~ /EventSource/;

	my $modules = "$FindBin::Bin/../build/sdk/node_modules";
	symlink $modules, $t->dir . '/node_modules';
	write_file('example.mjs', here($text));

	SKIP: {
		skip 'no SDKs', 1 if $text =~ /^import/m && !-d $modules;
		skip 'LangChain needs Node.js 20', 1 if $text =~ /langchain/
			&& capture('node', '--version') =~ /^v1?\d\./;
		answered(capture('node', $t->dir . '/example.mjs'));
	}
}

# On a page of the same server, as EventSource is used there.
sub in_browser {
	my ($text) = @_;
	my $missing = Test::Chatbot::Browser::missing();

	SKIP: {
		skip "no $missing", 1 if $missing;
		my $browser = Test::Chatbot::Browser->new;
		$browser->open(here('http://localhost:8000/health'));
		$browser->value("var said; console.log = text => { said = text; };\n$text");
		$browser->until('said !== undefined');
		answered($browser->value('said'));
	}
}

sub answered {
	my ($said) = @_;
	ok((grep { $said eq $_ } values %answers), 'it prints an answer')
		or diag($said);
}

# A docker-compose.override.yml.
sub compose_file {
	my ($text) = @_;

	SKIP: {
		skip 'no docker-compose', 1 if system('docker-compose version'
			. ' >/dev/null 2>&1');
		system('cp', 'docker-compose.yml', $t->dir) == 0 or die;
		write_file('.env', read_file('.env.example'));
		write_file('docker-compose.override.yml', $text);
		is(capture('sh', '-c', "cd '@{[ $t->dir ]}' && docker-compose config -q"),
			'', 'docker-compose config');
	}
}

###############################################################################
# Text.

sub links {
	my ($page) = @_;
	my $text = read_file($page) =~ s/^```.*?^```$//msgr;
	my ($dir) = $page =~ m{^(.*/)?};
	my %anchor = map { $_->[0] => 1 } map { [lc($_->[0] =~ s/ /-/gr
		=~ s/[^\w-]//gr)] } matches($text, qr/^#+ (.*)$/m);

	my @targets = map { $_->[0] } matches($text, qr/\]\(([^)]+)\)/);
	my @lost = grep { /^#(.*)/ ? !$anchor{$1}
		: !m{^https://} && !-e ($dir // '') . $_ } @targets;
	is("@lost", '', "$page, links");
}

# Each has Syntax, Default, Context and version, and nginx takes it where it is
# said to belong, and nowhere else.
sub directives {
	my %section = map { @$_ } matches($readme,
		qr/^### (chatbot_\w+)\n\n(.*?)(?=^##)/ms);
	my @source = map { read_file($_) } glob 'ngx_http_chatbot_module/nginx/*.cpp';
	my @there = map { matches($_, qr/
		(?:CHATBOT_LOC\(|\{ngx_string\("chatbot_)"?(\w+)"\)?,\s*NGX_/x) } @source;

	is(join(' ', sort keys %section),
		join(' ', sort map { "chatbot_$_->[0]" } @there), 'directives');

	for my $name (sort keys %section) {
		my ($syntax, $contexts) = $section{$name} =~ /\A\*\*Syntax:\*\*\ `(.*)`\\\n
			\*\*Default:\*\*\ .+\\\n
			\*\*Context:\*\*\ (.*)\\\n
			\*\*Appeared\ in\ version:\*\*\ [\d.]+\n\n/x;
		like($syntax // '', qr/^$name\b/, "$name, syntax");
		is(contexts_of($name), $contexts // '', "$name, context");
	}
}

# Where nginx does not say that it isn't allowed.
sub contexts_of {
	my ($name) = @_;
	my %conf = (http => "$name;\nserver {\n}", server => "server {\n$name;\n}",
		location => "location / {\n$name;\n}",
		'if in location' => "location / {\nif (\$uri) {\n$name;\n}\n}");

	return join ', ', grep { $t->check($conf{$_}) !~ /is not allowed here/ }
		'http', 'server', 'location', 'if in location';
}

sub variables {
	my $source = read_file('ngx_http_chatbot_module/nginx/variables.cpp');
	my @there = map { $_->[0] } matches($source, qr/ngx_string\("(chatbot_\w+)"\)/);
	my ($section) = $readme =~ /^## Variables\n(.*?)^## /ms;
	my @told = map { matches($_->[0], qr/`\$(chatbot_\w+)`/) }
		matches($section, qr/^\| (`.*?`) \|/m);

	is(join(' ', sort map { $_->[0] } @told), join(' ', sort @there),
		'variables');
}

sub write_file {
	my ($name, $text, $server) = @_;
	my $file = ($server // $t)->dir . "/$name";

	open my $fh, '>', $file or die "$file: $!";
	print $fh $text;
	close $fh;
}
