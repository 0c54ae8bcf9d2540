#include "core/query.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

#include "growth.hpp"

namespace chatbot {
namespace {

using std::string_literals::operator""s;

// What comes out of a body, as a line.
std::string read(std::string_view type, std::string_view body,
                 std::optional<std::string> argument = "old")
{
    Question question;
    question.text = std::move(argument);
    auto problem = question_from_body(type, body, question);
    if (problem) {
        return std::to_string(problem.status) + " " + problem.detail;
    }

    std::string line;
    for (const auto& message : question.history) {
        line += message.role + ":" + message.content + " ";
    }
    return line + "<" + question.text.value_or("(none)") + ">" +
           (question.stream ? " stream=" + *question.stream : "");
}

TEST(QuestionFromBodyTest, Json)
{
    EXPECT_EQ(read("application/json", R"({"query": "a\n"})"), "<a\n>");
    EXPECT_EQ(read("Application/JSON ; charset=utf-8", R"({"query": ""})"),
              "<>");
    EXPECT_EQ(read("application/x.y+json", R"({"query":"1","query":"2"})"),
              "<2>");
    EXPECT_EQ(read("application/json", "{}"), "<old>");
    EXPECT_EQ(read("application/json", R"({"query": null})"), "<old>");
}

TEST(QuestionFromBodyTest, BadJson)
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

TEST(QuestionFromBodyTest, Form)
{
    auto type = "application/x-www-form-urlencoded;charset=UTF-8";
    EXPECT_EQ(read(type, "x=1&query=a+b"), "<a b>");
    EXPECT_EQ(read(type, "x=1"), "<old>");
    EXPECT_EQ(read(type, "x=1", {}), "<(none)>");
}

// curl's -d sends a form unless told otherwise.
TEST(QuestionFromBodyTest, JsonSentAsForm)
{
    auto type = "application/x-www-form-urlencoded";
    EXPECT_EQ(read(type, R"({"query": "a"})", {}),
              "422 The body looks like JSON; send it with Content-Type: "
              "application/json.");
    EXPECT_EQ(read(type, R"({"query": "a"})"), "<old>");
    EXPECT_EQ(read(type, "{=1&query=a", {}), "<a>");
}

TEST(QuestionFromBodyTest, ByteOrderMark)
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

TEST(QuestionFromBodyTest, Multipart)
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

TEST(QuestionFromBodyTest, PartsThatAreWrittenOtherwise)
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

TEST(QuestionFromBodyTest, OtherTypes)
{
    for (auto type : {"", "text/plain", "multipart/mixed; boundary=x",
                      "application/jsonx", "\xFF"}) {
        EXPECT_EQ(read(type, "query=a"),
                  "415 The body must be application/json, "
                  "application/x-www-form-urlencoded or multipart/form-data.");
        EXPECT_EQ(read(type, ""), "<old>");
    }
}

TEST(QuestionFromBodyTest, OtherCharsets)
{
    for (std::string type :
         {"application/json", "application/x-www-form-urlencoded",
          "multipart/form-data; boundary=X"}) {
        EXPECT_EQ(read(type + "; charset=utf-16", "{}"),
                  "415 The charset must be UTF-8.");
    }
    EXPECT_EQ(read("application/json; charset=UTF8", "{}"), "<old>");
}

TEST(QuestionFromBodyTest, Conversation)
{
    auto read_json = [](std::string_view json) {
        return read("application/json", json);
    };
    EXPECT_EQ(read_json(R"({"messages": [{"role": "user", "content": "a"},
                  {"role": "assistant", "content": "b", "name": "x"},
                  {"role": "user", "content": "c"}]})"),
              "user:a assistant:b <c>");
    EXPECT_EQ(read_json(R"({"messages": [{"role":"user","content":"a"}],
                            "query": null})"),
              "<a>");
    EXPECT_EQ(read_json(R"({"messages": null, "query": "q"})"), "<q>");
    for (
        auto messages :
        {R"(1)", R"([])", R"(["a"])", R"([{"role":"user"}])",
         R"([{"role":"system","content":"a"},{"role":"user","content":"b"}])",
         R"([{"role":"user","content":["a"]}])",
         R"([{"role":"user","content":"a"},{"role":"assistant","content":"b"}])"}) {
        auto json = std::string("{\"messages\":") + messages + "}";
        EXPECT_EQ(read_json(json).substr(0, 4), "422 ") << json;
    }
    EXPECT_EQ(read_json(R"({"query":"q","messages":[]})"),
              "422 Send either \"query\" or \"messages\", not both.");
}

TEST(QuestionFromBodyTest, Stream)
{
    auto stream = [](std::string_view value) {
        return read("application/json",
                    "{\"stream\":" + std::string(value) + "}");
    };
    EXPECT_EQ(stream("true"), "<old> stream=1");
    EXPECT_EQ(stream("false"), "<old> stream=0");
    EXPECT_EQ(stream("1"), "<old> stream=1");
    EXPECT_EQ(stream("\"text\""), "<old> stream=text");
    EXPECT_EQ(stream("null"), "<old>");
    EXPECT_EQ(stream("[]").substr(0, 4), "422 ");
    EXPECT_EQ(read("application/x-www-form-urlencoded", "stream=1&query=a"),
              "<a> stream=1");
    EXPECT_EQ(read_parts(part("stream", "text") + part("query", "a")),
              "<a> stream=text");
}

std::string form(std::optional<std::string> stream, std::string_view accept)
{
    Question question;
    question.stream = std::move(stream);
    AnswerForm form = AnswerForm::json;
    if (read_form(question, accept, form)) {
        return "422";
    }
    return form == AnswerForm::json     ? "json"
           : form == AnswerForm::events ? "events"
                                        : "text";
}

TEST(ReadFormTest, ParameterThenAccept)
{
    EXPECT_EQ(form({}, ""), "json");
    EXPECT_EQ(form({}, "text/html, Text/Event-Stream;q=0.9"), "events");
    EXPECT_EQ(form({}, "application/json, text/event-stream"), "events");
    EXPECT_EQ(form({}, "application/json, text/event-stream;q=0.5"), "json");
    EXPECT_EQ(form({}, "text/event-stream; q=0"), "json");
    EXPECT_EQ(form("0", "text/event-stream"), "json");
    EXPECT_EQ(form("1", ""), "events");
    EXPECT_EQ(form("true", "application/json"), "events");
    EXPECT_EQ(form("text", "text/event-stream"), "text");
    EXPECT_EQ(form("yes", ""), "422");
}

TEST(CheckQuestionTest, History)
{
    auto checked = [](std::size_t messages, std::size_t size) {
        Question question;
        question.text = "a";
        question.history.assign(messages, {"user", std::string(size, 'x')});
        return check_question(question, {.messages = 2, .history_size = 10})
            .detail;
    };
    EXPECT_EQ(checked(2, 5), "");
    EXPECT_EQ(checked(3, 1), "There are more than 2 messages before the last.");
    EXPECT_EQ(checked(2, 6),
              "The messages before the last are longer than 10 bytes.");
}

std::string checked_body(std::size_t size, std::string_view encoding)
{
    auto problem = check_body(size, encoding, 100);
    return std::to_string(problem.status) + " " + problem.detail;
}

TEST(CheckBodyTest, SizeAndEncoding)
{
    EXPECT_EQ((QuestionLimits{.text_size = 100, .messages = 0}.body_size()),
              16984U);
    EXPECT_EQ(checked_body(0, ""), "0 ");
    EXPECT_EQ(checked_body(100, "Identity"), "0 ");
    EXPECT_EQ(checked_body(101, "gzip"),
              "413 The body is longer than 100 bytes.");
    for (auto encoding : {"gzip", "identity, gzip", "x"}) {
        EXPECT_EQ(checked_body(1, encoding),
                  "415 A body with a Content-Encoding is not supported.");
    }
}

std::string checked(const std::optional<std::string>& query)
{
    Question question;
    question.text = query;
    auto problem = check_question(question, {.text_size = 10});
    return std::to_string(problem.status) + " " + problem.detail;
}

TEST(CheckQuestionTest, Good)
{
    EXPECT_EQ(checked("a"), "0 ");
    EXPECT_EQ(checked(" привет"s.substr(0, 9)), "0 ");
    EXPECT_EQ(checked("0123456789"), "0 ");
}

TEST(CheckQuestionTest, Bad)
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
