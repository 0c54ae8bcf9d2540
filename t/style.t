#!/usr/bin/perl

# The C++ sources are as "make format" leaves them.

use warnings;
use strict;

use Test::More;

BEGIN { use FindBin; chdir("$FindBin::Bin/.."); }

my $version = `clang-format --version 2>/dev/null` || '';

# other versions format otherwise; on Debian 12 "make test" installs this one
plan skip_all => 'needs clang-format 14' unless $version =~ /version 14\./;

for my $file (glob '{ngx_http_chatbot_module/*,t/unit,t/unit/*,t/fuzz}/*.[hc]pp') {
	is(`clang-format --dry-run -Werror $file 2>&1`, '', "$file");
}

done_testing();
