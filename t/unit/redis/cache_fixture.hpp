#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fake_resolver.hpp"
#include "fake_server.hpp"
#include "reactor/epoll.hpp"
#include "redis/cache.hpp"
#include "text/digest.hpp"

namespace chatbot {

using std::chrono::milliseconds;

// A bulk reply.
inline std::string bulk(const std::string& text)
{
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

// The test is the reactor's thread.
class RedisCacheTest : public testing::Test {
protected:
    RedisCacheTest()
    {
        std::signal(SIGPIPE, SIG_IGN);
        settings_.timeout_ms = 20000;
    }

    void use(const RedisSettings& settings)
    {
        cache_.reset();
        cache_ = std::make_unique<RedisCache>(
            settings, epoll_, resolver_,
            [this](auto flight, auto&& found) {
                EXPECT_TRUE(
                    found_.try_emplace(flight, found ? found->text : "-")
                        .second)
                    << "told twice";
            },
            [this](auto duration) { measured_.push_back(duration); });
    }

    // Uses a fake Redis with that script.
    void fake(FakeServer::Script script)
    {
        cache_.reset();
        server_ = std::make_unique<FakeServer>(std::move(script));
        settings_.host = "127.0.0.1";
        settings_.port = server_->port();
        use(settings_);
    }

    // Uses a fake Redis that says this as soon as anything has come.
    void fake(const std::string& bytes)
    {
        fake([=](Peer& peer, int) {
            peer.receive();
            peer.send(bytes);
            peer.left();
        });
    }

    // Asks; the outcome stands under `flight` once it is known.
    void look_up(const std::string& question)
    {
        ++flight_;
        if (!cache_->look_up(flight_, digest({question}))) {
            found_[flight_] = "down";
        }
    }

    void store(const std::string& question, std::string text,
               int expire_s = 100)
    {
        Answer answer;
        answer.text = std::move(text);
        cache_->store(digest({question}), expire_s, answer);
    }

    void turn(Clock::time_point until)
    {
        epoll_.wait(std::min(until, cache_->deadline()));
        cache_->on_time(Clock::now());
        cache_->flush();
    }

    // Waits for all replies.  "TEXT" is a hit, "-" none, "down" not asked.
    std::string settle()
    {
        const auto start = Clock::now();
        cache_->flush();
        while (cache_->busy()) {
            if (Clock::now() > start + std::chrono::seconds(60)) {
                ADD_FAILURE() << "it does not end";
                break;
            }
            turn(Clock::time_point::max());
        }
        time_ = Clock::now() - start;

        std::string all;
        for (const auto& [flight, text] : std::exchange(found_, {})) {
            all += (all.empty() ? "" : " ") + text;
        }
        return all;
    }

    std::string run(const std::vector<std::string>& questions)
    {
        for (const auto& question : questions) {
            look_up(question);
        }
        return settle();
    }

    // Until a probe has found it.
    void wait_until_up()
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (cache_->busy() ||
               cache_->deadline() != Clock::time_point::max()) {
            ASSERT_LT(Clock::now(), limit);
            turn(Clock::time_point::max());
        }
    }

    // What was told since the last call, without where Redis is.
    std::string told()
    {
        std::string text;
        for (const Notice& notice : cache_->take_notices()) {
            text += text.empty() ? "" : "; ";
            text += notice.text.substr(notice.text.find(": ") + 2);
        }
        return text;
    }

    Epoll epoll_;
    FakeResolver resolver_;
    RedisSettings settings_;
    std::unique_ptr<FakeServer> server_;
    FlightId flight_ = 0;
    std::map<FlightId, std::string> found_;
    std::unique_ptr<RedisCache> cache_;
    Clock::duration time_{};
    std::vector<std::chrono::microseconds> measured_;  // lookups
};

}  // namespace chatbot
