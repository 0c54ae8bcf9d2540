#include "core/metrics.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

namespace chatbot {
namespace {

using Family = Metrics::Family;
using Gauge = Metrics::Gauge;

constexpr int gone = 99;

class MetricsTest : public testing::Test {
protected:
    static bool is_alive(int pid) { return pid != gone; }

    std::string text(const Metrics& metrics)
    {
        std::string out;
        metrics.write(out, 1000, is_alive);
        return out;
    }

    bool has(const Metrics& metrics, const std::string& line)
    {
        return text(metrics).find(line + "\n") != std::string::npos;
    }

    Metrics worker(std::size_t index, int pid)
    {
        return {memory_.get(), index, pid};
    }

private:
    std::unique_ptr<char[]> memory_ = std::make_unique<char[]>(Metrics::size());
};

TEST_F(MetricsTest, WorkersAreSummedUp)
{
    auto first = worker(0, 10);
    auto second = worker(1, 11);
    const Metrics::Labels ok = {{"status", "200"}, {"cache", "HIT"}};

    first.add(first.series(Family::requests, ok));
    second.add(second.series(Family::requests, ok), 2);
    second.add(second.series(Family::requests, {{"status", "422"}}));

    for (const auto* any : {&first, &second}) {
        EXPECT_TRUE(
            has(*any, R"(chatbot_requests_total{status="200",cache="HIT"} 3)"));
        EXPECT_TRUE(has(*any, R"(chatbot_requests_total{status="422"} 1)"));
        EXPECT_TRUE(has(*any, "# TYPE chatbot_requests_total counter"));
    }
}

TEST_F(MetricsTest, TheNextWorkerGoesOn)
{
    {
        auto killed = worker(0, gone);
        killed.add(killed.series(Family::records));
        killed.set(Gauge::in_flight, 7);
    }
    auto next = worker(0, 12);
    next.add(next.series(Family::records));
    next.set(Gauge::in_flight, 1);

    EXPECT_TRUE(has(next, "chatbot_records_total 2"));
    EXPECT_TRUE(has(next, "chatbot_in_flight 1")) << "not what is gone";
}

TEST_F(MetricsTest, AHistogramCountsUpToEachBound)
{
    auto metrics = worker(0, 10);
    const auto series =
        metrics.series(Family::request_duration, {{"cache", "MISS"}});
    for (auto us : {0, 10'000, 10'001, 90'000'000}) {
        metrics.observe(series, std::chrono::microseconds(us));
    }

    const std::string name = "gen_ai_server_request_duration_seconds";
    const auto bucket = [&](const std::string& bound, int n) {
        return has(metrics, name + R"(_bucket{cache="MISS",le=")" + bound +
                                "\"} " + std::to_string(n));
    };
    EXPECT_TRUE(bucket("0.01", 2)) << "a bound is part of its bucket";
    EXPECT_TRUE(bucket("0.02", 3));
    EXPECT_TRUE(bucket("81.92", 3));
    EXPECT_TRUE(bucket("+Inf", 4));
    EXPECT_TRUE(has(metrics, name + R"(_sum{cache="MISS"} 90.020001)"));
    EXPECT_TRUE(has(metrics, name + R"(_count{cache="MISS"} 4)"));
}

TEST_F(MetricsTest, LabelsAreBoundedAndEscaped)
{
    auto metrics = worker(0, 10);
    for (int i = 0; i < 5000; ++i) {
        metrics.add(
            metrics.series(Family::tokens, {{"model", std::to_string(i)}}));
    }
    metrics.add(metrics.series(Family::calls, {{"model", "a\"b\\c\nd"}}));
    metrics.add(
        metrics.series(Family::calls, {{"model", std::string(1000, 'x')}}));

    EXPECT_TRUE(has(metrics, R"(chatbot_tokens_total{model="99"} 1)"));
    EXPECT_TRUE(has(metrics, R"(chatbot_tokens_total{model="other"} 4900)"));
    EXPECT_TRUE(
        has(metrics, R"(chatbot_upstream_calls_total{model="a\"b\\c d"} 1)"));
    EXPECT_TRUE(
        has(metrics, R"(chatbot_upstream_calls_total{model="other"} 1)"));
    EXPECT_LT(text(metrics).size(), 64u * 1024);
}

TEST_F(MetricsTest, BreakersAreCountedByState)
{
    auto first = worker(0, 10);
    auto second = worker(1, 11);
    auto killed = worker(2, gone);
    const auto set = [](Metrics& metrics, const char* server, int until_s) {
        metrics.set_breaker(
            metrics.series(Family::breakers, {{"server", server}}), until_s);
    };
    const auto is = [&](const std::string& server, const std::string& state,
                        int n) {
        return has(first, R"(chatbot_upstream_breakers{server=")" + server +
                              R"(",state=")" + state + "\"} " +
                              std::to_string(n));
    };

    set(first, "a", 0);
    set(second, "a", 1001);
    set(first, "b", 1000);
    set(second, "b", 1001);
    set(killed, "a", 2000);
    set(killed, "c", 0);

    EXPECT_TRUE(is("a", "closed", 1));
    EXPECT_TRUE(is("a", "open", 1));
    EXPECT_TRUE(is("a", "half_open", 0));
    EXPECT_TRUE(is("b", "closed", 0));
    EXPECT_TRUE(is("b", "open", 1));
    EXPECT_TRUE(is("b", "half_open", 1)) << "its time is over";
    EXPECT_EQ(text(first).find("server=\"c\""), std::string::npos)
        << "no worker has it";

    set(second, "a", 0);
    auto next = worker(0, 12);
    EXPECT_TRUE(is("a", "closed", 2));
    set(next, "a", 0);
    EXPECT_TRUE(is("a", "closed", 3));
}

TEST_F(MetricsTest, WhatFindsNoRoomHarmsNothing)
{
    auto metrics = worker(0, 10);
    for (auto family :
         {Family::request_duration, Family::call_duration, Family::first_token,
          Family::redis_duration, Family::breakers}) {
        for (int i = 0; i < 200; ++i) {
            const auto series =
                metrics.series(family, {{"n", std::to_string(i)}});
            if (family == Family::breakers) {
                metrics.set_breaker(series, 0);
            } else {
                metrics.observe(series, std::chrono::seconds(1));
            }
        }
    }
    EXPECT_TRUE(has(
        metrics, R"(gen_ai_server_request_duration_seconds_count{n="99"} 1)"));
    EXPECT_TRUE(
        has(metrics,
            R"(gen_ai_server_request_duration_seconds_count{n="other"} 100)"));
    EXPECT_TRUE(
        has(metrics, R"(chatbot_redis_duration_seconds_count{n="99"} 1)"));
    EXPECT_TRUE(
        has(metrics, R"(chatbot_upstream_breakers{n="99",state="closed"} 1)"));
}

TEST_F(MetricsTest, WhatWaitsIsAsOldAsItsOldest)
{
    auto first = worker(0, 10);
    auto second = worker(1, 11);
    EXPECT_TRUE(has(first, "chatbot_log_oldest_seconds 0"));

    first.set(Gauge::oldest_since_s, 990);
    second.set(Gauge::oldest_since_s, 960);
    second.set(Gauge::postgres_down, 1);
    EXPECT_TRUE(has(first, "chatbot_log_oldest_seconds 40"));
    EXPECT_TRUE(has(first, "chatbot_postgres_up 0"));
    EXPECT_TRUE(has(first, "chatbot_redis_up 1"));
}

}  // namespace
}  // namespace chatbot
