#include "openai/delay.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

// In milliseconds; -1 if it says nothing.
long reset(std::string_view value)
{
    auto delay = read_reset(value, 1'780'000'000);
    return delay ? static_cast<long>(delay->count()) : -1;
}

TEST(ResetTest, Seconds)
{
    EXPECT_EQ(reset("30"), 30'000);
    EXPECT_EQ(reset("1.5"), 1'500);
    EXPECT_EQ(reset("0"), 0);
    EXPECT_EQ(reset("999999999"), 86'400'000);
}

TEST(ResetTest, Durations)
{
    EXPECT_EQ(reset("6m0s"), 360'000);
    EXPECT_EQ(reset("1h2m3.5s"), 3'723'500);
    EXPECT_EQ(reset("120ms"), 120);
    EXPECT_EQ(reset("7.66s"), 7'660);
    EXPECT_EQ(reset("30d"), 86'400'000);
}

TEST(ResetTest, PointsInTime)
{
    EXPECT_EQ(reset("1780000060"), 60'000);
    EXPECT_EQ(reset("1780000060000"), 60'000);
    EXPECT_EQ(reset("1779999999"), 0);
}

TEST(ResetTest, SomethingElse)
{
    for (auto value : {"", "soon", "-5", "1.2.3", "5x", "5s6", "nan", "1e3",
                       "Wed, 21 Oct 2026 07:28:00 GMT"}) {
        EXPECT_EQ(reset(value), -1) << value;
    }
}

TEST(ResetTest, Milliseconds)
{
    EXPECT_EQ(read_milliseconds("20")->count(), 20);
    EXPECT_EQ(read_milliseconds("1500.7")->count(), 1501);
    EXPECT_FALSE(read_milliseconds("20ms"));
    EXPECT_FALSE(read_milliseconds("soon"));
}

}  // namespace
}  // namespace chatbot
