#include "core/cache_health.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

using std::chrono::milliseconds;

class CacheHealthTest : public testing::Test {
protected:
    // In how many milliseconds the next probe is due; -1: none is.
    int probe_in() const
    {
        return health_.probe_at() == Clock::time_point::max()
                   ? -1
                   : static_cast<int>((health_.probe_at() - now_) /
                                      milliseconds(1));
    }

    Clock::time_point now_ = Clock::now();
    CacheHealth health_;
};

TEST_F(CacheHealthTest, UpUntilAFailure)
{
    EXPECT_TRUE(health_.up());
    EXPECT_EQ(probe_in(), -1);
    EXPECT_FALSE(health_.take_probe(now_));
    health_.on_failure(now_);
    EXPECT_FALSE(health_.up());
    EXPECT_EQ(probe_in(), 100);
}

TEST_F(CacheHealthTest, AProbeIsDueOnceAndInTime)
{
    health_.on_failure(now_);
    EXPECT_FALSE(health_.take_probe(now_ + milliseconds(99)));
    now_ += milliseconds(100);
    EXPECT_TRUE(health_.take_probe(now_));
    EXPECT_FALSE(health_.take_probe(now_ + milliseconds(10000)));
    EXPECT_EQ(probe_in(), -1);
}

TEST_F(CacheHealthTest, ProbesComeAtGrowingIntervals)
{
    std::string intervals;
    for (int i = 0; i < 8; i++) {
        health_.on_failure(now_);
        intervals += std::to_string(probe_in()) + " ";
    }
    EXPECT_EQ(intervals, "100 200 400 800 1600 3200 5000 5000 ");
}

TEST_F(CacheHealthTest, ASuccessForgetsTheFailures)
{
    health_.on_failure(now_);
    health_.on_failure(now_);
    health_.on_success();
    EXPECT_TRUE(health_.up());
    EXPECT_EQ(probe_in(), -1);
    EXPECT_FALSE(health_.take_probe(now_ + milliseconds(10000)));
    health_.on_failure(now_);
    EXPECT_EQ(probe_in(), 100);
}

}  // namespace
}  // namespace chatbot
