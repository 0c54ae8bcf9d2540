#include "core/outage.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

class OutageTest : public testing::Test {
protected:
    // Fails each five seconds for so long; what was told, and when.
    std::string lasts(Clock::duration time, const std::string& reason = "no")
    {
        std::string all;
        for (const auto end = now_ + time; now_ < end; now_ += seconds(5)) {
            const auto text = outage_.fail(reason, now_);
            if (!text.empty()) {
                all += "[" + text + "]";
            }
        }
        return all;
    }

    std::string ends() { return outage_.recover("well", now_); }

    Outage outage_;
    Clock::time_point now_{hours(1000)};
};

TEST_F(OutageTest, IsToldAgainAtGrowingIntervals)
{
    EXPECT_EQ(ends(), "") << "nothing has failed";
    EXPECT_EQ(lasts(seconds(55)), "[no]");
    EXPECT_EQ(lasts(minutes(9)), "[no (for 1 min)]");
    EXPECT_EQ(lasts(minutes(30)), "[no (for 10 min)]");
    EXPECT_EQ(lasts(minutes(20)), "");
    EXPECT_EQ(lasts(hours(2)), "[no (for 1 h)][no (for 2 h)]");
    EXPECT_EQ(ends(), "well after 2 h");
    EXPECT_EQ(ends(), "");
}

TEST_F(OutageTest, AnotherReasonIsTold)
{
    EXPECT_EQ(lasts(seconds(10), "a"), "[a]");
    EXPECT_EQ(lasts(seconds(10), "b"), "[b]");
    EXPECT_EQ(lasts(seconds(10), "a"), "");
    std::string all;
    for (int i = 0; i < 5; ++i) {
        all += lasts(seconds(5), std::to_string(i));
    }
    EXPECT_EQ(all, "[0][1][2]") << "a few of them";
    EXPECT_EQ(ends(), "well after 55 s");
}

TEST_F(OutageTest, OneAfterTheOtherIsToldNowAndThen)
{
    std::string all;
    for (int i = 0; i < 180; ++i) {
        all += outage_.fail("no", now_);
        all += outage_.recover(",", now_);
        now_ += seconds(1);
    }
    std::string expected;
    for (int i = 0; i < Outage::burst + 2; ++i) {
        expected += "no, after 0 s";
    }
    EXPECT_EQ(all, expected);
}

TEST_F(OutageTest, ALongOneIsToldEvenIfOthersWent)
{
    for (int i = 0; i < 10; ++i) {
        (void)outage_.fail("no", now_);
        (void)outage_.recover("", now_);
    }
    EXPECT_EQ(lasts(seconds(55)), "");
    EXPECT_EQ(lasts(seconds(10)), "[no]");
    EXPECT_EQ(ends(), "well after 1 min");
}

TEST(InWordsTest, Units)
{
    EXPECT_EQ(in_words(seconds(0)), "0 s");
    EXPECT_EQ(in_words(seconds(59)), "59 s");
    EXPECT_EQ(in_words(seconds(119)), "1 min");
    EXPECT_EQ(in_words(hours(47)), "47 h");
    EXPECT_EQ(in_words(hours(48)), "2 days");
}

}  // namespace
}  // namespace chatbot
