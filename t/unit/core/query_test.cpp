#include "core/query.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

using std::string_literals::operator""s;

// What comes out of a body, as a line.
std::string read(std::string_view type, std::string_view body)
{
    std::optional<std::string> query = "old";
    auto problem = query_from_body(type, body, query);
    if (problem) {
        return std::to_string(problem.status) + " " + problem.detail;
    }
    return "<" + query.value_or("(none)") + ">";
}

TEST(QueryFromBodyTest, Json)
{
    EXPECT_EQ(read("application/json", R"({"query": "a\n"})"), "<a\n>");
    EXPECT_EQ(read("Application/JSON ; charset=utf-8", R"({"query": ""})"),
              "<>");
    EXPECT_EQ(read("application/x.y+json", R"({"query":"1","query":"2"})"),
              "<2>");
    EXPECT_EQ(read("application/json", "{}"), "<old>");
    EXPECT_EQ(read("application/json", R"({"query": null})"), "<old>");
}

TEST(QueryFromBodyTest, BadJson)
{
    for (auto body : {"{"s, " "s, "query=a"s, "{\"query\":\"\xFF\"}"s,
                      "{\"query\":\"a\\u0000\"}"s}) {
        EXPECT_EQ(read("application/json", body),
                  "400 The body is not valid JSON, or contains U+0000.");
    }
    EXPECT_EQ(read("application/json", R"("query")"),
              "400 The body must be a JSON object.");
    EXPECT_EQ(read("application/json", R"({"query": ["a"]})"),
              "422 The \"query\" member must be a string.");
}

TEST(QueryFromBodyTest, Form)
{
    auto type = "application/x-www-form-urlencoded;charset=UTF-8";
    EXPECT_EQ(read(type, "x=1&query=a+b"), "<a b>");
    EXPECT_EQ(read(type, "x=1"), "<old>");
}

TEST(QueryFromBodyTest, OtherTypes)
{
    for (auto type : {"", "text/plain", "multipart/form-data; boundary=x",
                      "application/jsonx", "\xFF"}) {
        EXPECT_EQ(read(type, "query=a"),
                  "415 The body must be application/json or "
                  "application/x-www-form-urlencoded.");
        EXPECT_EQ(read(type, ""), "<old>");
    }
}

std::string checked(const std::optional<std::string>& query)
{
    auto problem = check_query(query, 10);
    return std::to_string(problem.status) + " " + problem.detail;
}

TEST(CheckQueryTest, Good)
{
    EXPECT_EQ(checked("a"), "0 ");
    EXPECT_EQ(checked(" привет"s.substr(0, 9)), "0 ");
    EXPECT_EQ(checked("0123456789"), "0 ");
}

TEST(CheckQueryTest, Bad)
{
    EXPECT_EQ(checked(std::nullopt), "422 The \"query\" parameter is missing.");
    EXPECT_EQ(checked(""), "422 The \"query\" parameter is blank.");
    EXPECT_EQ(checked(" \t\u3000"), "422 The \"query\" parameter is blank.");
    EXPECT_EQ(checked("\xFF"),
              "400 The \"query\" parameter is not valid UTF-8.");
    EXPECT_EQ(checked("a\0"s), "400 The \"query\" parameter contains U+0000.");
    EXPECT_EQ(checked("01234567890"),
              "413 The \"query\" parameter is longer than 10 bytes.");
}

}  // namespace
}  // namespace chatbot
