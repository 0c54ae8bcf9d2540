#!/usr/bin/perl

# Who may include what, besides the standard library and its own header.  What
# decides or does I/O knows no nginx; no two of them know the same library.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir("$FindBin::Bin/../ngx_http_chatbot_module"); }

my %may_include = (
	exchange     => '',
	lane         => '',
	journal      => 'POSIX',
	fold         => 'utf8proc.h openssl/evp.h',
	json         => 'cjson/cJSON.h fold.hpp',
	query        => 'exchange.hpp fold.hpp json.hpp',
	record       => 'fold.hpp json.hpp',
	openai_json  => 'exchange.hpp fold.hpp json.hpp',
	conductor    => 'exchange.hpp fold.hpp lane.hpp record.hpp',
	redis_url    => 'fold.hpp',
	cache_value  => 'exchange.hpp fold.hpp json.hpp',
	cache_redis  => 'POSIX cache_value.hpp exchange.hpp fold.hpp redis_url.hpp'
		. ' hiredis/hiredis.h hiredis/hiredis_ssl.h'
		. ' openssl/err.h openssl/ssl.h openssl/x509v3.h',
	model_openai => 'exchange.hpp openai_attempt.hpp openai_json.hpp'
		. ' curl/curl.h',
	openai_attempt => 'exchange.hpp openai_json.hpp curl/curl.h',
	log_postgres => 'exchange.hpp postgres_connection.hpp record.hpp'
		. ' libpq-fe.h',
	postgres_connection => 'POSIX exchange.hpp fold.hpp libpq-fe.h',
);

my $posix = qr{^(sys/\w+|netinet/\w+|fcntl|poll|signal|time|unistd)\.h$};

for my $file (sort glob '*.[hc]pp') {
	my ($name) = $file =~ /^(\w+)\./;

	next if $name =~ /^ngx_/;       # the nginx layer may include anything

	my %may = map { $_ => 1 }
		"$name.hpp", split(/ /, $may_include{$name} // '');

	my @strangers = grep {
		!/^[a-z_]+$/                # the standard library
		&& !($may{POSIX} && $_ =~ $posix)
		&& !$may{$_}
	} includes($file);

	ok(defined $may_include{$name}, "$file has its place");
	is("@strangers", '', "$file includes only what its layer may");
}

done_testing();

sub includes {
	open my $fh, '<', shift or die $!;
	return map { /^\s*#\s*include\s+[<"](.+)[>"]/ ? $1 : () } <$fh>;
}
