#!/usr/bin/perl

# Which folder may include what, besides the standard library and itself; the
# table in ngx_http_chatbot_module/README.md shows the same.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir("$FindBin::Bin/../ngx_http_chatbot_module"); }

my $network = qr{^<(arpa|netinet|sys)/|^<(netdb|poll|unistd)\.h>$};

my %may_include = (
	text     => qr{^<(utf8proc\.h|openssl/evp\.h|cjson/cJSON\.h)>$},
	core     => qr{^"text/},
	journal  => qr{^"text/|^<(dirent|fcntl|unistd|sys/\w+)\.h>$},
	redis    => qr{^"(core|text)/|^<(hiredis|openssl)/|$network},
	openai   => qr{^"(core|text)/|^<curl/},
	reactor  => qr{^"(redis|openai|core|text)/|$network},
	log      => qr{^"(journal|postgres|core|text)/},
	postgres => qr{^"(core|text)/|^<(libpq-fe|poll|signal)\.h>$},
	nginx    => qr{.},
);

for my $file (sort glob '*/*.[hc]pp') {
	my ($folder) = $file =~ m{^(\w+)/};
	my $may = $may_include{$folder} or fail("$folder/ has a row"), next;

	my @strangers = grep {
		!m{^<[a-z_]+>$} && !m{^"$folder/} && $_ !~ $may
	} includes($file);

	is("@strangers", '', "$file includes only what its folder may");
}

is(join(' ', glob '*.[hc]pp'), '', 'every file has a folder');

done_testing();

sub includes {
	open my $fh, '<', shift or die $!;
	return map { /^\s*#\s*include\s+(\S+)/ ? $1 : () } <$fh>;
}
