#!/usr/bin/perl

# "chatbot_safety_identifier": who asks, as a keyed hash.

use warnings;
use strict;

use Digest::SHA qw/ hmac_sha256_hex /;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;
use Test::Chatbot::Upstream;

###############################################################################

my $upstream = Test::Chatbot::Upstream->new(sub { whole(completion('fine')) });
my ($url, $port) = ($upstream->url, $upstream->port);

my $t = Test::Chatbot->new(http => <<"HTTP", conf => <<'CONF' =~ s/%%URL%%/$url/gr)->run;
chatbot_model m;
chatbot_postgres off;
chatbot_api_key sk-one;
chatbot_upstream openai {
    server http://api.openai.com/v1 key=sk-two;
}
chatbot_proxy http://127.0.0.1:$port;
HTTP
location /openai {
    chatbot_pass http://api.openai.com/v1;
    chatbot_redis off;
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Real-IP;
}

location /two {
    chatbot_pass openai;
    chatbot_redis off;
}

location /none {
    chatbot_pass http://api.openai.com/v1;
    chatbot_safety_identifier "";
    chatbot_redis off;
}

location /other {
    chatbot_proxy off;
    chatbot_pass %%URL%%;
    chatbot_redis off;
}

location /told {
    chatbot_proxy off;
    chatbot_pass %%URL%%;
    chatbot_safety_identifier $arg_user;
    chatbot_redis %%REDIS%%;
}
CONF

is(sent('/openai'), hmac_sha256_hex('127.0.0.1', 'sk-one'), 'the client');
is(sent('/openai', headers => ['X-Real-IP: 2001:db8:1:2::3']),
	hmac_sha256_hex('2001:db8:1:2::', 'sk-one'), 'by its network');
is(sent('/two'), hmac_sha256_hex('127.0.0.1', 'sk-two'),
	'the key is that of the server');
is(sent('/none'), undef, 'none');
is(sent('/other'), undef, 'none for other services');

is(sent('/told?user=bob'), hmac_sha256_hex('bob', 'sk-one'), 'unless told');
is(sent('/told?user='), undef, 'nobody');

$upstream->reset;
like(get("/told?user=$_&query=same"), qr/ 200 /, "asked by $_")
	for qw/ bob ann /;
is($upstream->calls, 1, 'both share the answer');

done_testing();

###############################################################################

# The identifier that goes with a question.
sub sent {
	my ($uri, %opt) = @_;
	my $query = 'query=' . ++our $count;

	$upstream->reset;
	http(request(GET => $uri . ($uri =~ /\?/ ? '&' : '?') . $query, %opt));
	my ($request) = $upstream->requests;
	return $request->{json}{safety_identifier};
}
