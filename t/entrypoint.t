#!/usr/bin/perl

# The image's entrypoint, without Docker: secrets that come as files.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;
use Test::Chatbot::Server qw/ capture read_file /;

###############################################################################

my $dir = Test::Chatbot->new()->dir;

(my $entrypoint = read_file("$FindBin::Bin/../docker/entrypoint"))
	=~ s{/run/chatbot|/var/lib/chatbot}{$dir}g;
write_file('entrypoint', $entrypoint);

is(key(OPENAI_API_KEY => 'sk-1'), 'sk-1', 'no file');
is(key(OPENAI_API_KEY => '', OPENAI_API_KEY_FILE => ''), '', 'empty names');

write_file('secret', "sk-2\n");
is(key(OPENAI_API_KEY_FILE => "$dir/secret"), 'sk-2', 'file');
is(key(OPENAI_API_KEY => '', OPENAI_API_KEY_FILE => "$dir/secret"), 'sk-2',
	'file, empty name');

write_file('secret', "\xEF\xBB\xBFsk-3\r\n");
is(key(OPENAI_API_KEY_FILE => "$dir/secret"), 'sk-3', 'as Windows writes it');

write_file('empty', '');
is(key(OPENAI_API_KEY_FILE => "$dir/empty"), '', 'empty file');

for my $name (qw/ OPENAI_API_KEY REDIS_PASSWORD REDIS_URL POSTGRES_PASSWORD
	DATABASE_URL /)
{
	my $said = key("${name}_FILE" => "$dir/none", OPENAI_API_KEY => 'sk-1');
	isnt($?, 0, "$name, no such file: stops");
	like($said, qr/^entrypoint: ${name}_FILE: cannot read \Q$dir\E\/none$/m,
		"$name, no such file: says so");
	unlike($said, qr/sk-1/, "$name, no such file: runs nothing");
}

like(key(DATABASE_URL_FILE => $dir), qr/DATABASE_URL_FILE: cannot read/,
	'a directory');

done_testing();

###############################################################################

# What a command that the entrypoint starts sees.
sub key {
	my (%env) = @_;

	local @ENV{keys %env} = values %env;
	return capture('sh', "$dir/entrypoint", 'sh', '-c',
		'printf %s "$OPENAI_API_KEY"');
}

sub write_file {
	my ($name, $text) = @_;
	open my $fh, '>', "$dir/$name" or die "$name: $!";
	print $fh $text;
	close $fh;
}
