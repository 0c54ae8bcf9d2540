#include "core/query.hpp"

#include <gtest/gtest.h>

#include <string>

#include "growth.hpp"

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
    auto refused = [](std::string_view body) {
        auto found = read("application/json", body);
        std::string_view begin = "400 The JSON body is refused: ";
        EXPECT_TRUE(found.starts_with(begin)) << found;
        return found.substr(begin.size());
    };
    EXPECT_EQ(refused("{"), "an unexpected end at byte 1.");
    EXPECT_EQ(refused("query=a"), "an unexpected character at byte 0.");
    EXPECT_EQ(refused("{\"query\":\"\xFF\"}"), "ill-formed UTF-8 at byte 10.");
    EXPECT_EQ(refused("{\"query\":\"a\\u0000\"}"),
              "the character U+0000 at byte 11.");
    EXPECT_EQ(refused("{\"query\":\"\\ud83d\"}"),
              "half of a surrogate pair at byte 10.");
    EXPECT_EQ(refused("{\"a\":01}"), "an invalid number at byte 6.");
    EXPECT_EQ(refused("[" + repeated("0,", 20'000) + "0]"),
              "too many values at byte 7999.");
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

TEST(QueryFromBodyTest, ByteOrderMark)
{
    EXPECT_EQ(read("application/json", "\uFEFF{\"query\":\"a\"}"), "<a>");
    EXPECT_EQ(read("application/json", "{\"query\":\"\uFEFFa\"}"), "<\uFEFFa>");
}

// A part of a multipart/form-data body.
std::string part(std::string_view name, std::string_view content,
                 std::string_view headers = "")
{
    return "--X\r\nContent-Disposition: form-data; name=" + std::string(name) +
           "\r\n" + std::string(headers) + "\r\n" + std::string(content) +
           "\r\n";
}

std::string read_parts(const std::string& parts)
{
    return read("multipart/form-data; boundary=X", parts + "--X--");
}

TEST(QueryFromBodyTest, Multipart)
{
    EXPECT_EQ(read_parts(part("x", "1") + part("query", "a+b%20")), "<a+b%20>");
    EXPECT_EQ(read_parts(part("query", "a") + part("query", "b")), "<b>");
    EXPECT_EQ(read_parts(part("query", "")), "<>");
    EXPECT_EQ(read_parts(part("Query", "a")), "<old>");
    EXPECT_EQ(read_parts(""), "<old>");
    EXPECT_EQ(read("multipart/form-data", part("query", "a")),
              "400 The body is not valid multipart/form-data: it has no valid "
              "boundary.");
    EXPECT_EQ(read("multipart/form-data; boundary=\"X\"", part("query", "a")),
              "400 The body is not valid multipart/form-data: the closing "
              "delimiter is missing.");
}

TEST(QueryFromBodyTest, PartsThatAreWrittenOtherwise)
{
    auto with = [](std::string_view headers) {
        return read_parts(part("query", "a", headers)).substr(0, 4);
    };
    EXPECT_EQ(with("Content-Type: text/plain; charset=UTF-8\r\n"), "<a>");
    EXPECT_EQ(with("Content-Transfer-Encoding: 8bit\r\n"), "<a>");
    EXPECT_EQ(with("Content-Transfer-Encoding: BINARY\r\n"), "<a>");
    EXPECT_EQ(with("Content-Transfer-Encoding: base64\r\n"), "415 ");
    EXPECT_EQ(with("Content-Type: text/plain; charset=koi8-r\r\n"), "415 ");
    EXPECT_EQ(read_parts(part("x", "1", "Content-Type: a/b;charset=x\r\n") +
                         part("query", "a")),
              "<a>");
}

TEST(QueryFromBodyTest, OtherTypes)
{
    for (auto type : {"", "text/plain", "multipart/mixed; boundary=x",
                      "application/jsonx", "\xFF"}) {
        EXPECT_EQ(read(type, "query=a"),
                  "415 The body must be application/json, "
                  "application/x-www-form-urlencoded or multipart/form-data.");
        EXPECT_EQ(read(type, ""), "<old>");
    }
}

TEST(QueryFromBodyTest, OtherCharsets)
{
    for (std::string type :
         {"application/json", "application/x-www-form-urlencoded",
          "multipart/form-data; boundary=X"}) {
        EXPECT_EQ(read(type + "; charset=utf-16", "{}"),
                  "415 The charset must be UTF-8.");
    }
    EXPECT_EQ(read("application/json; charset=UTF8", "{}"), "<old>");
}

std::string checked_body(std::size_t size, std::string_view encoding)
{
    auto problem = check_body(size, encoding, 100);
    return std::to_string(problem.status) + " " + problem.detail;
}

TEST(CheckBodyTest, SizeAndEncoding)
{
    EXPECT_EQ(max_body_size(100), 16984U);
    EXPECT_EQ(checked_body(0, ""), "0 ");
    EXPECT_EQ(checked_body(16984, "Identity"), "0 ");
    EXPECT_EQ(checked_body(16985, "gzip"),
              "413 The body is longer than 16984 bytes.");
    for (auto encoding : {"gzip", "identity, gzip", "x"}) {
        EXPECT_EQ(checked_body(1, encoding),
                  "415 A body with a Content-Encoding is not supported.");
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
