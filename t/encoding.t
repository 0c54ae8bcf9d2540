#!/usr/bin/perl

# Databases whose encoding is not UTF8: records with characters that it does not
# have are refused, and no others are.

use warnings;
use strict;

use JSON::PP;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my %text = (plain => 'plain', e_acute => "\xC3\xA9", zhe => "\xD0\xB6",
	kanji => "\xE6\x97\xA5", emoji => "\xF0\x9F\x98\x80");
my %lacks = (latin1 => [qw/ emoji kanji zhe /], euc_jp => ['emoji'],
	sql_ascii => []);
my @encodings = sort keys %lacks;

my $t = Test::Chatbot->new;
my $postgres = $t->postgres;
$postgres->sql("create database $_ encoding $_ template template0"
	. " lc_collate 'C' lc_ctype 'C'") for @encodings;

$t->{conf} = join '', map { <<"EOF" } @encodings;
location /$_ {
    chatbot_pass %%API%%;
    chatbot_model gpt-6-luna;
    chatbot_postgres "@{[ url($_) ]}";
}
EOF
$t->run;

for my $encoding (@encodings) {
	my %lacking = map { $_ => 1 } @{$lacks{$encoding}};
	is(status(ask($text{$_}, uri => "/$encoding")), 200, "$encoding, $_")
		for sort keys %text;

	my $rows = join ',', sort map { unpack 'H*', $text{$_} }
		grep { !$lacking{$_} } keys %text;
	ok(wait_for(sub { rows($encoding) eq $rows }), "$encoding, rows")
		or diag("$rows, but ", rows($encoding));
}

my $refused = join ', ', sort map { my $encoding = $_;
	map { uc($encoding) . ": $text{$_}" } @{$lacks{$encoding}} } @encodings;
wait_for { refused() eq $refused };
is(refused(), $refused, 'set aside, with the reason');

done_testing();

###############################################################################

sub url { $postgres->url(undef, $_[0]) }

# The questions in a table, as hexadecimal UTF-8.
sub rows {
	my ($encoding) = @_;

	my $bytes = $encoding eq 'sql_ascii' ? 'request_text::bytea'
		: "convert_to(request_text, 'UTF8')";
	return $postgres->sql("select string_agg(hex, ',' order by hex) from"
		. " (select encode($bytes, 'hex') hex from request_logs) t",
		url($encoding));
}

# What the records that are set aside lack, and their questions.
sub refused {
	my $name = 'chatbot-journal/rejected.jsonl';
	my @records = map { JSON::PP->new->decode($_) }
		-e $t->dir . "/$name" ? split /\n/, $t->read($name) : ();
	return join ', ', sort map { my ($lacking) = $_->{refusal}
		=~ /has no equivalent in encoding "(.*?)"/;
		"$lacking: $_->{request_text}" } @records;
}
