#include "openai/transfers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "fake_resolver.hpp"
#include "fake_server.hpp"
#include "reactor/epoll.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

// A fake upstream: answers each request as told.
class Upstream {
public:
    // Gets the connection, the request, and the request's number from 1.
    using Script = std::function<void(Peer&, const std::string&, int)>;

    explicit Upstream(Script script)
        : script_(std::move(script)),
          server_([this](Peer& peer, int) { serve(peer); })
    {
    }

    std::string address() const
    {
        return "127.0.0.1:" + std::to_string(server_.port());
    }
    int connections() const { return server_.connections(); }
    int requests() const { return requests_; }

    std::string last_request()
    {
        std::lock_guard lock(mutex_);
        return last_request_;
    }

private:
    void serve(Peer& peer)
    {
        std::string buffer;
        for (;;) {
            const std::string request = read_request(peer, buffer);
            if (request.empty()) {
                return;
            }
            {
                std::lock_guard lock(mutex_);
                last_request_ = request;
            }
            script_(peer, request, ++requests_);
        }
    }

    // Empty at the end of the connection.
    static std::string read_request(Peer& peer, std::string& buffer)
    {
        std::size_t size = std::string::npos;
        while (buffer.size() < size) {
            const std::string bytes = peer.receive();
            if (bytes.empty()) {
                return {};
            }
            buffer += bytes;

            const auto end = buffer.find("\r\n\r\n");
            const auto length = buffer.find("Content-Length: ");
            if (end != buffer.npos && length != buffer.npos) {
                size = end + 4 + std::stoul(buffer.substr(length + 16));
            }
        }

        std::string request = buffer.substr(0, size);
        buffer.erase(0, size);
        return request;
    }

    const Script script_;
    std::atomic<int> requests_ = 0;
    std::mutex mutex_;
    std::string last_request_;
    FakeServer server_;  // its threads use all of the above
};

void reply(Peer& peer, int status, std::string_view body,
           std::string_view headers = "")
{
    peer.send("HTTP/1.1 " + std::to_string(status) +
              " X\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
              std::string(headers) + "\r\n" + std::string(body));
}

std::string completion(const std::string& text)
{
    return R"({"model": "m-1", "created": 7, "choices": [{"index": 0,)"
           R"("message": {"role": "assistant", "content": ")" +
           text +
           R"("}, "finish_reason": "stop"}],)"
           R"("usage": {"prompt_tokens": 3, "completion_tokens": 2}})";
}

std::string error(const std::string& code, const std::string& message = "m")
{
    return R"({"error": {"code": ")" + code + R"(", "message": ")" + message +
           R"("}})";
}

std::string delta(const std::string& text)
{
    return R"(data: {"choices": [{"index": 0, "delta": {"content": ")" + text +
           "\"}}]}\n\n";
}

const std::string stream_head =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    "Connection: close\r\n\r\n";
const std::string stream_end =
    "data: {\"choices\": [{\"index\": 0, \"delta\": {}, "
    "\"finish_reason\": \"stop\"}]}\n\ndata: [DONE]\n\n";

// The test plays the event loop and the worker thread, and turns events into
// text: "+Hel +lo =Hello" is a stream, "!503 reason" a failure.
class TransfersTest : public testing::Test {
protected:
    TransfersTest()
    {
        settings_.api_key = "sk-secret";
        settings_.models = {"m-1", "m-2"};
        settings_.stream = false;
        unsetenv("http_proxy");
        use(1000);
    }

    void start(Upstream::Script script)
    {
        upstream_ = std::make_unique<Upstream>(std::move(script));
        settings_.url = "http://" + upstream_->address() + "/v1";
    }

    // Has every request answered so.
    void answer(int status, std::string body, std::string headers = "")
    {
        start([=](Peer& peer, auto&, int) {
            reply(peer, status, body, headers);
        });
    }

    // Begins a call; `listen`: its pieces are wanted.
    FlightId begin(std::string question, bool listen = false)
    {
        ModelCall call;
        call.flight = ++last_flight_;
        call.settings = &settings();
        call.question = std::move(question);
        call.listen = listen;
        transfers_->ask(std::move(call));
        return last_flight_;
    }

    // As they are now, at an address of their own: servers are remembered by
    // it.
    const ModelSettings& settings()
    {
        if (used_.empty() || !(used_.back() == settings_)) {
            used_.push_back(settings_);
        }
        return used_.back();
    }

    std::string ask(std::string question, bool listen = false)
    {
        events_.clear();
        begin(std::move(question), listen);
        return finish();
    }

    void turn(Clock::time_point until = Clock::time_point::max())
    {
        transfers_->flush();
        epoll_.wait(std::min(until, transfers_->deadline()));
        transfers_->on_time(Clock::now());
    }

    // Runs until all calls have ended, but not for ever.
    std::string finish()
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (transfers_->in_flight() && Clock::now() < limit) {
            turn(limit);
        }

        std::string text;
        for (const auto& event : events_) {
            text += (text.empty() ? "" : " ") + describe(event);
        }
        return text;
    }

    // Until the condition holds.
    template <class Condition>
    void turn_until(const Condition& condition)
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (!condition()) {
            ASSERT_LT(Clock::now(), limit);
            turn(Clock::now() + milliseconds(5));
        }
    }

    void use(std::size_t max_connections)
    {
        transfers_.reset();
        transfers_ = std::make_unique<Transfers>(
            epoll_, resolver_, max_connections, [this](auto&& event) {
                events_.push_back(std::move(event));
                seen_++;
            });
    }

    static std::string describe(const FlightEvent& event)
    {
        switch (event.kind) {
            case FlightEvent::Kind::piece:
                return "+" + event.piece;
            case FlightEvent::Kind::answered:
                return "=" + event.answer.text;
            default:
                return "!" + std::to_string(event.problem.status) + " " +
                       event.problem.reason;
        }
    }

    // `text` with the upstream's name, which differs from run to run, as "U".
    std::string plain(std::string text) const
    {
        const std::string name =
            "upstream " + upstream_->address() + "/v1/chat/completions";
        for (auto at = text.find(name); at != text.npos; at = text.find(name)) {
            text.replace(at, name.size(), "U");
        }
        return text;
    }

    const Problem& problem() const { return events_.back().problem; }

    ModelSettings settings_;
    std::list<ModelSettings> used_;

    // For scripts, which may outlive a test that fails.
    std::atomic<int> waiting_ = 0;  // requests
    std::atomic<int> seen_ = 0;     // events

    std::unique_ptr<Upstream> upstream_;
    Epoll epoll_;
    FakeResolver resolver_;
    std::vector<FlightEvent> events_;
    FlightId last_flight_ = 0;
    std::unique_ptr<Transfers> transfers_;
};

TEST_F(TransfersTest, AsksAsTheApiWants)
{
    answer(200, completion("  Paris. "));
    EXPECT_EQ(ask("capital?"), "=Paris.");

    const std::string request = upstream_->last_request();
    EXPECT_EQ(request.find("POST /v1/chat/completions HTTP/1.1\r\n"), 0u);
    for (auto part :
         {"\r\nAuthorization: Bearer sk-secret\r\n",
          "\r\nContent-Type: application/json\r\n",
          "\r\nAccept: application/json\r\n", "\"m-1\"", "capital?"}) {
        EXPECT_NE(request.find(part), request.npos) << part;
    }
    EXPECT_EQ(request.find("Expect"), request.npos);

    const Answer& answer = events_.back().answer;
    EXPECT_EQ(answer.model, "m-1");
    EXPECT_EQ(answer.created, 7);
    EXPECT_EQ(answer.prompt_tokens, 3);
    EXPECT_EQ(answer.completion_tokens, 2);
    EXPECT_TRUE(answer.complete);
    EXPECT_EQ(events_.back().flight, 1u);
}

TEST_F(TransfersTest, NoKeyNoAuthorization)
{
    settings_.api_key.clear();
    answer(200, completion("x"));
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(upstream_->last_request().find("Authorization"),
              std::string::npos);
}

TEST_F(TransfersTest, KeepsConnections)
{
    answer(200, completion("x"));
    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(ask("hi"), "=x");
    }
    EXPECT_EQ(upstream_->requests(), 5);
    EXPECT_EQ(upstream_->connections(), 1);
}

TEST_F(TransfersTest, ConnectionClosedWhileIdleIsNoFailure)
{
    settings_.retries = 0;
    start([](Peer& peer, auto&, int) {
        reply(peer, 200, completion("x"));
        peer.reset();
    });
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(ask("hi"), "=x");
}

TEST_F(TransfersTest, CreatedIsFilledIn)
{
    answer(200, R"({"choices": [{"message": {"content": "x"}}]})");
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_NEAR(events_.back().answer.created, std::time(nullptr), 5);
}

TEST_F(TransfersTest, ThousandCallsAtOnceEndOnceEach)
{
    constexpr int count = 1000;
    start([&](Peer& peer, auto&, int) {
        waiting_++;
        while (waiting_ < count && !peer.left(10)) {
        }
        reply(peer, 200, completion("x"));
    });

    for (int i = 0; i < count; i++) {
        begin("hi");
    }
    finish();

    std::vector<int> ends(count + 1);
    for (const auto& event : events_) {
        EXPECT_EQ(describe(event), "=x");
        ends[event.flight]++;
    }
    EXPECT_EQ(std::count(ends.begin() + 1, ends.end(), 1), count);
}

TEST_F(TransfersTest, StreamsPieceByPiece)
{
    start([&](Peer& peer, auto&, int) {
        peer.send(stream_head);
        for (int i = 0; i < 3; i++) {
            peer.send(delta("ab"));
            while (seen_ <= i && !peer.left(5)) {
            }
        }
        peer.send(stream_end);
        peer.reset();
    });

    EXPECT_EQ(ask("hi", true), "+ab +ab +ab =ababab");
    EXPECT_NE(upstream_->last_request().find("Accept: text/event-stream"),
              std::string::npos);
}

TEST_F(TransfersTest, ReadsTheReplyAsWhatItIs)
{
    answer(200, completion("x"));
    EXPECT_EQ(ask("hi", true), "=x");

    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x") + delta("y") + stream_end);
        peer.reset();
    });
    EXPECT_EQ(ask("hi"), "=xy");
}

TEST_F(TransfersTest, BrokenStreamIsNotAskedAgain)
{
    start([&](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x"));
        peer.reset();
    });
    EXPECT_EQ(plain(ask("hi", true)),
              "+x !502 U: the stream ended before the answer did");
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, StreamToldToItsEndIsPaidForOnce)
{
    const auto ends = [this](std::string events) {
        start([=](Peer& peer, auto&, int) {
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n"
                "Content-Type: text/event-stream\r\n\r\n" +
                events);
            peer.reset();
        });
        const std::string text = plain(ask("hi"));
        EXPECT_EQ(upstream_->requests(), 1);
        return text;
    };
    const std::string cut_off =
        "data: {\"choices\": [{\"delta\": {}, \"finish_reason\": "
        "\"length\"}]}\n\n";
    const std::string refusal =
        "data: {\"choices\": [{\"delta\": {\"refusal\": \"no\"}}]}\n\n";

    EXPECT_EQ(ends(delta("x") + stream_end), "=x");
    EXPECT_EQ(ends(delta("x") + cut_off), "=x");
    EXPECT_EQ(ends(refusal + stream_end), "=no");
    EXPECT_EQ(ends(cut_off),
              "!502 U: a reply without text, finish_reason \"length\"");
}

TEST_F(TransfersTest, DoneEndsAnOpenStream)
{
    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x") + stream_end);
        while (!peer.left(10) && peer.send(": still here\n\n")) {
        }
    });
    EXPECT_EQ(ask("hi", true), "+x =x");
}

TEST_F(TransfersTest, DoneWaitsABitForTheEndOfTheReply)
{
    start([](Peer& peer, auto&, int) {
        const std::string events = delta("x") + stream_end;
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: " +
                  std::to_string(events.size() + 1) +
                  "\r\nContent-Type: text/event-stream\r\n\r\n" + events);
        peer.left(100);
        peer.send("\n");
    });
    EXPECT_EQ(ask("hi", true), "+x =x");
    EXPECT_EQ(ask("hi", true), "+x =x");
    EXPECT_EQ(upstream_->connections(), 1);
}

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

TEST_F(TransfersTest, Unreachable)
{
    settings_.retries = 1;
    settings_.url = "http://127.0.0.1:1/v1";
    const std::string text = ask("hi");
    EXPECT_EQ(text.find("!503 upstream 127.0.0.1:1/v1/chat/completions: "), 0u)
        << text;
    EXPECT_NE(text.find("(2 attempts)"), text.npos) << text;
    EXPECT_EQ(problem().retry_after_s, 5);
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

TEST_F(TransfersTest, ConnectTimeout)
{
    // A listener whose queue is full takes no further connection.
    Listener listener(0);
    const int queued = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(connect(queued, listener.name(), sizeof(sockaddr_in)), 0);

    settings_.connect_timeout_ms = 100;
    settings_.retries = 0;
    settings_.url = "http://127.0.0.1:" + std::to_string(listener.port());
    const std::string text = ask("hi");
    EXPECT_EQ(text.find("!503 "), 0u) << text;
    EXPECT_NE(text.find("could not be reached within 100 ms"), text.npos);

    close(queued);
}

// libcurl connects anew by itself if the connection turns out to be closed.
TEST_F(TransfersTest, ConnectTimeoutAfterALostConnection)
{
    Listener listener(0);
    int queued = -1;
    std::thread server([&] {
        Peer peer(accept(listener.fd(), nullptr, nullptr));
        peer.receive();
        reply(peer, 200, completion("x"));
        peer.receive();
        queued = socket(AF_INET, SOCK_STREAM, 0);
        connect(queued, listener.name(), sizeof(sockaddr_in));
    });

    settings_.connect_timeout_ms = 100;
    settings_.retries = 0;
    settings_.url = "http://127.0.0.1:" + std::to_string(listener.port());
    EXPECT_EQ(ask("hi"), "=x");
    const std::string text = ask("hi");
    transfers_.reset();  // should the server still wait for it
    server.join();
    close(queued);

    EXPECT_EQ(text.find("!503 "), 0u) << text;
    EXPECT_NE(text.find("could not be reached within 100 ms"), text.npos)
        << text;
}

TEST_F(TransfersTest, SilenceEndsTheCallAndIsNotAskedAgain)
{
    settings_.read_timeout_ms = 1000;
    settings_.connect_timeout_ms = settings_.timeout_ms = 30000;
    start([](Peer& peer, auto&, int) { peer.left(); });
    EXPECT_EQ(plain(ask("hi")), "!504 U sent nothing for 1000 ms");
    EXPECT_GE(events_.back().call.duration_ms, 1000);

    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x"));
        peer.left();
    });
    EXPECT_EQ(plain(ask("hi", true)), "+x !504 U sent nothing for 1000 ms");
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, TrickleEndsAtTheDeadline)
{
    settings_.timeout_ms = 300;
    start([](Peer& peer, auto&, int) {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n");
        while (!peer.left(10) && peer.send(" ")) {
        }
    });
    EXPECT_EQ(plain(ask("hi")), "!504 U gave no answer within 300 ms");
    // libcurl's clock and ours agree but for parts of a millisecond.
    EXPECT_GE(events_.back().call.duration_ms, 299);
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
              "!502 U: a reply that is no JSON");
    EXPECT_EQ(sends(ok + "Content-Length: 0\r\n\r\n"),
              "!502 U: a reply that is no JSON");

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

    EXPECT_EQ(floods("HTTP/1.1 200 OK\r\n" + tail, part),
              "!502 U sent more than the largest answer allowed");
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

TEST_F(TransfersTest, StreamIsAskedForButPiecesAreForListeners)
{
    settings_.stream = true;
    start([](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("x"));
        peer.send(delta("y") + stream_end);
        peer.reset();
    });
    EXPECT_EQ(ask("hi"), "=xy");
    EXPECT_NE(upstream_->last_request().find("Accept: text/event-stream"),
              std::string::npos);
    const auto text = ask("hi", true);
    EXPECT_EQ(text[0], '+') << text;
}

TEST_F(TransfersTest, LateListenerGetsAllTextSoFar)
{
    settings_.stream = true;
    std::atomic<bool> go_on = false;
    std::atomic<int> sent = 0;
    start([&](Peer& peer, auto&, int) {
        peer.send(stream_head + delta("ab"));
        sent++;
        while (!go_on && !peer.left(5)) {
        }
        peer.send(delta("cd"));
        while (seen_ == 0 && !peer.left(5)) {
        }
        peer.send(stream_end);
        peer.reset();
    });

    const auto flight = begin("hi");
    turn_until([&] { return sent == 1; });
    turn(Clock::now() + milliseconds(20));
    EXPECT_EQ(seen_, 0);
    transfers_->listen(flight);
    EXPECT_EQ(seen_, 0) << "never from within listen()";
    go_on = true;
    const auto text = finish();
    EXPECT_TRUE(text == "+abcd =abcd" || text == "+ab +cd =abcd") << text;
}

TEST_F(TransfersTest, ListenerOfACallThatIsOver)
{
    answer(200, completion("x"));
    const auto flight = begin("hi");
    EXPECT_EQ(finish(), "=x");
    transfers_->listen(flight);
    transfers_->cancel(flight);
    turn(Clock::now());
    EXPECT_EQ(seen_, 1);
}

TEST_F(TransfersTest, CancelEndsTheCallSoonAndClosesItsConnection)
{
    std::atomic<bool> left = false;
    start([&](Peer& peer, auto&, int) {
        waiting_++;
        left = peer.left(60000);
    });
    const auto flight = begin("hi");
    turn_until([&] { return waiting_ == 1; });
    transfers_->cancel(flight);
    EXPECT_EQ(seen_, 0) << "never from within cancel()";
    const auto text = finish();
    EXPECT_EQ(text.substr(0, 4), "!499");
    turn_until([&] { return left.load(); });
    EXPECT_EQ(upstream_->requests(), 1);
}

TEST_F(TransfersTest, CallsAboveTheLimitOfConnectionsWaitAndAreServed)
{
    use(3);
    answer(200, completion("x"));
    for (int i = 0; i < 50; i++) {
        begin("hi");
    }
    finish();
    EXPECT_EQ(seen_, 50);
    for (const auto& event : events_) {
        EXPECT_EQ(describe(event), "=x");
    }
    EXPECT_LE(upstream_->connections(), 3);
    EXPECT_EQ(upstream_->requests(), 50);
}

TEST_F(TransfersTest, CallsThatGetNoConnectionInTimeAreTold)
{
    use(1);
    settings_.retries = 0;
    start([](Peer& peer, auto&, int) { peer.left(); });
    const auto first = begin("hi");
    auto in_a_hurry = settings_;
    in_a_hurry.timeout_ms = 100;
    ModelCall call;
    call.flight = ++last_flight_;
    call.settings = &in_a_hurry;
    transfers_->ask(std::move(call));

    turn_until([&] { return seen_ == 1; });
    EXPECT_EQ(plain(describe(events_[0])),
              "!503 U: no connection became free in time");
    transfers_->cancel(first);
    finish();
    EXPECT_EQ(seen_, 2);
}

TEST_F(TransfersTest, ACancelledCallLetsTheNextGo)
{
    use(1);
    start([](Peer& peer, auto&, int n) {
        n == 1 ? void(peer.left()) : reply(peer, 200, completion("x"));
    });
    const auto first = begin("hi");
    begin("hi");
    turn_until([&] { return upstream_->requests() == 1; });
    transfers_->cancel(first);
    EXPECT_EQ(plain(finish()).substr(0, 4), "!499");
    EXPECT_EQ(describe(events_.back()), "=x");
}

TEST_F(TransfersTest, HostIsLookedUpByOurs)
{
    answer(200, completion("x"));
    const auto address = upstream_->address();
    settings_.url = "http://model.test" + address.substr(address.find(':'));
    resolver_.hosts["model.test"] = {{"127.0.0.1"}, ""};
    EXPECT_EQ(ask("hi"), "=x");
    EXPECT_EQ(resolver_.lookups, 1);
}

TEST_F(TransfersTest, TheSecondAddressIsTriedToo)
{
    answer(200, completion("x"));
    const auto address = upstream_->address();
    settings_.url = "http://model.test" + address.substr(address.find(':'));
    settings_.retries = 0;
    resolver_.hosts["model.test"] = {{"127.0.0.2", "127.0.0.1"}, ""};
    EXPECT_EQ(ask("hi"), "=x");
}

TEST_F(TransfersTest, HostThatIsNotFound)
{
    settings_.retries = 0;
    settings_.url = "http://model.test/v1";
    resolver_.hosts["model.test"] = {{}, "model.test: no such host"};
    EXPECT_EQ(ask("hi"),
              "!503 upstream model.test/v1/chat/completions: model.test: no "
              "such host");
}

TEST_F(TransfersTest, SilentNameServerEndsEachCallInTime)
{
    settings_.retries = 0;
    settings_.connect_timeout_ms = 100;
    settings_.url = "http://model.test/v1";
    resolver_.silent = true;
    for (int i = 0; i < 400; i++) {
        begin("hi");
    }
    finish();
    EXPECT_EQ(seen_, 400);
    for (const auto& event : events_) {
        EXPECT_EQ(describe(event),
                  "!503 upstream model.test/v1/chat/completions: the name "
                  "server does not answer");
    }
    resolver_.answer();  // to nobody
    transfers_.reset();
}

TEST_F(TransfersTest, DestroyedWithCallsInFlight)
{
    start([](Peer& peer, auto&, int) { peer.left(); });
    begin("hi");
    turn_until([&] { return upstream_->requests() == 1; });
    transfers_.reset();
    EXPECT_EQ(seen_, 0);
}

}  // namespace
}  // namespace chatbot
