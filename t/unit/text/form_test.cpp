#include "text/form.hpp"

#include <gtest/gtest.h>

#include <string>

#include "growth.hpp"

namespace chatbot {
namespace {

using std::string_literals::operator""s;

TEST(DecodeFormTest, Escapes)
{
    EXPECT_EQ(decode_form(""), "");
    EXPECT_EQ(decode_form("What+is%20this%3f"), "What is this?");
    EXPECT_EQ(decode_form("%D1%87%2B%00"), "ч+\0"s);
    EXPECT_EQ(decode_form("%25%32%35"), "%25");
}

TEST(DecodeFormTest, PercentThatStartsNoEscape)
{
    for (auto text :
         {"5% of 10", "100%", "%4", "%zz", "%4z", "%-1", "% 1", "%0x", "%%"}) {
        EXPECT_EQ(decode_form(text), text);
    }
    EXPECT_EQ(decode_form("%%41"), "%A");
}

TEST(FormMemberTest, LastOneCounts)
{
    EXPECT_EQ(form_member("query=a&x=1&query=b+c", "query"), "b c");
    EXPECT_EQ(form_member("query=a&query=", "query"), "");
    EXPECT_EQ(form_member("query=a&query", "query"), "");
    EXPECT_EQ(form_member("query=a=b", "query"), "a=b");
    EXPECT_EQ(form_member("&&q%75ery=a&", "query"), "a");
    EXPECT_EQ(form_member("query=5%&x", "query"), "5%");
}

TEST(FormMemberTest, Absent)
{
    for (auto form : {"", "&", "=query", "Query=a", "queryx=a", "x=query"}) {
        EXPECT_EQ(form_member(form, "query"), std::nullopt) << form;
    }
}

TEST(EncodeControlsTest, WhatCannotStandInAHeader)
{
    EXPECT_EQ(encode_controls("5 % of \"привет\"?"), "5 %25 of \"привет\"?");
    EXPECT_EQ(encode_controls("a\r\nb\t\x7F\x1F"), "a%0D%0Ab%09%7F%1F");
    EXPECT_EQ(encode_controls("\0"s), "%00");
}

TEST(GrowthTest, Forms)
{
    for (auto unit : {"&", "=", "%", "%41", "+", "a&", "query=a&", "query&",
                      "%71uery=%&", "%71uer&"}) {
        auto make = [=](auto size) { return repeated(unit, size); };
        expect_linear(make, decode_form);
        expect_linear(make, encode_controls);
        expect_linear(make,
                      [](auto& form) { return form_member(form, "query"); });
    }
}

}  // namespace
}  // namespace chatbot
