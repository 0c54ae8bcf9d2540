#include "text/json.hpp"

#include <gtest/gtest.h>

#include <string>

#include "growth.hpp"

namespace chatbot {
namespace {

using std::string_literals::operator""s;

std::string written(std::string_view text)
{
    std::string out;
    append_json(out, text);
    return out;
}

std::string string_in(const Json& json)
{
    return cJSON_IsString(json.get()) ? json->valuestring : "(none)";
}

TEST(ParseJsonTest, Values)
{
    for (auto text : {"{}", "[]", "null", " {\"a\": [1, \"b\"]}\r\n\t",
                      "-1.5e3", "\"\\ud83d\\ude00 \\\\u0000\""}) {
        EXPECT_TRUE(parse_json(text)) << text;
    }
}

TEST(ParseJsonTest, Refused)
{
    for (auto text : {""s,
                      " "s,
                      "{"s,
                      "{\"a\":1,"s,
                      "{} {}"s,
                      "{}x"s,
                      "\"a"s,
                      "{}\0"s,
                      "[1,\0 2]"s,
                      "\"a\0b\""s,
                      "\"\xFF\""s,
                      "\"\\u0000\""s,
                      "\"\\\\\\u0000\""s,
                      "{\"\\u0000\":1}"s,
                      "\"\\ud83d\""s,
                      "\"\\ude00\""s,
                      "\"\\ud83d\\ud83d\""s,
                      "\"\\ud83dx\""s,
                      "\"\\u12"s,
                      "\"\\"s}) {
        EXPECT_FALSE(parse_json(text)) << testing::PrintToString(text);
    }
}

TEST(ParseJsonTest, SeesNoMoreThanTheView)
{
    std::string text = "[1]";
    EXPECT_FALSE(parse_json(std::string_view(text).substr(0, 2)));
    EXPECT_TRUE(parse_json(std::string_view("[1]]").substr(0, 3)));
}

TEST(ParseJsonTest, DepthIsBounded)
{
    auto nested = [](int depth) {
        return std::string(depth, '[') + std::string(depth, ']');
    };
    EXPECT_TRUE(parse_json(nested(100)));
    EXPECT_FALSE(parse_json(nested(100'000)));
    EXPECT_FALSE(parse_json(std::string(100'000, '[')));
}

TEST(ParseJsonTest, Limits)
{
    auto digits = [](std::size_t n) { return std::string(n, '1'); };
    EXPECT_EQ(parse_json(digits(63))->type, cJSON_Number);
    EXPECT_FALSE(parse_json(digits(64)));

    JsonFault fault;
    EXPECT_TRUE(parse_json("[1,{\"a\":2}]", fault, 4));
    EXPECT_FALSE(parse_json("[1,{\"a\":2}]", fault, 3));
    EXPECT_STREQ(fault.what, "too many values");
}

TEST(ParseForeignJsonTest, Repairs)
{
    auto repaired = [](std::string_view text) {
        return string_in(parse_foreign_json(text));
    };
    EXPECT_EQ(repaired("\"plain\""), "plain");
    EXPECT_EQ(repaired("\"a\\u0000b\\u0000\""), "a\uFFFDb\uFFFD");
    EXPECT_EQ(repaired("\"a\0b\""s), "a\uFFFDb");
    EXPECT_EQ(repaired("\"\\\\u0000\""), "\\u0000");
    EXPECT_EQ(repaired("\"\xC3\""), "\uFFFD");
    EXPECT_EQ(repaired("\"\\ud83d\""), "\uFFFD");
    EXPECT_EQ(repaired("\"\\ud83d\\ud83d\\ude00\""), "\uFFFD😀");
    EXPECT_EQ(repaired("\"\\udc00\\n\""), "\uFFFD\n");
    EXPECT_EQ(repaired("\"a\nb\tc\""), "a\nb\tc");  // cJSON takes these
    EXPECT_EQ(repaired("{"), "(none)");
}

TEST(ParseForeignJsonTest, KeepsHalvesOfPairs)
{
    auto kept = [](std::string_view text) {
        return string_in(parse_with_halves(text));
    };
    EXPECT_EQ(kept("\"plain \\n \\ud83d\\ude00 \\\\ud83d\""), "(none)");
    EXPECT_EQ(kept("\"\xFF\\u0000\\uD83D\\ude00\\udFfF\""),
              "\uFFFD\uFFFD😀\xED\xBF\xBF");
    EXPECT_EQ(kept("\"\\ud800 \\ud83d\""), "\xED\xA0\x80 \xED\xA0\xBD");
    EXPECT_EQ(kept("\"\\ud83d"), "(none)");
}

TEST(ParseForeignJsonTest, ReadsWhatPythonWritesForNoNumber)
{
    auto printed = [](std::string_view text) {
        const auto json = parse_foreign_json(text);
        return json ? print_json(json.get()) : "(none)";
    };
    EXPECT_EQ(printed(R"({"a":NaN,"b":[-Infinity,Infinity],"c":1})"),
              R"({"a":null,"b":[null,null],"c":1})");
    EXPECT_EQ(printed(R"(["NaN \" Infinity",NaN])"),
              R"(["NaN \" Infinity",null])");
    EXPECT_EQ(printed("NaN"), "null");
    EXPECT_EQ(printed("[NaNa]"), "(none)");
    EXPECT_EQ(printed("[NaN"), "(none)");
    EXPECT_EQ(printed("\"NaN\\"), "(none)");
}

// One repetition after the other, in an array that is closed.
std::string array_of(std::string_view unit, std::size_t size)
{
    std::string text = "[";
    while (text.size() < size) {
        text.append(unit).append(1, ',');
    }
    text.back() = ']';
    return text;
}

TEST(GrowthTest, Json)
{
    auto parse = [](auto& text) { return parse_json(text) != nullptr; };
    auto parse_foreign = [](auto& text) { return parse_foreign_json(text); };
    auto with_halves = [](auto& text) { return parse_with_halves(text); };
    for (auto unit :
         {"0", "\"\"", "\"\\ud83d\"", "\"\\ud83d\\ude00\"", "{\"a\":1,\"a\":1}",
          "\"\\u0000\"", "1e5", "[[[[[[[[]]]]]]]]"}) {
        auto make = [=](auto size) { return array_of(unit, size); };
        expect_linear(make, parse);
        expect_linear(make, parse_foreign);
        expect_linear(make, with_halves);
        expect_linear(make, written);
    }
    for (auto unit : {"[", "{\"\":", "\"\\u0061", "1", "\\", " "}) {
        auto make = [=](auto size) { return repeated(unit, size); };
        expect_linear(make, parse);
        expect_linear(make, parse_foreign);
        expect_linear(make, with_halves);
    }
}

TEST(MemberTest, LastOneCounts)
{
    auto json = parse_json(R"({"a": 1, "A": 2, "a": "x", "n": 3.5})");
    EXPECT_EQ(string_member(json.get(), "a"), "x");
    EXPECT_EQ(number_member(json.get(), "a"), std::nullopt);
    EXPECT_EQ(number_member(json.get(), "n"), 3.5);
    EXPECT_EQ(string_member(json.get(), "n"), std::nullopt);
    EXPECT_EQ(member(json.get(), "N"), nullptr);
}

TEST(MemberTest, OnlyObjectsHaveMembers)
{
    auto json = parse_json(R"([{"a": 1}])");
    EXPECT_EQ(member(json.get(), "a"), nullptr);
    EXPECT_EQ(member(nullptr, "a"), nullptr);
}

TEST(AppendJsonTest, Escapes)
{
    EXPECT_EQ(written(""), R"("")");
    EXPECT_EQ(written("plain / что 😀 \x7F"), "\"plain / что 😀 \x7F\"");
    EXPECT_EQ(written("\"\\\b\f\n\r\t"), R"("\"\\\b\f\n\r\t")");
    EXPECT_EQ(written("a\x01z\x1F\0"s), R"("a\u0001z\u001f\u0000")");
}

TEST(AppendJsonTest, ReadsBack)
{
    std::string text;
    for (char c = 1; c != 0x7F; ++c) {
        text += c;
    }
    EXPECT_EQ(string_in(parse_json(written(text))), text);
}

// What take_json() made of the text, and what it left; "-" if it refused.
std::string taken(std::string_view text,
                  void (*append_escaped)(std::string&, char) = nullptr)
{
    std::string out;
    return take_json(text, out, append_escaped) ? out + "|" + std::string(text)
                                                : "-";
}

TEST(TakeJsonTest, TakesWhatWasAppended)
{
    std::string text = "что \x7F ";
    for (char c = 1; c != 0x7F; ++c) {
        text += c;
        EXPECT_EQ(taken(written(text) + "\", "), text + "|\", ");
    }
}

TEST(TakeJsonTest, EscapesAsTheCallerWants)
{
    auto angled = [](std::string& out, char c) {
        out += '<';
        out += c;
        out += '>';
    };
    EXPECT_EQ(taken(R"("a\"b\\\u0001")", angled), "a<\">b<\\><\x01>|");
}

TEST(TakeJsonTest, NothingElse)
{
    for (auto text :
         {R"()", R"(a")", R"(")", R"("a)", R"("\)", R"("\")", R"("\")",
          R"("\a")", R"("\u")", R"("\u00")", R"("\u001)", R"("\u0000")",
          R"("\u0020")", R"("\u0430")", R"("a\"b)"}) {
        EXPECT_EQ(taken(text), "-") << text;
    }
}

}  // namespace
}  // namespace chatbot
