#include "core/metrics.hpp"

#include <gtest/gtest.h>

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
    for (auto ms : {0, 10, 11, 90'000}) {
        metrics.observe(series, ms);
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
    EXPECT_TRUE(has(metrics, name + R"(_sum{cache="MISS"} 90.021)"));
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
