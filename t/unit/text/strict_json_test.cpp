#include "text/strict_json.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

using std::string_literals::operator""s;

// The fault, and where it is; "" if there is none.
std::string fault_of(std::string_view text)
{
    auto fault = check_json(text);
    return fault ? fault.what + (" at " + std::to_string(fault.at)) : "";
}

TEST(CheckJsonTest, Good)
{
    for (auto text : {"{}",
                      "[]",
                      " [ ] ",
                      "{ \"a\" : [ 1 , -0 , \"\" ] , \"\" : { } }\r\n\t",
                      "0",
                      "-0",
                      "0.0",
                      "10",
                      "1.50",
                      "1e5",
                      "1E+05",
                      "-1.5e-3",
                      "true",
                      "false",
                      "null",
                      "\"\"",
                      R"("\"\\\/\b\f\n\r\t")",
                      R"("\u00e9\uFFFF")",
                      R"("\ud83d\uDE00 \\u0000")",
                      "\"что 😀 \x7F\"",
                      "[[[[]]],{}]"}) {
        EXPECT_EQ(fault_of(text), "") << text;
    }
}

TEST(CheckJsonTest, Structure)
{
    for (auto text : {"", " ", "[", "{", "[1", "[1,", "{\"a\"",
                      "{\"a\":", "{\"a\":1", "-"}) {
        auto end = std::to_string(std::string(text).size());
        EXPECT_EQ(fault_of(text), text[0] == '-'
                                      ? "an unexpected character at 0"
                                      : "an unexpected end at " + end);
    }
    EXPECT_EQ(fault_of("[1,]"), "an unexpected character at 3");
    EXPECT_EQ(fault_of("{\"a\":1,}"), "an unexpected character at 7");
    for (auto text : {",",
                      "]",
                      "[,1]",
                      "[1 2]",
                      "[1}",
                      "{a:1}",
                      "{1:1}",
                      "{\"a\" 1}",
                      "{\"a\":}",
                      "{'a':1}",
                      "True",
                      "nul",
                      "nulL",
                      "NaN",
                      "Infinity",
                      "-Infinity",
                      "+1",
                      ".5",
                      "\xC2\xA0"
                      "1",
                      "\v1",
                      "/**/1",
                      "\uFEFF1"}) {
        EXPECT_TRUE(fault_of(text).starts_with("an unexpected character"))
            << text << ": " << fault_of(text);
    }
    EXPECT_EQ(fault_of("{} {}"), "unexpected text after the value at 3");
    for (auto text : {"1x", "null,", "[]]", "\"\"\"", "{}//"}) {
        EXPECT_NE(fault_of(text), "") << text;
    }
    EXPECT_EQ(fault_of("{}\0"s), "unexpected text after the value at 2");
}

TEST(CheckJsonTest, Numbers)
{
    for (auto text : {"01", "-01", "00", "1.", "1.e5", "1e", "1e+", "1E-"}) {
        EXPECT_NE(fault_of(text), "") << text;
    }
    EXPECT_EQ(fault_of("[1,01]"), "an invalid number at 4");
    EXPECT_EQ(fault_of("[1.]"), "an invalid number at 3");
    EXPECT_EQ(fault_of(std::string(63, '1')), "");
    EXPECT_EQ(fault_of(std::string(64, '1')), "a number that is too long at 0");
}

TEST(CheckJsonTest, Strings)
{
    for (auto text : {"\"\n\""s, "\"a\tb\""s, "\"\x1F\""s, "\"\0\""s}) {
        EXPECT_TRUE(
            fault_of(text).starts_with("a control character in a string at"))
            << text;
    }
    EXPECT_EQ(fault_of("\"a"), "a string without an end at 2");
    EXPECT_EQ(fault_of("{\"a:1}"), "a string without an end at 6");
    for (auto text :
         {R"("\x41")", R"("\")", R"("\)", R"("\u12")", R"("\u12G4")",
          R"("\U0041")", R"("\'")", "\"\\\n\"", R"("\u+123")"}) {
        EXPECT_NE(fault_of(text), "") << text;
    }
    EXPECT_EQ(fault_of(R"("a\x")"), "an invalid escape at 2");
    EXPECT_EQ(fault_of("\"a\xFF\""), "ill-formed UTF-8 at 2");
    EXPECT_EQ(fault_of("\"\xED\xA0\x80\""), "ill-formed UTF-8 at 1");
}

TEST(CheckJsonTest, StringsThatAreNoText)
{
    EXPECT_EQ(fault_of(R"(["\u0000"])"), "the character U+0000 at 2");
    for (auto text : {R"("\ud83d")", R"("\ude00")", R"("\ud83d\ud83d\ude00")",
                      R"("\ud83dx")", R"("\ud83d\n")", R"("\ud83d\u0041")",
                      R"({"\ude00\ud83d":1})", R"("\ud83d\)"}) {
        EXPECT_TRUE(fault_of(text).starts_with("half of a surrogate pair at"))
            << text << ": " << fault_of(text);
    }
}

TEST(CheckJsonTest, Limits)
{
    auto nested = [](std::size_t depth) {
        return std::string(depth, '[') + std::string(depth, ']');
    };
    EXPECT_EQ(fault_of(nested(128)), "");
    EXPECT_EQ(fault_of(nested(129)), "more than 128 levels at 128");
    EXPECT_EQ(fault_of(std::string(1'000'000, '[')),
              "more than 128 levels at 128");

    EXPECT_FALSE(check_json("[1, {\"a\": 2}]", 4));
    auto fault = check_json("[1, {\"a\": 2}]", 3);
    EXPECT_STREQ(fault.what, "too many values");
    EXPECT_EQ(fault.at, 10U);
}

}  // namespace
}  // namespace chatbot
