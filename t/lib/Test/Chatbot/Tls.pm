package Test::Chatbot::Tls;

# Certificates for tests: ca.pem, other.pem (another CA), and localhost.pem with
# localhost.key, which ca.pem vouches for.

use warnings;
use strict;

use Exporter qw/ import /;

use Test::Chatbot::Server qw/ capture /;

our @EXPORT_OK = qw/ make_certificates /;

sub make_certificates {
	my ($dir) = @_;

	for my $name (qw/ ca other /) {
		capture(qw/ openssl req -x509 -newkey ec -pkeyopt
			ec_paramgen_curve:prime256v1 -nodes -days 2 /,
			'-subj', "/CN=$name", '-keyout', "$dir/$name.key",
			'-out', "$dir/$name.pem");
	}

	capture(qw/ openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1
		-nodes -subj /, '/CN=localhost', '-addext',
		'subjectAltName=DNS:localhost', '-keyout', "$dir/localhost.key",
		'-out', "$dir/localhost.csr");
	my $said = capture(qw/ openssl x509 -req -days 2 -copy_extensions copyall
		-in /, "$dir/localhost.csr", '-CA', "$dir/ca.pem",
		'-CAkey', "$dir/ca.key", '-CAcreateserial',
		'-out', "$dir/localhost.pem");
	-s "$dir/localhost.pem" or die "openssl: $said\n";
}

1;
