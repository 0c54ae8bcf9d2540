#include "core/freshness.hpp"

#include <gtest/gtest.h>

namespace chatbot {
namespace {

constexpr std::int64_t now = 1'000'000;

TEST(FreshnessTest, AnAnswerIsFreshUntilItsTimeIsOver)
{
    EXPECT_EQ(fresh_for_s(now, 100, now), 100);
    EXPECT_EQ(fresh_for_s(now - 99, 100, now), 1);
    EXPECT_EQ(fresh_for_s(now - 100, 100, now), 0);
    EXPECT_EQ(fresh_for_s(now - 101, 100, now), 0);
    EXPECT_EQ(fresh_for_s(1, 100, now), 0);
}

// Valid for 1 s, though it was stored for longer by another location.
TEST(FreshnessTest, TheValidityOfTheLocationCounts)
{
    EXPECT_EQ(fresh_for_s(now - 2, 1, now), 0);
    EXPECT_EQ(fresh_for_s(now - 2, 3600, now), 3598);
    EXPECT_EQ(fresh_for_s(now, 0, now), 0);
}

TEST(FreshnessTest, OtherClocks)
{
    EXPECT_EQ(fresh_for_s(now + 5, 100, now), 100) << "from the future";
    EXPECT_EQ(fresh_for_s(0, 100, now), 100) << "does not say when";
    EXPECT_EQ(fresh_for_s(1'000'000'000'000, 100, now), 100);
}

}  // namespace
}  // namespace chatbot
