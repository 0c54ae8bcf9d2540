package Test::Chatbot::Browser;

# A real browser, for tests: Debian's Chromium, driven by Playwright.
#
#     my $browser = Test::Chatbot::Browser->new;
#     $browser->open("http://127.0.0.1:$port/", colorScheme => 'dark');
#     $browser->fill('#query', 'hi');
#     $browser->press('Enter');
#     is($browser->text('.answer'), 'answer 1: hi', 'answered');
#     is_deeply($browser->complaints, [], 'no errors');
#
# Other methods are those of Playwright's Page; strings in and out are
# characters.  A method that fails, or waits for too long, dies.

use warnings;
use strict;

use Cwd qw/ abs_path /;
use File::Basename qw/ dirname /;
use IPC::Open2 qw/ open2 /;
use JSON::PP ();

my $lib = dirname(dirname(dirname(abs_path(__FILE__))));
my $modules = dirname(dirname($lib)) . '/build/browser/node_modules';
my $json = JSON::PP->new->utf8->allow_nonref;

# Why there is none here, or nothing.
sub missing {
	return 'Chromium' if !-x '/usr/bin/chromium';
	return 'playwright-core' if !-d "$modules/playwright-core";
	return;
}

sub new {
	my ($class) = @_;

	local $ENV{NODE_PATH} = $modules;
	my $pid = open2(my $out, my $in, 'node', "$lib/browser/driver.js");
	return bless { pid => $pid, in => $in, out => $out, owner => $$ }, $class;
}

sub open {
	my ($self, $url, %options) = @_;
	$self->call('open', \%options);
	return $self->call('goto', $url);
}

sub call {
	my ($self, @command) = @_;

	my $in = $self->{in};
	print $in $json->encode(\@command) . "\n";
	$in->flush;

	my $line = readline $self->{out};
	my $reply = defined $line ? $json->decode($line)
		: { error => 'the browser is gone' };
	die "$command[0]: $reply->{error}\n" if $reply->{error};
	return $reply->{result};
}

# What a reader sees there.
sub text { $_[0]->call('innerText', $_[1]) }

# The value of an expression.
sub value { $_[0]->call('evaluate', $_[1]) }

# To whatever has the focus.
sub press { $_[0]->call('keyboard.press', $_[1]) }
sub type { $_[0]->call('keyboard.type', $_[1]) }

our $AUTOLOAD;

sub AUTOLOAD {
	my ($self, @args) = @_;
	(my $name = $AUTOLOAD) =~ s/.*:://;
	return $self->call($name, @args);
}

sub DESTROY {
	my ($self) = @_;
	return if $self->{owner} != $$;

	local ($?, $!);
	close $self->{in};
	waitpid $self->{pid}, 0;
}

1;
