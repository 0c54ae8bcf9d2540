package Test::Chatbot::Env;

# Reads a .env as docker-compose does, for "make run".
#
#     my ($values, @unset) = parse_env($text, \%ENV);
#
# Returns a hash of the values and the names of variables that were referred to
# but are not set.  Dies with the line and the reason if the text is not valid;
# the message never shows a value.
#
#     NAME=value           up to the end of the line or " #"; "export NAME=value"
#     NAME='value'         as it is, except \'
#     NAME="value"         with \n, \t, \", \\, \$ and the like
#
# Quoted values may have several lines.  Of several lines with one name the last
# counts.  Outside of single quotes $NAME, ${NAME}, ${NAME:-default},
# ${NAME:+other} and ${NAME:?message} are replaced by the value from the
# environment, or else from a line above; $$ is a "$".
#
# This is what Compose v2 does.  docker-compose 1.29 knows ${NAME} and
# ${NAME:-default} only, replaces them in single quotes too, and leaves $$ alone.

use warnings;
use strict;

use Exporter qw/ import /;

our @EXPORT_OK = qw/ parse_env /;

my %escape = (a => "\a", b => "\b", f => "\f", n => "\n", r => "\r", t => "\t",
	v => "\x0b", '"' => '"', '\\' => '\\', '$' => '$$');

sub parse_env {
	my ($text, $environment) = @_;
	my (%values, %unset);

	my $lookup = sub {
		my ($name) = @_;
		my $value = $environment->{$name} // $values{$name};
		$unset{$name} = 1 if !defined $value;
		return $value;
	};

	$text =~ s/^\xEF\xBB\xBF//;
	$text =~ s/\r\n/\n/g;

	for ($text) {
		while (/\G(?:\s+|#.*)*+(?=\S)/gc) {
			my $line = 1 + substr($_, 0, pos) =~ tr/\n//;
			eval {
				my ($name, $value) = statement($lookup);
				$values{$name} = $value if defined $value;
				1;
			} or die "line $line: $@";
		}
	}

	return \%values, sort keys %unset;
}

# Reads one statement from pos($_) on.  A name without a value says nothing:
# the environment has the value already.
sub statement {
	my ($lookup) = @_;

	/\G(?:export[^\S\n]+)?([^=:\n]*)([=:]?)[^\S\n]*/gc;
	my ($name, $assigned) = ($1, $2);
	$name =~ s/\s+$//;
	$name =~ /^[\w.\-\[\]]+$/ or die "this is no name of a variable\n";
	return $name if !$assigned;

	return ($name, expand(unescape($1), $lookup))
		if /\G"((?:[^"\\]|\\.)*)"/gcs;
	return ($name, $1 =~ s/\\'/'/gr) if /\G'((?:[^'\\]|\\.)*)'/gcs;
	die "the quoted value of $name has no end\n" if /\G["']/gc;

	/\G(.*)/gc;
	return ($name, expand($1 =~ s/\s+#.*//r =~ s/\s+$//r, $lookup));
}

sub unescape {
	my ($text) = @_;
	return $text =~ s/\\([abfnrtv"\\\$])/$escape{$1}/gr;
}

sub expand {
	my ($text, $lookup) = @_;

	$text =~ s{ \$ (?: (\$) | ([A-Za-z_]\w*)
		| (?<braces> \{ (?<inside> (?: [^{}] | (?&braces) )* ) \}) )
	}{
		defined $1 ? '$' : defined $2 ? $lookup->($2) // ''
			: braced($+{inside}, $lookup)
	}gexs;
	return $text;
}

sub braced {
	my ($inside, $lookup) = @_;

	my ($name, $colon, $how, $word) =
		$inside =~ /^([A-Za-z_]\w*)(?:(:?)([-+?])(.*))?$/s
		or die "what is between \${ and } is not understood\n";
	return $lookup->($name) // '' if !defined $how;

	my $value = $lookup->($name);
	my $is_set = defined $value && ($value ne '' || !$colon);

	return $is_set ? expand($word, $lookup) : '' if $how eq '+';
	return $value if $is_set;
	return expand($word, $lookup) if $how eq '-';
	die "$name is not set: $word\n";
}

1;
