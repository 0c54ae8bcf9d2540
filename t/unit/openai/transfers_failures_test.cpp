// What an upstream does wrong, and what is asked again.

#include "openai/transfers.hpp"

#include "openai/transfers_fixture.hpp"

namespace chatbot {
namespace {

TEST_F(TransfersTest, AsksAgainAsToldByTheUpstream)
{
    start([](Peer& peer, auto&, int n) {
        constexpr int statuses[] = {429, 500};
        if (n <= 2) {
            reply(peer, statuses[n - 1], error("busy"),
                  "Retry-After-Ms: 20\r\nRetry-After: 5\r\n");
        } else {
            reply(peer, 200, completion("x"));
        }
    });
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->requests(), 3);
    EXPECT_GE(events_.back().call.duration_ms, 40);
}

TEST_F(TransfersTest, BacksOffByItself)
{
    settings_.retries = 1;
    answer(500, "");
    EXPECT_EQ(plain(ask("hi")), "!502 U answered 500 (2 attempts)");
    EXPECT_GE(events_.back().call.duration_ms, 375);
}

TEST_F(TransfersTest, WhichErrorsAreAskedAgain)
{
    const std::string soon = "Retry-After-Ms: 1\r\n";
    const std::string yes = soon + "X-Should-Retry: true\r\n";
    const std::string no = soon + "X-Should-Retry: false\r\n";
    struct {
        int status;
        std::string code, headers;
        int attempts, problem;
    } cases[] = {
        {400, "bad", soon, 1, 502},
        {401, "invalid_api_key", soon, 1, 502},
        {403, "forbidden", soon, 1, 502},
        {404, "not_found", soon, 1, 502},
        {408, "slow", soon, 3, 504},
        {409, "lock", soon, 3, 502},
        {429, "rate_limit", soon, 3, 503},
        {500, "oops", soon, 3, 502},
        {503, "overloaded", soon, 3, 503},
        {504, "slow", soon, 3, 504},
        {529, "overloaded", soon, 3, 503},
        {400, "bad", yes, 3, 502},
        {500, "oops", no, 1, 502},
        {429, "insufficient_quota", soon, 1, 502},
        {429, "insufficient_quota", yes, 1, 502},
    };

    for (const auto& [status, code, headers, attempts, problem] : cases) {
        answer(status, error(code), headers);
        const std::string expected = "!" + std::to_string(problem) +
                                     " U answered " + std::to_string(status) +
                                     ": " + code + ": m" +
                                     (attempts > 1 ? " (3 attempts)" : "");
        EXPECT_EQ(plain(ask("hi")), expected);
        EXPECT_EQ(upstream_->requests(), attempts);
    }
}

TEST_F(TransfersTest, FollowsNoRedirect)
{
    answer(302, "", "Location: http://127.0.0.1:1/\r\n");
    EXPECT_EQ(plain(ask("hi")),
              "!502 U answered 302 with a redirect to http://127.0.0.1:1/, not "
              "followed");
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, PassesRetryAfterOn)
{
    settings_.retries = 0;
    answer(503, "", "Retry-After: 7\r\n");
    ask("hi");
    EXPECT_EQ(problem().retry_after_s, 7);

    answer(503, "");
    ask("hi");
    EXPECT_EQ(problem().retry_after_s, 5);
    EXPECT_NE(problem().detail, "");

    char date[64];
    const std::time_t then = std::time(nullptr) + 50;
    std::strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT",
                  std::gmtime(&then));
    answer(503, "", "Retry-After: " + std::string(date) + "\r\n");
    ask("hi");
    EXPECT_NEAR(problem().retry_after_s, 49, 2);
}

TEST_F(TransfersTest, DoesNotWaitTooLong)
{
    answer(429, "", "Retry-After: 3600\r\n");
    EXPECT_EQ(plain(ask("hi")), "!503 U answered 429");
    EXPECT_EQ(problem().retry_after_s, 3600);

    settings_.timeout_ms = 5000;
    answer(429, "", "Retry-After: 20\r\n");
    EXPECT_EQ(plain(ask("hi")), "!503 U answered 429");
    EXPECT_EQ(problem().retry_after_s, 20);
}

TEST_F(TransfersTest, ResetIsAskedAgain)
{
    start([](Peer& peer, auto&, int n) {
        n == 1 ? peer.reset() : reply(peer, 200, completion("x"));
    });
    EXPECT_EQ(ask("hi"), "=x");

    settings_.retries = 0;
    start([](Peer& peer, auto&, int) {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"cho");
        peer.reset();
    });
    EXPECT_EQ(ask("hi").find("!502 "), 0u);
}

TEST_F(TransfersTest, Garbage)
{
    settings_.retries = 0;
    settings_.answer_max_size = 1000;
    const auto sends = [this](std::string bytes) {
        start([=](Peer& peer, auto&, int) {
            peer.send(bytes);
            peer.reset();
        });
        return plain(ask("hi"));
    };
    const std::string ok = "HTTP/1.1 200 OK\r\n";

    EXPECT_EQ(sends("hello\r\n").substr(0, 4), "!502");
    EXPECT_EQ(sends("HTTP/9.9 abc\r\n\r\n").substr(0, 4), "!502");
    EXPECT_EQ(sends(ok + "X: " + std::string(200000, 'x')).substr(0, 4),
              "!502");
    EXPECT_EQ(sends(ok + "Content-Length: 5\r\n\r\nhello"),
              "!502 U: a reply that is no JSON: hello");
    EXPECT_EQ(sends(ok + "Content-Length: 0\r\n\r\n"),
              "!502 U: an empty reply");

    std::string headers = ok;
    for (int i = 0; i < 300; i++) {
        headers +=
            "X-" + std::to_string(i) + ": " + std::string(1000, 'x') + "\r\n";
    }
    EXPECT_EQ(sends(headers + "\r\n"), "!502 U sent too large a header");
}

TEST_F(TransfersTest, EndlessBodiesAreCutOff)
{
    settings_.retries = 0;
    settings_.answer_max_size = 1000;
    const auto floods = [this](std::string head, std::string part) {
        start([=](Peer& peer, auto&, int) {
            peer.send(head);
            while (peer.send(part)) {
            }
        });
        return plain(ask("hi"));
    };
    const std::string tail = "Connection: close\r\n\r\n";
    const std::string part(10000, ' ');

    EXPECT_EQ(
        floods("HTTP/1.1 200 OK\r\n" + tail, part),
        "!502 U sent an answer larger than \"chatbot_answer_max_size\" allows "
        "(1000 bytes)");
    EXPECT_EQ(floods("HTTP/1.1 429 X\r\n" + tail, part), "!503 U answered 429");
    EXPECT_EQ(floods(stream_head, delta("abcdef")).substr(0, 6), "!502 U");
    EXPECT_EQ(floods(stream_head, "data: " + part).substr(0, 6), "!502 U");
}

TEST_F(TransfersTest, MissingModelIsPassedOver)
{
    start([](Peer& peer, const std::string& request, int) {
        if (request.find("\"m-1\"") != request.npos) {
            reply(peer, 404, error("model_not_found"));
        } else {
            reply(peer, 200, completion("x"));
        }
    });

    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->requests(), 2);
    auto notices = transfers_->take_notices();
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_EQ(notices[0].level, Notice::Level::warn);
    EXPECT_EQ(plain(notices[0].text),
              "model \"m-1\" is passed over for an hour: "
              "U answered 404: model_not_found: m");

    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->requests(), 3);
    EXPECT_TRUE(transfers_->take_notices().empty());
}

TEST_F(TransfersTest, MissingForOneKeyIsNotMissingForAnother)
{
    start([](Peer& peer, const std::string& request, int) {
        if (request.find("sk-secret") != request.npos &&
            request.find("\"m-1\"") != request.npos) {
            reply(peer, 403, error("model_not_found"));
        } else {
            reply(peer, 200, completion("x"));
        }
    });
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->requests(), 2);

    settings_.api_key = "sk-other";
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->requests(), 3);
    EXPECT_NE(upstream_->last_request().find("\"m-1\""), std::string::npos);
}

TEST_F(TransfersTest, AllModelsMissingAreTriedAgain)
{
    answer(404, error("model_not_found"));
    for (int i = 1; i <= 2; i++) {
        EXPECT_EQ(plain(ask("hi")),
                  "!502 U answered 404: model_not_found: m (2 attempts)");
        EXPECT_EQ(upstream_->requests(), 2 * i);
    }
    EXPECT_EQ(transfers_->take_notices().size(), 2u);
}

TEST_F(TransfersTest, NeverTellsTheKey)
{
    settings_.api_key = "my-own-key";
    answer(401, error("bad_key", "my-own-key? no my-own-key here"));
    EXPECT_EQ(plain(ask("hi")),
              "!502 U answered 401: bad_key: ***? no *** here");
}

// Services that want none get any.
TEST_F(TransfersTest, AKeyOfAFewLettersIsNoSecret)
{
    settings_.api_key = "a";
    answer(401, error("bad_key", "a bad key"));
    EXPECT_EQ(plain(ask("hi")), "!502 U answered 401: bad_key: a bad key");
}

// The upstream's message is cut somewhere near its 500th byte.
TEST_F(TransfersTest, NeverTellsHalfTheKey)
{
    settings_.api_key = "my-own-key";
    settings_.retries = 0;
    for (std::size_t size = 470; size < 500; size++) {
        const std::string message = std::string(size, 'x') + " my-own-key";

        answer(401, error("bad_key", message));
        EXPECT_EQ(ask("hi").find("my-o"), std::string::npos) << size;

        answer(200, "data: " + error("bad_key", message) + "\n\n",
               "Content-Type: text/event-stream\r\n");
        EXPECT_EQ(ask("hi").find("my-o"), std::string::npos) << size;
    }
}

}  // namespace
}  // namespace chatbot
