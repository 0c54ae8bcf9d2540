#!/usr/bin/perl

# How "make run" reads .env.  The values are those of "docker-compose config" of
# Compose v2; of docker-compose 1.29, too, where nothing else is said.

use warnings;
use strict;

use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot::Env qw/ parse_env /;

my %environment = (SHELL_SAYS => 'shell', EMPTY => '');

###############################################################################

# the form of the file

reads("\xEF\xBB\xBFA=1\nB=2\n", 'A=1 B=2', 'byte order mark');
reads("A=1\r\nB=\"2\"\r\nC=\r\nD=x # c\r\n", 'A=1 B=2 C= D=x', 'CRLF');
reads("A=\"one\r\ntwo\"\r\nB=3", "A=one\ntwo B=3", 'CRLF in quotes');  # v2: CRLF
reads("\n\n \t\nA=1\n\n  # c\n\n", 'A=1', 'empty lines');
reads('', '', 'empty file');
reads('A=1', 'A=1', 'no newline at the end');
reads("A=1\nB=2\nA=3\n", 'A=3 B=2', 'the last line counts');
reads("A=1\nA=\n", 'A=', 'the last line counts, empty');
reads("export A=1\n  export\tB=2\nexported=3\n", 'A=1 B=2 exported=3',
	'export');
reads("\tA\t=\t1\n  B = 2\n", 'A=1 B=2', 'white space');
reads("A=1\nB\nexport C\n", 'A=1', 'a name without a value');
reads("A.B-c[0]=1\n", 'A.B-c[0]=1', 'names');
reads("A: 1\n", 'A=1', 'colon (1.29: no value)');

# values without quotes

reads("A=one two  three  \n", 'A=one two  three', 'spaces');
reads("A=1 # c\nB=1# c\nC=#c\nD= # c\nE=a#b\nF=x\t# it's\n",
	'A=1 B=1# c C=#c D=# c E=a#b F=x', 'comments');
reads("A=postgresql://u:p%40\@h:5/d?x=y#z\nB=a=b==\n",
	'A=postgresql://u:p%40@h:5/d?x=y#z B=a=b==', 'URL, equals signs');
reads("A=a\\nb\\\"\nB=C:\\dir\\\n", 'A=a\nb\" B=C:\dir\\', 'backslashes');
reads("A=x\"y\"\nB=it's\nC={\"a\": \"b\"}\n", q|A=x"y" B=it's C={"a": "b"}|,
	'quotes inside');
reads("A=\xD0\x9E\xE9\n", "A=\xD0\x9E\xE9", 'bytes');

# values in quotes

reads(q|A='x  y' B=2|, 'A=x  y B=2', 'behind quotes');
reads(qq|A='a\\nb'\nB='it\\'s'\nC='a # "b"'\nD=''\n|,
	q|A=a\nb B=it's C=a # "b" D=|, 'single quotes');
reads(q|A="a\nb\tc\r\a\b\f\v" # c|, "A=a\nb\tc\r\a\b\f\x0b", 'escapes');
reads(qq|A="say \\"hi\\""\nB="a\\\\nb"\nC="a\\qb"\nD="it's # x"# c\nE=""\n|,
	q|A=say "hi" B=a\nb C=a\qb D=it's # x E=|, 'double quotes');
reads(qq|A="one\n# two\nB=3"\nC='x\n\ny'\nD=4\n|,
	"A=one\n# two\nB=3 C=x\n\ny D=4", 'several lines');

# references

reads(qq|A=1\nB=\${A}2\nC="\${A}3"\nD=x\${Z}x\n|, 'A=1 B=12 C=13 D=xx',
	'reference');
reads("A=1\nA=\${A}2\n", 'A=12', 'to itself');      # v2: 122
reads("A=\${SHELL_SAYS}\n", 'A=shell', 'to the environment');
reads("SHELL_SAYS=file\nA=\${SHELL_SAYS}\n", 'A=shell SHELL_SAYS=file',
	'to both (1.29: file)');
reads(qq|A=\${Z:-d}\nB="\${Z:-a b}"\nC=\${Z:-}x\nD=\${Z:-a}b}\n|,
	'A=d B=a b C=x D=ab}', 'default');
reads("A=\${EMPTY:-d}\nB=\${EMPTY-d}\nC=\${Z-d}\n", 'A=d B= C=d',
	'default (1.29: only :-)');
reads("Q=q\nA=\${Z:-\${Q}}\nB=\${Z:-\$Q}x\nC=\${Q:+x}\nD=\${Z+x}\n",
	'A=q B=qx C=x D= Q=q', 'nested, other (1.29: no)');
reads(qq|A=a\$\$b\nB="a\$\$b"\nC='a\$\$b'\nD=\$\$Z\n|,
	'A=a$b B=a$b C=a$$b D=$Z', 'two dollars (1.29: two)');
reads(qq|A=a\$\nB=a\$5\nC="a\$ b"\nD=\$(date)\n|,
	'A=a$ B=a$5 C=a$ b D=$(date)', 'one dollar');
reads(qq|A=1\nB=\$A\nC="\$A-"\nD='\${A} \$A'\nE="\\\$A"\n|,
	'A=1 B=1 C=1- D=${A} $A E=$A', 'others (1.29: no, but in single quotes)');

my (undef, @unset) = parse_env("A=p\$w0rd\nB=\${y}\nC=\${x:-1}\nD=\${x}\n", {});
is("@unset", 'w0rd x y', 'names that are not set');

# what is refused (1.29 warns and goes on)

refuses("A=1\n\nB C=2\n", "line 3: this is no name of a variable\n", 'space');
refuses("=1\n", "line 1: this is no name of a variable\n", 'no name');
refuses("'A'=1\n", "line 1: this is no name of a variable\n", 'quoted name');
refuses("A=1\nB=\"secret\nC=3\n",
	"line 2: the quoted value of B has no end\n", 'no end');
refuses("A='secret\n", "line 1: the quoted value of A has no end\n", 'no end');
refuses("A=secret\${Z/x}\n",
	"line 1: what is between \${ and } is not understood\n", 'reference');
refuses("A=\${Z:?say it}\n", "line 1: Z is not set: say it\n", 'required');

done_testing();

###############################################################################

sub reads {
	my ($text, $expected, $name) = @_;

	my ($values) = parse_env($text, \%environment);
	is(join(' ', map { "$_=$values->{$_}" } sort keys %$values), $expected,
		$name);
}

sub refuses {
	my ($text, $expected, $name) = @_;

	is(eval { parse_env($text, \%environment); 1 }, undef, "refused: $name");
	is($@, $expected, "refused: $name, says why");
}
