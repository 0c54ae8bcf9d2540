#include "text/header.hpp"

#include <gtest/gtest.h>

#include "growth.hpp"

namespace chatbot {
namespace {

TEST(HeaderWordTest, WithoutParameters)
{
    EXPECT_EQ(header_word(""), "");
    EXPECT_EQ(header_word(" Text/PLAIN\t; charset=x"), "text/plain");
    EXPECT_EQ(header_word("form-data;name=a"), "form-data");
    EXPECT_EQ(header_word(";a"), "");
}

std::string charset(std::string_view value)
{
    return header_parameter(value, "charset").value_or("(none)");
}

TEST(HeaderParameterTest, Values)
{
    EXPECT_EQ(charset("a; charset=UTF-8"), "UTF-8");
    EXPECT_EQ(charset("a;CharSet = UTF-8 ;x=y"), "UTF-8");
    EXPECT_EQ(charset("a; x=y; charset=1; charset=2"), "1");
    EXPECT_EQ(charset("a; charset="), "");
    EXPECT_EQ(charset("a; charset=--=_x=1"), "--=_x=1");
}

TEST(HeaderParameterTest, QuotedStrings)
{
    EXPECT_EQ(charset(R"(a; charset="b c;\"\\d" ; x=y)"), R"(b c;"\d)");
    EXPECT_EQ(charset(R"(a; x="; charset=1"; charset=2)"), "2");
    EXPECT_EQ(charset(R"(a; charset="")"), "");
    EXPECT_EQ(charset(R"(a; charset="b)"), "b");
    EXPECT_EQ(charset(R"(a; charset="b\)"), R"(b\)");
    EXPECT_EQ(charset(R"(a; charset=")"), "");
}

TEST(HeaderParameterTest, Absent)
{
    for (auto value : {"", "a", "charset=x", "a;", "a; charset", "a;;",
                       "a; xcharset=1", "a; charset x=1", "a; =charset"}) {
        EXPECT_EQ(charset(value), "(none)") << value;
    }
}

TEST(AcceptedWeightTest, OfATypeByItsName)
{
    EXPECT_EQ(accepted_weight("", "a/b"), 0);
    EXPECT_EQ(accepted_weight("*/*, a/c, xa/b", "a/b"), 0);
    EXPECT_EQ(accepted_weight(" A/B ", "a/b"), 1);
    EXPECT_EQ(accepted_weight("a/c;q=0.1,,a/b;x=y; Q=0.25,a/d", "a/b"), 0.25);
    EXPECT_EQ(accepted_weight("a/b;q=0.000", "a/b"), 0);
    EXPECT_EQ(accepted_weight("a/b;q=x", "a/b"), 0);
}

TEST(GrowthTest, Headers)
{
    for (auto unit : {";", "=", ";a=b", "\"", ";a=\"", ";a=\"\\", " ", ";="}) {
        auto make = [=](auto size) { return repeated(unit, size); };
        expect_linear(make, header_word);
        expect_linear(make, charset);
    }
}

}  // namespace
}  // namespace chatbot
