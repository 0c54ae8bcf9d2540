#include "text/multipart.hpp"

#include <gtest/gtest.h>

#include "growth.hpp"

namespace chatbot {
namespace {

using std::string_literals::operator""s;

// The parts as "name=content;", and the fault behind them, if there is one.
std::string parts_of(std::string_view body, std::string_view boundary = "X")
{
    std::string out;
    Multipart parts(body, boundary);
    for (Multipart::Part part; parts.next(part);) {
        out += part.name.value_or("(none)") + "=" + std::string(part.content) +
               ";";
    }
    return parts.fault() ? out + parts.fault() : out;
}

std::string field(std::string_view name, std::string_view content)
{
    return "--X\r\nContent-Disposition: form-data; name=\"" +
           std::string(name) + "\"\r\n\r\n" + std::string(content) + "\r\n";
}

TEST(MultipartTest, Fields)
{
    EXPECT_EQ(parts_of("--X--"), "");
    EXPECT_EQ(parts_of("--X--\r\n"), "");
    EXPECT_EQ(parts_of(field("a", "1") + "--X--\r\n"), "a=1;");
    EXPECT_EQ(parts_of(field("a", "1") + field("", "") + field("b", "\r\n") +
                       "--X--"),
              "a=1;=;b=\r\n;");
    EXPECT_EQ(parts_of(field("a", "-X\r\n\n--X\r--X \r\n-X") + "--X--"),
              "a=-X\r\n\n--X\r--X \r\n-X;");
}

TEST(MultipartTest, AroundTheParts)
{
    EXPECT_EQ(parts_of("before\r\n\r\n" + field("a", "1") + "--X--\r\nbehind"),
              "a=1;");
    EXPECT_EQ(
        parts_of("--X \t\r\nContent-Disposition: form-data; name=a\r\n\r\n1"
                 "\r\n--X--"),
        "a=1;");
}

TEST(MultipartTest, Headers)
{
    Multipart parts(
        "--X\r\n"
        "content-type:text/plain; charset=utf-8\r\n"
        "X-Other: y\r\n"
        "CONTENT-DISPOSITION:Form-Data; filename=\"b;c\"; name=a\r\n"
        "Content-Transfer-Encoding: 8bit\r\n"
        "\r\n"
        "text\r\n"
        "--X--",
        "X");
    Multipart::Part part;
    ASSERT_TRUE(parts.next(part));
    EXPECT_EQ(part.name, "a");
    EXPECT_EQ(part.content_type, "text/plain; charset=utf-8");
    EXPECT_EQ(part.transfer_encoding, " 8bit");
    EXPECT_EQ(part.content, "text");
    EXPECT_FALSE(parts.next(part));
    EXPECT_EQ(parts.fault(), nullptr);
}

TEST(MultipartTest, Boundaries)
{
    auto body = [](std::string boundary) {
        return "--" + boundary +
               "\r\nContent-Disposition: form-data; name=a\r\n"
               "\r\n1\r\n--" +
               boundary + "--";
    };
    for (auto boundary :
         {"a b", "'()+_,-./:=?", "--", "----WebKitFormBoundaryx"}) {
        EXPECT_EQ(parts_of(body(boundary), boundary), "a=1;") << boundary;
    }
    std::string longest(70, 'x');
    EXPECT_EQ(parts_of(body(longest), longest), "a=1;");
    for (const auto& boundary : {longest + "x", ""s, "\r"s, "a\nb"s, "é"s}) {
        EXPECT_EQ(parts_of(body(boundary), boundary),
                  "it has no valid boundary");
    }
}

TEST(MultipartTest, Malformed)
{
    auto header = [](std::string_view line) {
        return parts_of("--X\r\n" + std::string(line) + "\r\n\r\n1\r\n--X--");
    };
    EXPECT_EQ(parts_of(""), "it does not contain its boundary");
    EXPECT_EQ(parts_of("query=a"), "it does not contain its boundary");
    EXPECT_EQ(parts_of("\n" + field("a", "1") + "--X"),
              "a delimiter is not followed by CRLF");
    EXPECT_EQ(parts_of("--X"), "a delimiter is not followed by CRLF");
    EXPECT_EQ(parts_of("--X\n"), "a delimiter is not followed by CRLF");
    EXPECT_EQ(parts_of("--XY\r\n"), "a delimiter is not followed by CRLF");
    EXPECT_EQ(parts_of(field("a", "1")), "the closing delimiter is missing");
    EXPECT_EQ(parts_of(field("a", "1") + field("b", "2")),
              "a=1;the closing delimiter is missing");
    EXPECT_EQ(parts_of("--X\r\n\r\n--X--"),
              "a part has no blank line behind its headers");
    EXPECT_EQ(header("Content-Disposition: form-data; name=a\r\n"), "a=\r\n1;");
    for (auto line :
         {"Content-Disposition", ": x", "A : b", " folded: x",
          "A: b\nContent-Disposition: form-data; name=a", "A: \rb"}) {
        EXPECT_EQ(header(line), "a part has an invalid header") << line;
    }
    for (auto line : {"Content-Disposition: form-data", "A: b",
                      "Content-Disposition: attachment; name=a"}) {
        EXPECT_EQ(header(line), "a part has no name") << line;
    }
}

TEST(GrowthTest, Multipart)
{
    for (auto unit : {"\r"s, "\r\n"s, "\r\n--"s, "\r\n--X"s, "\r\n\r\n"s,
                      "a: b\r\n"s, field("a", "")}) {
        auto rest = [&](auto size) { return repeated(unit, size); };
        auto headers = [&](auto size) {
            return "--X\r\n" + repeated(unit, size) + "\r\n--X--";
        };
        auto part = [&](auto size) {
            return field("a", repeated(unit, size)) + "--X--";
        };
        auto read = [](auto& body) { return parts_of(body); };
        expect_linear(rest, read);
        expect_linear(headers, read);
        expect_linear(part, read);
    }
}

}  // namespace
}  // namespace chatbot
