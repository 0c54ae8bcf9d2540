#!/usr/bin/perl

# t/sdk_python.t with the SDK of Debian 13, on a Debian that has none.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/../lib";
use Test::Chatbot::Docker;
use Test::Chatbot::Sdk;

###############################################################################

need_docker();
need_images('debian:trixie-slim');
build('chatbot-test-python', "$FindBin::Bin/images/python.Dockerfile",
	"$FindBin::Bin/images");

my $scripts = sdk_scripts();
$ENV{CHATBOT_PYTHON} = "docker run --rm --network host -v $scripts:$scripts:ro"
	. ' chatbot-test-python python3';

do "$FindBin::Bin/../sdk_python.t" or die $@ || $!;
