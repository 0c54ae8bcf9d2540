package Test::Chatbot::Metrics;

# What /metrics says.
#
#     counted('chatbot_requests_total', cache => 'HIT')
#
# is the sum of all series of that name with these labels, and
#
#     value('chatbot_redis_up')
#
# that of all series.

use warnings;
use strict;

use Exporter qw/ import /;

use Test::Chatbot;
use Test::Chatbot::Server qw/ capture /;

our @EXPORT = qw/ counted promtool samples value /;

# The lines with values.
sub samples { grep { !/^#/ } split /\n/, body(get('/metrics')) }

sub counted {
	my ($name, %labels) = @_;
	my $sum = 0;

	for my $line (grep { /^\Q$name\E[{ ]/ } samples()) {
		next if grep { $line !~ /[{,]$_="\Q$labels{$_}\E"/ } keys %labels;
		$sum += (split ' ', $line)[-1];
	}
	return $sum;
}

sub value { counted($_[0]) }

# Runs it with these arguments, as a shell takes them; undef if it is missing.
sub promtool {
	return if capture('sh', '-c', 'command -v promtool') eq '';
	return capture('sh', '-c', "promtool @_ 2>&1; echo \"= \$?\"");
}

1;
