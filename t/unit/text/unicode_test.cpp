#include "text/unicode.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

using std::string_literals::operator""s;

TEST(Utf8Test, WellFormed)
{
    for (auto text : {""s, "plain"s, "\0"s, "é"s, "что"s, "日本"s, "😀"s,
                      "\xEF\xBF\xBF"s, "\xF4\x8F\xBF\xBF"s}) {
        EXPECT_TRUE(is_utf8(text)) << text;
    }
}

TEST(Utf8Test, IllFormed)
{
    for (auto text :
         {"\x80"s, "a\xFF"s, "\xC3"s, "\xC3("s, "\xC0\x80"s, "\xE0\x9F\xBF"s,
          "\xED\xA0\x80"s, "\xED\xBF\xBF"s, "\xF0\x9F\x98"s,
          "\xF4\x90\x80\x80"s, "\xF8\x88\x80\x80\x80"s}) {
        EXPECT_FALSE(is_utf8(text)) << testing::PrintToString(text);
    }
}

TEST(Utf8Test, AnywhereInALongText)
{
    for (std::size_t at = 0; at < 40; ++at) {
        std::string text(40, 'a');
        EXPECT_TRUE(is_utf8(text.insert(at, "é")));
        text.erase(at, 1);
        EXPECT_FALSE(is_utf8(text)) << at;
    }
}

TEST(Utf8Test, Repair)
{
    EXPECT_EQ(to_utf8(""), "");
    EXPECT_EQ(to_utf8("é 😀"), "é 😀");
    EXPECT_EQ(to_utf8("a\0b"s), "a\uFFFDb");
    EXPECT_EQ(to_utf8("\0\0"s), "\uFFFD\uFFFD");
    EXPECT_EQ(to_utf8("\xE2\x82"), "\uFFFD");
    EXPECT_EQ(to_utf8("\xE2\x82z"), "\uFFFDz");
    EXPECT_EQ(to_utf8("\xC0\x80é\xFF\xFE"), "\uFFFDé\uFFFD\uFFFD");
}

TEST(OneLineTest, ControlsAndWhiteSpace)
{
    EXPECT_EQ(one_line("", 9), "");
    EXPECT_EQ(one_line(" \n\x1b\t", 9), "");
    EXPECT_EQ(one_line("\r\nrefused\n\tIs it  there?\n", 99),
              "refused Is it there?");
    EXPECT_EQ(one_line("a\x1b[31mb\x7F\u009B\u2028c", 99), "a [31mb c");
    EXPECT_EQ(one_line("é\xFF\0"s, 99), "é\uFFFD\uFFFD");
}

TEST(OneLineTest, CutAfterACharacter)
{
    EXPECT_EQ(one_line("что", 6), "что");
    EXPECT_EQ(one_line("что", 5), "чт");
    EXPECT_EQ(one_line("чт о", 6), "чт");
    EXPECT_EQ(one_line("a b", 2), "a");
    EXPECT_EQ(one_line("😀", 3), "");
}

TEST(TrimTest, BothEnds)
{
    EXPECT_EQ(trim(""), "");
    EXPECT_EQ(trim(" \t\r\n\v\f"), "");
    EXPECT_EQ(trim("\u3000"), "");
    EXPECT_EQ(trim("\n a  b \r\n"), "a  b");
    EXPECT_EQ(trim("\u00A0\u2003что\u2028\u0085"), "что");
    EXPECT_EQ(trim("à"), "à");              // ends in the byte A0
    EXPECT_EQ(trim("\uFEFFx"), "\uFEFFx");  // is no white space
}

TEST(FoldTest, LetterCaseIsForgotten)
{
    EXPECT_EQ(fold("What is NGINX? [@`{]"), "what is nginx? [@`{]");
    EXPECT_EQ(fold("ЧТО ТАКОЕ NGINX?"), fold("что такое nginx?"));
    EXPECT_EQ(fold("ΣΊΣΥΦΟΣ"), fold("Σίσυφος"));
    EXPECT_EQ(fold("STRASSE"), fold("straße"));
    EXPECT_EQ(fold("é"), fold("E\u0301"));
    EXPECT_EQ(fold("\u212B"), fold("å"));  // ANGSTROM SIGN
    EXPECT_NE(fold("é"), fold("e"));
    EXPECT_NE(fold("日"), fold("本"));
}

TEST(FoldTest, MarksAreOrderedBeforeFolding)
{
    EXPECT_EQ(fold("α\u0345\u0301"), fold("α\u0301\u0345"));
    EXPECT_EQ(fold("\u1FB4"), fold("Α\u0345\u0301"));
}

TEST(TakePrefixTest, TakesAllOfItOrNothing)
{
    std::string_view text = "abc";
    EXPECT_FALSE(take_prefix(text, "abd"));
    EXPECT_FALSE(take_prefix(text, "abcd"));
    EXPECT_EQ(text, "abc");
    EXPECT_TRUE(take_prefix(text, "ab"));
    EXPECT_EQ(text, "c");
}

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
