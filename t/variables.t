#!/usr/bin/perl

# The variables $chatbot_*.

use warnings;
use strict;

use IO::Socket::IP;
use IO::Socket::UNIX;
use Test::More;

BEGIN { use FindBin; chdir($FindBin::Bin); }

use lib 'lib';
use Test::Chatbot;

###############################################################################

my $ipv6 = IO::Socket::IP->new(LocalHost => '::1', Listen => 1)
	? 'listen [::1]:%%PORT%%;' : '';

my $t = Test::Chatbot->new(http => <<'HTTP',
log_format chatbot '$uri|$status|$chatbot_cache_status|$chatbot_source|'
                   '$chatbot_model|$chatbot_prompt_tokens|'
                   '$chatbot_completion_tokens|$chatbot_upstream_time';
HTTP
	conf => <<'EOF' =~ s/#IPV6/$ipv6/r)->run;
server {
    listen 127.0.0.1:%%PORT%%;
    listen unix:%%TEST%%/nginx.sock;
    #IPV6
    access_log %%TEST%%/access.log chatbot;

    chatbot_redis %%REDIS%%;
    chatbot_postgres %%POSTGRES%%;
    chatbot_retries 0;

    location /chat {
        chatbot_pass %%API%%;
        add_header X-Answer "$chatbot_cache_status $chatbot_source" always;
        add_header X-Model $chatbot_model always;
        add_header X-Tokens "$chatbot_prompt_tokens $chatbot_completion_tokens";
        add_header X-Time $chatbot_upstream_time always;
    }

    location /page {
        chatbot_pass %%API%%;
        error_page 422 502 = @page;
    }

    location @page {
        return 200 "[$chatbot_cache_status] [$chatbot_upstream_time]";
    }

    location /uri {
        chatbot_pass %%API%%;
        error_page 502 /page.html;
    }

    location /page.html {
        return 200 "[$chatbot_cache_status] [$chatbot_source]";
    }

    location /client {
        return 200 $chatbot_client;
    }

    location /real {
        chatbot_pass %%API%%;
        set_real_ip_from 127.0.0.1;
        set_real_ip_from unix:;
        real_ip_header X-Real-IP;
        add_header X-Client $chatbot_client;
    }

    location /other {
        return 200 "[$chatbot_cache_status] [$chatbot_source]";
    }
}
EOF

# in headers

my $reply = ask('hi');
is(vars($reply), 'MISS api gpt-6-luna 1 4', 'asked');
like(header($reply, 'X-Time'), qr/^\d\.\d{3}$/, 'asked, upstream time');
cmp_ok(header(ask('[delay 0.2]'), 'X-Time'), '>=', 0.2, 'upstream time');

$reply = ask('hi');
is(vars($reply), 'HIT cache gpt-6-luna 1 4', 'cached');
is(header($reply, 'X-Time'), undef, 'cached, no upstream time');

is(vars(ask('[status 500]')), 'MISS', 'failed');
is(vars(get('/chat')), '', 'no question');

# after a redirect

like(body(ask('[status 500]', uri => '/page')),
	qr/^\[MISS\] \[0\.\d{3}\]$/, 'error_page');
is(body(get('/page')), '[] []', 'error_page, no question');
is(body(ask('[status 500]', uri => '/uri')), '[MISS] []',
	'error_page, URI');
is(body(get('/other')), '[] []', 'other location');

# in the access log

is(logged('/chat', 200), join("\n", '/chat|200|MISS|api|gpt-6-luna|1|4|T',
	'/chat|200|MISS|api|gpt-6-luna|3|6|T',
	'/chat|200|HIT|cache|gpt-6-luna|1|4|-'), 'access log');
is(logged('/chat', 502), '/chat|502|MISS|-|-|-|-|T', 'access log, failed');
is(logged('/chat', 422), '/chat|422|-|-|-|-|-|-', 'access log, no question');
is(logged('/page', 200), join("\n", '/page|200|MISS|-|-|-|-|T',
	'/page|200|-|-|-|-|-|-'), 'access log, error_page');
is(logged('/other', 200), '/other|200|-|-|-|-|-|-',
	'access log, other location');

# $chatbot_client

is(body(get('/client')), '127.0.0.1', 'client');
is(client('192.0.2.7'), '192.0.2.7', 'client, realip');
is(client('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::', 'client, IPv6');
is(client('2001:db8:1:2:ffff::1'), '2001:db8:1:2::', 'client, the same /64');
is(client('2001:db8:1:3::1'), '2001:db8:1:3::', 'client, another /64');
is(client('::ffff:192.0.2.7'), '192.0.2.7', 'client, IPv4 in IPv6');
is(client('64:ff9b::192.0.2.7'), '192.0.2.7', 'client, IPv4 by NAT64');
is(client('64:ff9b:1::192.0.2.7'), '64:ff9b:1::', 'client, another prefix');

my $unix = IO::Socket::UNIX->new(Peer => $t->dir . '/nginx.sock');
print $unix request('GET', '/client');
is(body(join '', <$unix>), 'unix:', 'client, unix socket');

SKIP: {
	skip 'no IPv6', 1 if !$ipv6;

	my $socket = IO::Socket::IP->new(PeerHost => '::1', PeerPort => port());
	print $socket request('GET', '/client');
	is(body(join '', <$socket>), '::', 'client, IPv6 socket');
}

# the row has the whole address

ask('where from?', uri => '/real', headers => ['X-Real-IP: 2001:db8::1:2']);
ok((wait_for { $t->postgres->sql('select ip_address from request_logs'
	. " where request_text = 'where from?'") eq '2001:db8::1:2' }),
	'address in the row');

done_testing();

###############################################################################

sub vars {
	my ($reply) = @_;
	my @values = map { header($reply, $_) // '' }
		qw/ X-Answer X-Model X-Tokens /;
	return join(' ', @values) =~ s/\s+$//r;
}

sub client {
	my ($address) = @_;
	return header(ask('hi', uri => '/real',
		headers => ["X-Real-IP: $address"]), 'X-Client');
}

# The lines of the access log, with T for a time.
sub logged {
	my ($uri, $status) = @_;
	my $lines = sub { $t->read('access.log') =~ /^\Q$uri|$status\E\|.*/mg };

	wait_for { $lines->() };
	return join "\n", map { s/\d\.\d{3}$/T/r } $lines->();
}
