#include "redis/value.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

TEST(CacheValueTest, ThereAndBack)
{
    const Answer answer{"\"Привет\"\n", "m", 1234567890, 5, -1, true};
    const std::string value = write_cache_value(answer);
    EXPECT_EQ(value,
              "{\"response\":\"\\\"Привет\\\"\\n\",\"model\":\"m\","
              "\"created\":1234567890,\"prompt_tokens\":5,"
              "\"completion_tokens\":null}");

    const auto back = read_cache_value(value);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->text, answer.text);
    EXPECT_EQ(back->model, answer.model);
    EXPECT_EQ(back->created, answer.created);
    EXPECT_EQ(back->prompt_tokens, 5);
    EXPECT_EQ(back->completion_tokens, -1);
    EXPECT_TRUE(back->complete);
}

TEST(CacheValueTest, OnlyTheResponseIsNeeded)
{
    const auto answer = read_cache_value(
        R"({"response": "x", "created": "y", "prompt_tokens": 1e99})");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, "x");
    EXPECT_EQ(answer->created, 0);
    EXPECT_EQ(answer->prompt_tokens, -1);

    for (auto value :
         {"", "x", "{}", "[]", R"({"response": ""})", R"({"response": " "})",
          R"({"response": 1})", R"({"response": "x"} y)",
          "{\"response\": \"\\u0000\"}", "{\"response\": \"\xFF\"}"}) {
        EXPECT_FALSE(read_cache_value(value)) << value;
    }
}

// A value as write_cache_value() makes it, but for what the numbers are.
std::string value_with(const std::string& created, const std::string& tokens)
{
    return R"({"response":"x\n","model":"m","created":)" + created +
           R"(,"prompt_tokens":)" + tokens + R"(,"completion_tokens":)" +
           tokens + "}";
}

// What write_cache_value() makes is read in a fast way, which a space more is
// beyond.
TEST(CacheValueTest, FastAndThoroughAgree)
{
    std::vector<std::string> values;
    for (auto created : {"0", "-0", "07", "-1", "1.5", "1000000000000",
                         "1000000000001", "9223372036854775808", "null"}) {
        values.push_back(value_with(created, "1"));
    }
    for (auto tokens : {"null", "0", "-0", "07", "-1", "1e2", "2147483647",
                        "2147483648", "\"1\""}) {
        values.push_back(value_with("1", tokens));
    }

    values.push_back(
        "{\"response\":\"\t\",\"model\":\"m\",\"created\":1,"
        "\"prompt_tokens\":1,\"completion_tokens\":1}");

    for (const auto& value : values) {
        const auto fast = read_cache_value(value);
        const auto thorough = read_cache_value(value + " ");
        ASSERT_EQ(fast.has_value(), thorough.has_value()) << value;
        if (fast) {
            EXPECT_EQ(fast->text, thorough->text);
            EXPECT_EQ(fast->model, thorough->model);
            EXPECT_EQ(fast->created, thorough->created) << value;
            EXPECT_EQ(fast->prompt_tokens, thorough->prompt_tokens) << value;
            EXPECT_EQ(fast->completion_tokens, thorough->completion_tokens);
        }
    }
}

}  // namespace
}  // namespace chatbot
