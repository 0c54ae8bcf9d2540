#include "text/digest.hpp"

#include <gtest/gtest.h>

namespace chatbot {
namespace {

TEST(DigestTest, KnownValues)
{
    // printf '' | sha256sum; printf 3:abc | sha256sum
    EXPECT_EQ(
        hex(digest({})),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(
        hex(digest({"abc"})),
        "aab5f9ae99b2e38fb462025c8f72f570c9c811705d2a4277dc855d7fa293fe97");
}

TEST(DigestTest, PartsCount)
{
    EXPECT_NE(digest({"ab", "c"}), digest({"a", "bc"}));
    EXPECT_NE(digest({"a"}), digest({"a", ""}));
    EXPECT_NE(digest({"1:a"}), digest({"a"}));
}

}  // namespace
}  // namespace chatbot
