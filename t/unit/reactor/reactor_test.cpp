#include "reactor/reactor.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <memory>
#include <string>
#include <thread>

#include "fake_server.hpp"
#include "journal/failing_call.hpp"
#include "quiet_server.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

// The test is the event loop; the reactor's thread is started anew whenever it
// has left, as nginx's thread pool does.
class ReactorTest : public testing::Test {
protected:
    ReactorTest()
    {
        std::signal(SIGPIPE, SIG_IGN);
        settings_.models = {"m"};
    }

    ~ReactorTest()
    {
        stop_ = Reactor::Stop::at_once;
        if (thread_.joinable()) {
            thread_.join();
        }
    }

    void use(const std::vector<RedisSettings>& caches = {})
    {
        reactor_ = std::make_unique<Reactor>(
            caches, 100, [this] { return stop_.load(); },
            [this] { notified_++; });
    }

    void model(FakeServer::Script script)
    {
        model_ = std::make_unique<FakeServer>(std::move(script));
        settings_.url =
            "http://127.0.0.1:" + std::to_string(model_->port()) + "/v1";
    }

    // A model that answers "x" to each question.
    void model()
    {
        model([](Peer& peer, int) {
            const std::string body =
                R"({"choices": [{"message": {"content": "x"}, )"
                R"("finish_reason": "stop"}]})";
            std::string asked;
            for (std::string bytes; !(bytes = peer.receive()).empty();) {
                asked += bytes;
                if (asked.find("\"hi\"") == asked.npos) {
                    continue;
                }
                asked.clear();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: " +
                          std::to_string(body.size()) + "\r\n\r\n" + body);
            }
        });
    }

    void post(FlightId flight, std::size_t cache = Errand::no_cache)
    {
        Errand errand;
        errand.call.flight = flight;
        errand.call.settings = &settings_;
        errand.call.question = "hi";
        errand.cache = cache;
        errand.cache_valid_s = 100;
        reactor_->post(std::move(errand));
    }

    void start()
    {
        if (thread_.joinable()) {
            thread_.join();
        }
        running_ = true;
        thread_ = std::thread([this] {
            reactor_->run();
            running_ = false;
        });
    }

    // Until so many flights have ended.
    std::string wait_for(int ends)
    {
        std::string log;
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (ends > 0 && Clock::now() < limit) {
            std::this_thread::sleep_for(milliseconds(1));
            for (auto& event : reactor_->take_events().events) {
                log += " " + std::to_string(event.flight);
                if (event.kind == FlightEvent::Kind::failed) {
                    log += "!" + std::to_string(event.problem.status);
                } else {
                    log += (event.kind == FlightEvent::Kind::hit ? "^" : "=") +
                           event.answer.text;
                }
                --ends;
            }
            if (!running_) {
                start();
            }
        }
        EXPECT_EQ(ends, 0);
        return log;
    }

    ModelSettings settings_;
    std::atomic<Reactor::Stop> stop_ = Reactor::Stop::no;
    std::atomic<int> notified_ = 0;
    std::atomic<bool> running_ = false;
    std::unique_ptr<FakeServer> model_;
    std::unique_ptr<FakeServer> redis_;
    std::unique_ptr<Reactor> reactor_;
    std::thread thread_;
};

TEST_F(ReactorTest, ErrandGoesToTheModelAndBack)
{
    use();
    model();
    EXPECT_FALSE(reactor_->has_work());
    post(1);
    reactor_->flush();
    EXPECT_TRUE(reactor_->has_work());
    start();
    EXPECT_EQ(wait_for(1), " 1=x");
    post(2);  // while it waits
    reactor_->flush();
    EXPECT_EQ(wait_for(1), " 2=x");
}

TEST_F(ReactorTest, AMissGoesToTheModelAndIsStored)
{
    std::atomic<bool> stored = false;
    redis_ = std::make_unique<FakeServer>([&](Peer& peer, int) {
        for (std::string bytes; !(bytes = peer.receive()).empty();) {
            const bool is_store = bytes.find("SET") != bytes.npos;
            peer.send(is_store ? "+OK\r\n" : "$-1\r\n");
            stored = stored || is_store;
        }
    });
    RedisSettings settings;
    settings.host = "127.0.0.1";
    settings.port = redis_->port();
    settings.timeout_ms = 20000;
    use({settings});
    model();
    post(1, 0);
    reactor_->flush();
    start();
    EXPECT_EQ(wait_for(1), " 1=x");
    const auto limit = Clock::now() + std::chrono::seconds(60);
    while (!stored && Clock::now() < limit) {
        std::this_thread::sleep_for(milliseconds(1));
        if (!running_ && reactor_->has_work()) {
            start();
        }
    }
    EXPECT_TRUE(stored);
}

TEST_F(ReactorTest, WhatIsNotFlushedIsNotBegun)
{
    use();
    model();
    post(1);
    EXPECT_FALSE(reactor_->has_work());
    reactor_->flush();
    EXPECT_TRUE(reactor_->has_work());
}

TEST_F(ReactorTest, NotifiesOnceUntilEventsAreTaken)
{
    use();
    model();
    for (FlightId flight = 1; flight <= 50; flight++) {
        post(flight);
    }
    reactor_->flush();
    start();
    thread_.join();  // it leaves by itself
    EXPECT_EQ(notified_, 1);
    EXPECT_EQ(reactor_->take_events().events.size(), 50u);
    EXPECT_FALSE(reactor_->has_work());
}

TEST_F(ReactorTest, LeavesAtOnceWhenToldTo)
{
    use();
    model([](Peer& peer, int) { peer.left(); });
    post(1);
    reactor_->flush();
    stop_ = Reactor::Stop::at_once;
    start();
    thread_.join();
    EXPECT_TRUE(reactor_->has_work());
}

TEST_F(ReactorTest, OnItsWayOutItLeavesWithTheLastAnswer)
{
    use();
    model();
    post(1);
    reactor_->flush();
    stop_ = Reactor::Stop::when_done;
    start();
    thread_.join();
    EXPECT_EQ(reactor_->take_events().events.size(), 1u);
    EXPECT_FALSE(reactor_->has_work());
}

// Silent calls hold no thread of the pool for good.
TEST_F(ReactorTest, ReturnsToThePoolThoughCallsAreOut)
{
    use();
    model([](Peer& peer, int) { peer.left(); });
    post(1);
    reactor_->flush();
    start();
    thread_.join();
    EXPECT_TRUE(reactor_->has_work());
    EXPECT_TRUE(reactor_->take_events().events.empty());
    reactor_->post_cancel(1);
    reactor_->flush();
    start();
    EXPECT_EQ(wait_for(1), " 1!499");
}

// The n-th allocation of the thread fails, n upward until a run passes
// untouched: each errand ends in one event all the same.
class ReactorWithoutMemoryTest : public ReactorTest {
protected:
    void fail_each(const std::vector<RedisSettings>& caches)
    {
        settings_.url = "http://127.0.0.1:1";  // refused
        settings_.retries = 0;
        stop_ = Reactor::Stop::when_done;

        unsigned n = 0;
        while (fail(++n, caches) && n < 5000 && !HasFailure()) {
        }
        EXPECT_GT(n, 50u);
        EXPECT_LT(n, 5000u);
    }

    // Returns whether an allocation failed.
    bool fail(unsigned n, const std::vector<RedisSettings>& caches)
    {
        use(caches);
        for (FlightId flight = 1; flight <= 5; flight++) {
            post(flight, caches.empty() ? Errand::no_cache : 0);
        }
        reactor_->flush();

        const FailingCall failing(n, FailingCall::How::out_of_memory);
        for (int run = 0; reactor_->has_work() && run < 10; run++) {
            reactor_->run();
        }
        EXPECT_EQ(reactor_->take_events().events.size(), 5u) << n;
        return FailingCall::happened();
    }
};

TEST_F(ReactorWithoutMemoryTest, NoEndIsLost)
{
    fail_each({});
}

TEST_F(ReactorWithoutMemoryTest, NorThatOfALookup)
{
    // Knows no answer.
    const auto miss = [](int fd, std::string_view came, std::string_view) {
        for (std::size_t at = 0; (at = came.find("GET\r", at)) != came.npos;
             at++) {
            QuietServer::say(fd, "$-1\r\n");
        }
        return true;
    };
    const QuietServer redis(miss, "");
    RedisSettings cache;
    cache.host = "127.0.0.1";
    cache.port = redis.port();
    fail_each({cache});
}

}  // namespace
}  // namespace chatbot
