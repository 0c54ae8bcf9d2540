#!/usr/bin/perl

# The chat page: what it is sent with.

use warnings;
use strict;

use Digest::SHA qw/ sha256_base64 /;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;

###############################################################################

my $html = "$FindBin::Bin/../docker/html";
my $t = Test::Chatbot->new(conf => <<"EOF")->run;
location = /chat {
    chatbot_pass %%API%%;
}

location = / {
    root $html;
    include $html/page.conf;
}
EOF

my $page = get('/');
my $policy = header($page, 'Content-Security-Policy');

is(header($page, 'Content-Type'), 'text/html; charset=utf-8', 'type');
is(header($page, 'X-Content-Type-Options'), 'nosniff', 'never guessed');
like($policy, qr/^default-src 'none';/, 'nothing from anywhere');
unlike($policy, qr/unsafe|\*|http/, 'no exceptions');

for my $name (qw/ script style /) {
	my @content = body($page) =~ m{<$name\b[^>]*>(.*?)</$name>}gs;
	is(@content, 1, "one $name");
	is_deeply([$policy =~ /$name-src '(.*?)'/],
		['sha256-' . sha256_base64($content[0]) . '='], "digest of the $name");
}

unlike(body($page), qr/\b(?:innerHTML|outerHTML|insertAdjacentHTML|eval
	|document\.write|on[a-z]+=")/x, 'no way from text to markup');

done_testing();
