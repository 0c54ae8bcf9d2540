// How calls come to a connection: hosts, limits, what is kept.

#include "openai/transfers.hpp"

#include <thread>

#include "openai/transfers_fixture.hpp"

namespace chatbot {
namespace {

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

// libcurl sends the request again by itself, at most five times for a handle.
TEST_F(TransfersTest, EveryConnectionClosedWhenUsedAgainIsNoFailure)
{
    settings_.retries = 0;
    start([](Peer& peer, auto&, int n) {
        n % 2 == 0 ? peer.reset() : reply(peer, 200, completion("x"));
    });
    for (int i = 0; i < 12; i++) {
        EXPECT_EQ(ask("hi"), "=x") << i;
    }
    EXPECT_EQ(upstream_->requests(), 23);
}

// What one call leaves in libcurl's handles is not seen in another.
TEST_F(TransfersTest, CallsOfOtherKindsShareNothing)
{
    answer(200, completion("x"));
    for (std::string kind : {"a", "b", "a", "b"}) {
        settings_.api_key = "key-" + kind;
        settings_.headers = {{"X-Kind", kind}};
        settings_.stream = kind == "b";
        const std::string question(kind == "a" ? 5000 : 1, 'q');
        EXPECT_EQ(ask(question), "=x");

        const auto request = upstream_->last_request();
        EXPECT_NE(request.find("Bearer key-" + kind + "\r\n"), request.npos);
        EXPECT_NE(request.find("X-Kind: " + kind + "\r\n"), request.npos);
        EXPECT_EQ(request.find("text/event-stream") != request.npos,
                  kind == "b");
        EXPECT_NE(request.find("\"" + question + "\""), request.npos);
    }
    EXPECT_EQ(upstream_->connections(), 1);
}

TEST_F(TransfersTest, MoreHandlesThanAreKept)
{
    constexpr int count = 600;
    answer(200, completion("x"));
    for (std::string key : {"a", "b", "c", "a"}) {
        settings_.api_key = key;
        for (int i = 0; i < count; i++) {
            begin("hi");
        }
        finish();
    }
    EXPECT_EQ(seen_, 4 * count);
    for (const auto& event : events_) {
        EXPECT_EQ(describe(event), "=x");
    }
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

TEST_F(TransfersTest, ConnectTimeout)
{
    const SilentAddress silent;
    settings_.connect_timeout_ms = 100;
    settings_.retries = 0;
    settings_.url = "http://127.0.0.1:" + std::to_string(silent.port());
    const std::string text = ask("hi");
    EXPECT_EQ(text.find("!503 "), 0u) << text;
    EXPECT_NE(text.find("could not be reached within 100 ms"), text.npos);
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
    EXPECT_TRUE(resolver_.doubted.empty());
}

TEST_F(TransfersTest, AHostThatMovedIsFoundAgain)
{
    answer(200, completion("x"));
    const auto address = upstream_->address();
    settings_.url = "http://model.test" + address.substr(address.find(':'));
    resolver_.hosts["model.test"] = {{"127.0.0.2"}, ""};
    begin("hi");
    turn_until([&] { return !resolver_.doubted.empty(); });
    EXPECT_EQ(resolver_.doubted, std::vector<std::string>{"model.test"});

    resolver_.hosts["model.test"] = {{"127.0.0.1"}, ""};
    EXPECT_EQ(finish(), "=x");
    EXPECT_EQ(resolver_.lookups, 2);
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

}  // namespace
}  // namespace chatbot
