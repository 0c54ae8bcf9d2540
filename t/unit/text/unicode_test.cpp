#include "text/unicode.hpp"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "growth.hpp"

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

TEST(Utf8Test, Controls)
{
    EXPECT_FALSE(has_controls(""));
    for (int c = 0; c < 0x100; ++c) {
        for (std::size_t at = 0; at < 12; ++at) {
            std::string text(12, '\xFF');
            text[at] = static_cast<char>(c);
            EXPECT_EQ(has_controls(text), c < 0x20) << c << " at " << at;
        }
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

TEST(FoldTest, ManyMarksAreOrdered)
{
    // classes 240, 230, 220, 202, 1: each run is the reverse of its order
    std::vector<std::string> marks = {"\u0345", "\u0301", "\u0316", "\u0327",
                                      "\u0334"};
    std::string text = "α";
    std::string ordered = "α";
    for (const auto& mark : marks) {
        text += repeated(mark, 200);
    }
    for (auto mark = marks.rbegin(); mark != marks.rend() - 1; ++mark) {
        ordered += repeated(*mark, 200);
    }
    ordered += repeated("ι", 200);

    EXPECT_EQ(fold(text), ordered);
    EXPECT_EQ(fold(text + "B" + text), ordered + "b" + ordered);
}

TEST(FoldTest, MarksOfOneClassKeepTheirOrder)
{
    EXPECT_EQ(fold("a\u0301\u0300\u0316"), "a\u0316\u0301\u0300");
    EXPECT_NE(fold("a\u0301\u0300"), fold("a\u0300\u0301"));
}

TEST(FoldTest, BesideAscii)
{
    EXPECT_EQ(fold("ABC\0 É 1Z"s), "abc\0 e\u0301 1z"s);
    EXPECT_EQ(fold("ABCDEFGHÉ"), "abcdefghe\u0301");
}

// What fold() must be equal to, by utf8proc, which takes quadratic time for it.
std::string folded_by_utf8proc(std::string text)
{
    for (int options : {0, static_cast<int>(UTF8PROC_CASEFOLD)}) {
        utf8proc_uint8_t* mapped = nullptr;
        auto size = utf8proc_map(
            reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
            static_cast<utf8proc_ssize_t>(text.size()), &mapped,
            static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | options));
        EXPECT_GE(size, 0);
        text.assign(reinterpret_cast<char*>(mapped),
                    static_cast<std::size_t>(size));
        std::free(mapped);
    }
    return text;
}

// Characters that matter to folding, and as many others.
std::vector<std::string> interesting_characters()
{
    std::vector<std::string> found;
    for (utf8proc_int32_t c = 0; c < 0x30000; ++c) {
        auto property = utf8proc_get_property(c);
        if (utf8proc_codepoint_valid(c) &&
            (property->combining_class != 0 || c % 97 == 0 ||
             property->casefold_seqindex != UINT16_MAX ||
             property->decomp_seqindex != UINT16_MAX)) {
            utf8proc_uint8_t bytes[4];
            auto size = utf8proc_encode_char(c, bytes);
            found.emplace_back(bytes, bytes + size);
        }
    }
    return found;
}

TEST(FoldTest, LikeUtf8proc)
{
    auto characters = interesting_characters();
    for (const auto& character : characters) {
        EXPECT_EQ(fold(character), folded_by_utf8proc(character));
    }

    std::mt19937 random(1);
    for (int i = 0; i < 20'000; ++i) {
        std::string text;
        for (auto n = random() % 12; n > 0; --n) {
            text += characters[random() % characters.size()];
        }
        ASSERT_EQ(fold(text), folded_by_utf8proc(text)) << text;
    }
}

// What a client can send, each run of it as bad as it gets.
std::string marks(std::size_t size)
{
    std::string text = "a";
    for (auto mark : {"\u0345", "\u035D", "\u035C", "\u0315", "\u0301",
                      "\u0316", "\u031B", "\u0327", "\u0334"}) {
        text += repeated(mark, size / 9);
    }
    return text;
}

TEST(GrowthTest, Fold)
{
    expect_linear(marks, fold);
    for (auto unit : {"A", "\u0390", "\u1F82", "Ö", "한", "\u0344\u0316",
                      "a\u0301\u0316"}) {
        expect_linear([=](auto size) { return repeated(unit, size); }, fold);
    }
}

TEST(GrowthTest, ChecksAndRepairs)
{
    for (auto unit : {" "s, "a "s, "\u3000"s, "\u0301"s, "\0"s, "\x80"s,
                      "\xE3\x80"s, "\xF0"s, "\x1B"s, "\r\n"s}) {
        auto make = [&](auto size) { return repeated(unit, size); };
        expect_linear(make, is_utf8);
        expect_linear(make, to_utf8);
        expect_linear(make, [](auto& text) { return one_line(text, 100); });
        expect_linear(make,
                      [](auto& text) { return one_line(text, text.size()); });
        if (is_utf8(unit)) {
            expect_linear(make, trim);
        }
    }
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

}  // namespace
}  // namespace chatbot
