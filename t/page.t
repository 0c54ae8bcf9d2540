#!/usr/bin/perl

# The chat page, in a real browser.

use warnings;
use strict;

use Digest::SHA qw/ sha256_base64 /;
use FindBin;
use Test::More;

use lib "$FindBin::Bin/lib";
use Test::Chatbot;
use Test::Chatbot::Browser;

binmode(Test::More->builder->$_, ':utf8') for qw/ output failure_output /;

my $missing = Test::Chatbot::Browser::missing();
plan skip_all => "no $missing; \"make test\" installs it" if $missing;

###############################################################################

my $html = "$FindBin::Bin/../docker/html";
my $t = Test::Chatbot->new(workers => 1, http => <<'EOF', alerts => qr/exited on signal 9/, conf => <<"EOF")->run;
limit_req_zone $uri zone=chat:1m rate=15r/m;
EOF
location = /chat {
    chatbot_pass %%API%%;
    chatbot_redis %%REDIS%%;
    chatbot_retries 0;
}

location = /limited/chat {
    limit_req zone=chat;
    error_page 429 = \@too_many;
    limit_req_status 429;
    chatbot_pass %%API%%;
}

location \@too_many {
    default_type application/problem+json;
    add_header Retry-After 4 always;
    return 429 '{"title": "Too Many Requests", "status": 429, "detail": "One each 4 s."}';
}

location = /fake/chat {
    proxy_pass http://127.0.0.1:%%PORT_1%%;
    proxy_buffering off;
}

location ~ ^/(limited/|fake/)?\$ {
    root $html;
    include $html/page.conf;
}
EOF

my $url = 'http://127.0.0.1:' . port() . '/';
my $browser = Test::Chatbot::Browser->new;
my $turn = '.turn:last-child';
my $answer = "$turn .answer";

subtest 'what it is sent with' => sub {
	my $page = get('/');
	my $policy = header($page, 'Content-Security-Policy');

	is(header($page, 'Content-Type'), 'text/html; charset=utf-8', 'type');
	is(header($page, 'X-Content-Type-Options'), 'nosniff', 'never guessed');
	like($policy, qr/^default-src 'none';/, 'nothing from anywhere');
	unlike($policy, qr/unsafe|\*|http/, 'no exceptions');

	for my $name (qw/ script style /) {
		my @content = body($page) =~ m{<$name\b[^>]*>(.*?)</$name>}gs;
		is(@content, 1, "one $name");
		is_deeply([$policy =~ /$name-src '(.*?)'/], ['sha256-'
			. sha256_base64($content[0]) . '='], "digest of the $name");
	}

	unlike(body($page), qr/\b(?:innerHTML|outerHTML|insertAdjacentHTML|eval
		|document\.write|on[a-z]+=")/x, 'no way from text to markup');
};

subtest 'ask' => sub {
	$browser->open($url);
	ok($browser->isVisible('#welcome'), 'welcome');

	asked('What is nginx?');
	is(shown(), 'answer 1: What is nginx?', 'answer');
	is($browser->text("$turn .question"), 'What is nginx?', 'question');
	ok(!$browser->isVisible('#welcome'), 'no welcome any more');
	is($browser->text("$turn .source"), 'From the model', 'source');
	like($browser->text("$turn .time"), qr/^in [\d.]+ m?s$/, 'time');

	$browser->click('#new');
	ok($browser->isVisible('#welcome'), 'new conversation');
	asked('WHAT IS NGINX?');
	is(shown(), 'answer 1: What is nginx?', 'answer');
	is($browser->text("$turn .source"), 'From the cache', 'from the cache');
	quiet();
};

subtest 'watch, stop, ask on' => sub {
	$browser->open($url);
	my $long = '[slowstream 0.1] [words 1000] long';
	my $words = sub { $browser->value("document.querySelector('$answer')"
		. ".textContent.split(' ').length") };
	my $growing = sub {
		$browser->until("document.querySelector('$answer')?.textContent"
			. ".endsWith('1 2 3')");
		my $before = $words->();
		ok(wait_for { $words->() > $before + 2 }, 'it grows');
	};

	$browser->fill('#query', $long);
	$browser->press('Enter');
	$growing->();
	is($browser->text('#send'), 'Stop', 'it can be stopped');
	$browser->press('Escape');
	settled();
	my $part = shown();
	like($part, qr/ 1 2 3 4 5[ \d]*$/, 'a part of it stays');
	like($browser->text("$turn .failure"), qr/^You stopped/, 'stopped');

	asked('And now?');
	like(shown(), qr/^answer \d+: And now\?$/, 'asked on');
	asked('And then?');
	my @messages = @{($t->openai->requests)[-1]{json}{messages}};
	is(join('', map { "$_->{role}: $_->{content}\n" } @messages[1 .. 5])
		=~ s/: answer \d+/: answer N/gr, <<"END" =~ s/: answer \d+/: answer N/gr,
user: $long
assistant: $part
user: And now?
assistant: answer N: And now?
user: And then?
END
		'with what was said');

	$browser->click('#new');
	asked('[status 200] [error code=x] [slowstream 0.1] [words 9] one');
	like(shown(), qr/^answer \d+: \[status 200\]/, 'the model fails');
	like($browser->text("$turn .failure"), qr/broke off/, 'and the reader is told');

	$browser->fill('#query', $long =~ s/long/other/r);
	$browser->press('Enter');
	$growing->();
	kill 'KILL', $t->workers;
	settled();
	like(shown(), qr/ 1 2 3 4 5[ \d]*$/, 'the server dies');
	like($browser->text("$turn .failure"), qr/broke off.*connection/s,
		'and the reader is told');
	quiet();
};

subtest 'markdown' => sub {
	$browser->open($url);
	my $code = "if (a < b) {\n\tprint \"<b>\";\n}";
	asked(<<"END");
What:

# A *heading*
Some **bold**, *italic*, `co*d*e`, snake_case_here, 2 * 3 * 4, \\*stars\\*
and <https://nginx.org/> and https://nginx.org/en/docs/. And [a link](http://localhost/x "title").

1. one
   - deeper **one**
   - deeper two
2. two

```perl
$code
```

> quoted
> `lines`

| a | b |
|---|--:|
| 1 | `2` |

- [x] done
END
	is(count('h3 em'), 1, 'heading');
	is(texts('strong'), 'bold|one', 'bold');
	is(texts('p em'), 'italic', 'italic');
	like(shown(), qr/snake_case_here, 2 \* 3 \* 4, \*stars\*/, 'no emphasis');
	is(texts('p code'), 'co*d*e|lines', 'code');
	is(texts('a'), 'https://nginx.org/|https://nginx.org/en/docs/|a link', 'links');
	is(count('a[target=_blank][rel~=noopener]'), 3, 'which open elsewhere');
	is(texts('ol > li > ul > li'), 'deeper one|deeper two', 'list in a list');
	is(count('ol > li'), 2, 'the outer one');
	is($browser->value("document.querySelector('.answer pre').textContent"),
		"$code\n", 'block of code');
	is(texts('figcaption span'), 'perl', 'its language');
	is(texts('blockquote code'), 'lines', 'quote');
	is(texts('th') . '|' . texts('td'), 'a|b|1|2', 'table');
	is(texts('> ul'), "\x{2611} done", 'a list of things to do');

	$browser->evaluate(<<'END');
navigator.clipboard.writeText = async text => { window.copied = text; }
END
	$browser->click("$answer .code button");
	$browser->until("document.querySelector('.code button').textContent === 'Copied'");
	is($browser->value('window.copied'), $code, 'copied');

	$browser->evaluate(<<'END');
navigator.clipboard.writeText = async () => { throw new Error("not over HTTP"); };
document.addEventListener('copy', () => {
	window.copied = document.activeElement.value;
});
END
	$browser->click("$turn .copy");
	$browser->until("document.querySelector('.copy').textContent === 'Copied'");
	like($browser->value('window.copied'), qr/^answer \d+: What:.*done$/s,
		'copied the old way');
	quiet();
};

subtest 'hostile answers' => sub {
	my @hostile = (
		'<img src=x onerror=alert(1)>', '<script>alert(1)</script>',
		'[a](javascript:alert(1)) ![b](javascript:alert(1))',
		'[a](JaVaScRiPt:alert(1)) [b](data:text/html,<script>alert(1)</script>)',
		"[a](java\tscript:alert(1)) [b](\x{1}javascript:alert(1)) <javascript:alert(1)>",
		'[a](http://localhost/" onmouseover="alert(1)) <https://x" onclick=alert(1)>',
		'![](http://192.0.2.1/track.png) ![b](https://192.0.2.1/b.png)',
		'<iframe srcdoc="<script>alert(1)</script>"></iframe><style>*{display:none}</style>',
		"```<img src=x onerror=alert(1)>\n<img src=x onerror=alert(1)>",
		"| <img src=x onerror=alert(1)> | b |\n|---|---|\n| <svg onload=alert(1)> | b |",
		"```\n```\n~~~\n```\n> > > > > > > > > > > > > > > deep\n- \n  - \n    - **a *b\n|\n|-|\n1.\n[](\n![",
		"# \n#\n***\n****\n`` ` ``` `\n[[[[]](((\n__ _ __\n\\",
		"\x{202E}gnp.exe \x{0}\x{FEFF}" =~ s/\x{0}//r,
		'{{constructor.constructor("alert(1)")()}} ${alert(1)} %3Cscript%3E',
	);

	my $harmless = sub {
		my ($name) = @_;
		is(count('img, script, style, iframe, svg, object, embed, form, input,'
			. ' [onerror], [onload], [onclick], [onmouseover], [style]'), 0,
			$name);
		is($browser->value("[...document.querySelectorAll('.answer a')]"
			. ".filter(a => !/^https?:\$/.test(a.protocol)).length"), 0,
			'... links');
	};

	$browser->open($url);
	for my $text (@hostile) {
		$browser->click('#new');
		asked("it\n\n$text");
		$harmless->((split /\n/, $text)[0]);
		quiet();
	}

	$browser->reload();
	for my $n (1 .. @hostile) {
		$browser->click("#list li:nth-child($n) .open");
		settled();
		$harmless->("kept, $n");
	}
	is(count_all('#list img, #list script'), 0, 'titles');
	quiet();
};

subtest 'large answers' => sub {
	my @large = map { [split /\|/] } 'a line|[size 1040000]',
		"code|```\n[size 1040000]";

	for (@large) {
		my ($name, $text) = @$_;
		$browser->open($url);
		$browser->evaluate('window.turns = 0; setInterval(() => ++window.turns)');
		asked($text);
		is($browser->value("document.querySelector('.answer').textContent.length"
			. ' > 1000000'), JSON::PP::true, $name);
		cmp_ok($browser->value('window.turns'), '>', 50,
			'... drawn in between other things');
		quiet();
	}
};

subtest 'a stream, with all that can be in it' => sub {
	my $fake = fake_chatbot();
	$browser->open("${url}fake/");

	$browser->fill('#query', 'delta=One_ delta=two_ hold');
	$browser->press('Enter');
	$browser->until("document.querySelector('.answer')?.textContent.trim() === 'One two'");
	is($browser->text('#send'), 'Stop', 'shown while it comes');
	ok(!$browser->isVisible("$turn .waiting"), 'no waiting any more');
	$browser->type('typed ahead');
	$browser->press('Escape');
	settled();
	is(shown(), 'One two', 'stopped: what was there stays');
	like($browser->text("$turn .failure"), qr/^You stopped/, 'stopped');
	is($browser->call('inputValue', '#query'), 'typed ahead', 'typed ahead');

	asked('delta=No_ reset delta=Yes done=Yes,api');
	is(shown(), 'Yes', 'reset');
	asked('delta=Cut done=Whole,cache');
	is(shown(), 'Whole', 'the end has the last word');
	is($browser->text("$turn .source"), 'From the cache', 'its source');
	asked("crlf delta=\x{e9}\x{1f600} done=\x{e9}\x{1f600},api");
	is(shown(), "\x{e9}\x{1f600}", 'CRLF, comments, characters in pieces');

	asked('delta=Half error');
	is(shown(), 'Half', 'the model fails in the middle');
	like($browser->text("$turn .failure"), qr/broke off.*The model stopped\./s,
		'and the reader is told');
	asked('delta=Half');
	is(shown(), 'Half', 'the server dies in the middle');
	like($browser->text("$turn .failure"), qr/broke off.*connection/s,
		'and the reader is told');
	asked('html');
	like($browser->text("$turn .failure"), qr/answered 502/, 'not ours');

	asked('messages');
	is(shown(), join('', map { "$_," } 'user:delta=One_ delta=two_ hold',
		'assistant:One two', 'user:delta=No_ reset delta=Yes done=Yes,api',
		'assistant:Yes', 'user:delta=Cut done=Whole,cache', 'assistant:Whole',
		"user:crlf delta=\x{e9}\x{1f600} done=\x{e9}\x{1f600},api",
		"assistant:\x{e9}\x{1f600}", 'user:messages'),
		'what was answered goes along with the next question');
	quiet();
};

subtest 'limit' => sub {
	$browser->open("${url}limited/");
	asked('one');
	like(shown(), qr/: one$/, 'one');

	$browser->click('#new');
	asked('two');
	like($browser->text("$turn .failure"), qr/limit.*One each 4 s\./s, 'refused');
	like($browser->text('#send'), qr/^Wait [1-4] s$/, 'countdown');
	is($browser->call('inputValue', '#query'), 'two', 'the question is kept');
	my $turns = count_all('.turn');
	$browser->press('Enter');
	$browser->evaluate("document.querySelector('#send').click()");
	is(count_all('.turn'), $turns, 'no question before its time');

	$browser->until("document.querySelector('#send').textContent === 'Send'");
	$browser->press('Enter');
	settled();
	like(shown(), qr/: two$/, 'asked again');
	is(count_all('.turn'), $turns, 'in its place');
	quiet();
};

subtest 'stop' => sub {
	$browser->open($url);
	$browser->fill('#query', '[delay 60] x');
	$browser->press('Enter');
	$browser->until("document.querySelector('#send').textContent === 'Stop'");
	$browser->press('Escape');
	settled();
	like($browser->text("$turn .failure"), qr/^You stopped/, 'with Esc');

	$browser->fill('#query', '[delay 60] y');
	$browser->click('#send');
	$browser->until("document.querySelector('#send').textContent === 'Stop'");
	$browser->click('#send');
	settled();
	like($browser->text("$turn .failure"), qr/^You stopped/, 'with the button');
	quiet();
};

subtest 'errors' => sub {
	$browser->open($url);
	asked('[status 500]');
	like($browser->text("$turn .failure"), qr/No answer.*model/s, 'model');
	like($browser->text("$turn .request"), qr/^Request [0-9a-f]{32}$/, 'request id');

	asked('x' x 20000);
	like($browser->text("$turn .failure"), qr/too long.*16384|too long/s, 'too long');

	# all of it dies: a browser asks a new worker again by itself
	$t->openai->reset;
	$browser->fill('#query', '[delay 60] z');
	$browser->press('Enter');
	wait_for { $t->openai->in_flight } or die 'not asked';
	$t->kill;
	settled();
	like($browser->text("$turn .failure"), qr/cannot be reached/, 'server dies');
	$t->run;
	$browser->until("!document.querySelector('$turn .again').closest('[hidden]')");
	quiet();
};

subtest 'history' => sub {
	$browser->open($url);
	asked('first conversation');
	$browser->click('#new');
	asked('second conversation');

	$browser->reload();
	is(titles(), 'second conversation|first conversation', 'after a reload');
	$browser->click('#list li:last-child .open');
	settled();
	like(shown(), qr/first conversation$/, 'opened');
	$browser->click('#list li:last-child .drop');
	is(titles(), 'second conversation', 'one is deleted');
	ok($browser->isVisible('#welcome'), 'and gone');

	$browser->click('#delete-all');
	$browser->click('#sure .yes');
	$browser->until("!document.querySelector('#list li')");
	is($browser->value('localStorage.length'), 0, 'all are deleted');

	$browser->evaluate(q{localStorage.setItem('chatbot.history', '{"version":1,"conversations":[{"id":1},7]}')});
	$browser->reload();
	asked('third conversation');
	is(titles(), 'third conversation', 'what it cannot read is no obstacle');
	quiet();
};

subtest 'keyboard' => sub {
	$browser->open($url);
	is(focus(), 'query', 'the question has the focus');
	$browser->type('[delay 1] by');
	$browser->press('Shift+Enter');
	$browser->type('hand');
	$browser->press('Enter');
	settled();
	like(shown(), qr/by\s+hand$/, 'asked');
	is(focus(), 'query', 'and still has it');

	asked(join "\n", 1 .. 100);
	my $below = "(main => main.scrollHeight - main.scrollTop - main.clientHeight)"
		. "(document.querySelector('main'))";
	my $button = "document.querySelector('#latest').checkVisibility()";
	$browser->until("$below < 2 && !$button");
	# again while the page still moves from before
	ok(wait_for {
		$browser->press('PageUp');
		$browser->value("$below > 100 && $button")
	}, 'the conversation scrolls');
	ok(wait_for {
		$browser->press('PageDown');
		!$browser->value($button)
	}, 'and back to its end');

	my %seen;
	for (1 .. 20) {
		$browser->press('Tab');
		$seen{focus()} = 1;
	}
	ok($seen{$_}, "Tab reaches $_") for qw/ new send copy open drop delete-all /;

	$browser->focus('#new');
	$browser->press('Enter');
	ok($browser->isVisible('#welcome'), 'new conversation');
	is(focus(), 'query', 'with the focus in the question');
	quiet();
};

subtest 'phone, dark, no script' => sub {
	$browser->open($url, viewport => { width => 360, height => 740 },
		colorScheme => 'dark', isMobile => JSON::PP::true,
		hasTouch => JSON::PP::true);
	asked("a\n```\n" . 'wide ' x 100);
	is($browser->value('document.documentElement.scrollWidth'), 360,
		'nothing is wider than a phone');
	is($browser->value('getComputedStyle(document.body).backgroundColor'
		. '.match(/\d+/g).every(part => part < 64)'), JSON::PP::true, 'dark');
	ok(!$browser->isVisible('#list'), 'no history');
	$browser->click('#show-history');
	ok($browser->isVisible('#list .open'), 'history');
	$browser->press('Escape');
	ok(!$browser->isVisible('#list'), 'Esc closes it');
	quiet();

	$browser->open($url, javaScriptEnabled => JSON::PP::false);
	$browser->fill('#query', 'without a script?');
	$browser->click('#send');
	like($browser->text('body'), qr/"response": "answer \d+: without a script\?"/,
		'a plain form, JSON for an answer');
};

done_testing();

###############################################################################

sub asked {
	my ($question) = @_;
	$browser->fill('#query', $question);
	$browser->press('Enter');
	settled();
}

sub settled {
	$browser->until("document.querySelector('.turn:last-child')?.ariaBusy === 'false'");
}

# Not what is rendered, since the browser need not render it at once.
sub shown { $browser->textContent($answer) =~ s/^\s+|\s+$//gr }
sub count { count_all(join ', ', map { "$answer $_" } split /,\s*/, $_[0]) }
sub count_all { $browser->value("document.querySelectorAll('$_[0]').length") }

sub texts {
	return $browser->value("[...document.querySelectorAll('$answer $_[0]')]"
		. ".map(node => node.textContent.trim()).join('|')");
}

sub titles {
	return $browser->value("[...document.querySelectorAll('#list .open')]"
		. ".map(node => node.textContent).join('|')");
}

sub focus {
	return $browser->value('document.activeElement.id'
		. ' || document.activeElement.className.split(" ")[0]');
}

# A chatbot that says what the question tells it to.
sub fake_chatbot {
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 16,
		LocalPort => port(1), ReuseAddr => 1) or die "listen: $!";
	return Fake->new(dir => $t->dir . '/fake', listener => $listener)->start;
}

sub quiet { is_deeply($browser->complaints, [], 'no complaints') }

package Fake;

use parent -norequire, 'Test::Chatbot::Server';
use JSON::PP qw/ decode_json encode_json /;

# In a process of its own.
sub spawn {
	my ($self) = @_;

	my $pid = fork // die "fork: $!";
	return $pid if $pid;

	while (my $client = $self->{listener}->accept) {
		answer($client);
		close $client;
	}
	POSIX::_exit(0);
}

sub command { }
sub ready { 1 }

sub answer {
	my ($client) = @_;
	my ($length, $body) = (0, '');

	while (my $line = <$client>) {
		$length = $1 if $line =~ /^Content-Length: (\d+)/i;
		last if $line eq "\r\n";
	}
	read $client, $body, $length;

	$body = decode_json($body);
	my @messages = @{$body->{messages} // [{ content => $body->{query} }]};
	my $question = $messages[-1]{content};

	return print $client "HTTP/1.0 502 Bad Gateway\r\nContent-Type: text/html\r\n"
		. "\r\n<h1>Bad Gateway</h1>" if $question eq 'html';
	print $client "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

	if ($question eq 'messages') {
		my $said = join '', map { "$_->{role}:$_->{content}," } @messages;
		return print $client event('done', { response => $said,
			source => 'api' });
	}
	say_it($client, $question);
}

sub say_it {
	my ($client, $question) = @_;
	my $text = '';

	for (split / /, $question) {
		my ($name, $value, $source) = /^(\w+)=?([^,]*),?(.*)/;
		$value =~ tr/_/ /;
		my %data = (delta => { text => $value }, reset => {},
			done => { response => $value, source => $source },
			error => { title => 'Bad Gateway', status => 502,
				detail => 'The model stopped.' });

		$text .= event($name, $data{$name}) if $data{$name};
	}
	$text = ": a comment\n\nretry: 3000\n$text" =~ s/\n/\r\n/gr
		if $question =~ /crlf/;

	for my $byte (split //, $text) {
		syswrite $client, $byte;
	}
	sysread $client, $text, 1 if $question =~ /hold/;
}

sub event {
	my ($name, $data) = @_;
	return "id: 1.1\nevent: $name\ndata: " . encode_json($data) . "\n\n";
}
