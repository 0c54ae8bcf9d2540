#include "text/scanner.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

// Whether it is one JSON text.
bool skips(std::string_view text)
{
    JsonScanner json(text);
    return json.skip_value() && json.at_end();
}

TEST(SkipTest, ByTheLetter)
{
    for (auto text :
         {"0", "-0", "10", "0.5", "1e5", "1E-05", "-1.25e+10", "true", "false",
          "null", "\"\"", "[]", "{}", " [ 1 , 2 ] ", "\t{\"a\" : [ ] }\r\n",
          R"("\b\f\n\r\t\"\\\/\u00eF")", "\"\u00E9\"",
          R"({"\u0061": {"b": [null, {"c": "d"}]}})"}) {
        EXPECT_TRUE(skips(text)) << text;
    }
    for (auto text :
         {"",         " ",          "01",          "-",
          "1.",       ".5",         "1e",          "1e+",
          "+1",       "0x1",        "NaN",         "tru",
          "True",     "'a'",        "\"a",         "\"\n\"",
          R"("\x")",  R"("\u12")",  R"("\u12g4")", "[",
          "]",        "[1",         "[1,]",        "[,1]",
          "[1 2]",    "{",          "{a: 1}",      "{\"a\"}",
          "{\"a\":}", "{\"a\":1,}", "{,}",         "{\"a\":1 \"b\":2}",
          "1 2",      "[]]",        "// x\n1",     "\v1"}) {
        EXPECT_FALSE(skips(text)) << text;
    }
}

TEST(ScannerTest, WalksThrough)
{
    JsonScanner json(
        R"( {"a": [1, "x"], "b": null, "c": {"d": "\n"}, "e": 2} )");
    std::string_view name;
    std::string_view value;
    std::string text;

    ASSERT_TRUE(json.enter_object());
    ASSERT_TRUE(json.next_member(name));
    EXPECT_EQ(name, "a");
    ASSERT_TRUE(json.enter_array() && json.next_element());
    ASSERT_TRUE(json.take_number(value));
    EXPECT_EQ(value, "1");
    ASSERT_TRUE(json.next_element() && json.take_plain_string(value));
    EXPECT_EQ(value, "x");
    EXPECT_FALSE(json.next_element());

    ASSERT_TRUE(json.next_member(name));
    EXPECT_TRUE(json.take_null());
    ASSERT_TRUE(json.next_member(name) && json.enter_object());
    ASSERT_TRUE(json.next_member(name) && json.take_string(text));
    EXPECT_EQ(text, "\n");
    EXPECT_FALSE(json.next_member(name));

    ASSERT_TRUE(json.next_member(name) && json.skip_value());
    EXPECT_FALSE(json.next_member(name));
    EXPECT_TRUE(json.at_end());
}

TEST(ScannerTest, AFailureStays)
{
    JsonScanner json("[x, 1]");
    std::string_view value;
    EXPECT_TRUE(json.enter_array() && json.next_element());
    EXPECT_FALSE(json.take_number(value));
    EXPECT_FALSE(json.next_element());
    EXPECT_FALSE(json.skip_value());
    EXPECT_FALSE(json.at_end());
    EXPECT_FALSE(json.ok());
}

// Eight bytes are looked at at once.
TEST(ScannerTest, AStringEndsWhereverItsQuoteStands)
{
    for (std::size_t n = 0; n < 40; ++n) {
        const std::string text(n, '\xE9');
        for (const std::string end : {"\"", "\\n\""}) {
            const std::string json = "\"" + text + end + " ";
            std::string out;
            JsonScanner scanner(json);
            EXPECT_TRUE(scanner.take_string(out) && scanner.at_end()) << n;
            EXPECT_EQ(out, text + (end.size() > 1 ? "\n" : "")) << n;
        }
        for (const char control : {'\0', '\x1F', '\n'}) {
            const std::string json = "\"" + text + control + text + "\"";
            EXPECT_FALSE(JsonScanner(json).skip_value()) << n;
        }
        EXPECT_FALSE(JsonScanner("\"" + text).skip_value()) << n;
    }
}

TEST(ScannerTest, LongStringsOfAnyMix)
{
    for (std::size_t size = 490; size < 530; ++size) {
        std::string written = "\"";
        std::string meant;
        for (std::size_t i = 0; i < size; ++i) {
            written += i % 7 == 3 ? "\\ud83d\\ude00" : i % 3 ? "x" : "\\n";
            meant += i % 7 == 3 ? "\xF0\x9F\x98\x80" : i % 3 ? "x" : "\n";
        }
        written += std::string(size, 'y') + '"';
        meant += std::string(size, 'y');

        std::string text;
        JsonScanner json(written);
        EXPECT_TRUE(json.take_string(text) && json.at_end());
        EXPECT_EQ(text, meant);
        EXPECT_FALSE(JsonScanner(written.substr(0, written.size() - 1))
                         .take_string(text));
    }
}

}  // namespace
}  // namespace chatbot
