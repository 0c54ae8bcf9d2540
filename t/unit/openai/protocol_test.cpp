#include "openai/protocol.hpp"

#include <gtest/gtest.h>

#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

// An answer, or why there is none, as a line.
std::string told(const std::optional<Answer>& answer, const Problem& problem)
{
    if (!answer) {
        return std::to_string(problem.status) + " " + problem.reason;
    }
    return "<" + answer->text + "> " + answer->model + " " +
           std::to_string(answer->created) + " " +
           std::to_string(answer->prompt_tokens) + "+" +
           std::to_string(answer->completion_tokens) +
           (answer->complete ? " complete" : "");
}

TEST(RequestBodyTest, Plain)
{
    ModelSettings settings;
    EXPECT_EQ(
        request_body(settings, "gpt", "a \"b\"\n?", false),
        R"({"model":"gpt","messages":[{"role":"user","content":"a \"b\"\n?"}]})");
}

TEST(RequestBodyTest, Everything)
{
    ModelSettings settings;
    settings.system_prompt = "Be brief.";
    settings.params = {{"temperature", "0.2"}, {"stop", "[\"x\"]"}};

    auto body = request_body(settings, "gpt", "q", true);
    EXPECT_TRUE(parse_json(body));
    EXPECT_EQ(body,
              R"({"model":"gpt","messages":[)"
              R"({"role":"system","content":"Be brief."},)"
              R"({"role":"user","content":"q"}],)"
              R"("temperature":0.2,"stop":["x"],)"
              R"("stream":true,"stream_options":{"include_usage":true}})");
}

TEST(ParamValueTest, JsonOrString)
{
    EXPECT_EQ(param_value("0.2"), "0.2");
    EXPECT_EQ(param_value(" 1000 "), "1000");
    EXPECT_EQ(param_value("true"), "true");
    EXPECT_EQ(param_value("[\"a\", {\"b\": null}]"), R"(["a",{"b":null}])");
    EXPECT_EQ(param_value("\"quoted\""), R"("quoted")");
    EXPECT_EQ(param_value("low"), R"("low")");
    EXPECT_EQ(param_value("say \"hi\" \xFF"), "\"say \\\"hi\\\" \uFFFD\"");
    EXPECT_EQ(param_value(""), R"("")");
    EXPECT_EQ(param_value("01"), "1");
}

class ReadReplyTest : public testing::Test {
protected:
    static std::string read(std::string_view body)
    {
        Problem problem;
        auto answer = read_reply(body, problem);
        return told(answer, problem);
    }

    static std::string read_choice(const std::string& choice)
    {
        return read("{\"choices\":[" + choice + "]}");
    }
};

TEST_F(ReadReplyTest, Answer)
{
    EXPECT_EQ(read(R"({"model": "gpt-1", "created": 1700000000,
                       "usage": {"prompt_tokens": 9, "completion_tokens": 3},
                       "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "refusal": null,
                                     "content": "\n Paris. "}}]})"),
              "<Paris.> gpt-1 1700000000 9+3 complete");
}

TEST_F(ReadReplyTest, NotComplete)
{
    EXPECT_EQ(read_choice(R"({"message": {"content": "cut"},
                              "finish_reason": "length"})"),
              "<cut>  0 -1+-1");
    EXPECT_EQ(read_choice(R"({"message": {"content": "x"}})"), "<x>  0 -1+-1");
    EXPECT_EQ(read_choice(R"({"message": {"content": null, "refusal": "No."},
                              "finish_reason": "stop"})"),
              "<No.>  0 -1+-1");
    EXPECT_EQ(read_choice(R"({"message": {"content": "A", "refusal": "No."},
                              "finish_reason": "stop"})"),
              "<A>  0 -1+-1");
}

TEST_F(ReadReplyTest, ContentInParts)
{
    EXPECT_EQ(read_choice(R"({"message": {"content": [
                                {"type": "text", "text": "a "},
                                {"type": "image"}, 7,
                                {"type": "text", "text": "b"}]},
                              "finish_reason": "stop"})"),
              "<a b>  0 -1+-1 complete");
}

TEST_F(ReadReplyTest, OddNumbers)
{
    EXPECT_EQ(read(R"({"created": -5, "model": 7,
                       "usage": {"prompt_tokens": 1e10,
                                 "completion_tokens": "3"},
                       "choices": [{"message": {"content": "x"}}]})"),
              "<x>  0 -1+-1");
}

TEST_F(ReadReplyTest, NoUsableText)
{
    EXPECT_EQ(read("<html>"), "502 a reply that is no JSON");
    EXPECT_EQ(read("[]"), "502 a reply without choices");
    EXPECT_EQ(read(R"({"choices": []})"), "502 a reply without choices");
    EXPECT_EQ(read(R"({"choices": "x"})"), "502 a reply without choices");
    EXPECT_EQ(read(R"({"error": {"message": "no\nluck", "code": 400}})"),
              "502 a reply without choices: no luck");
    EXPECT_EQ(read_choice("null"),
              "502 a reply without text, finish_reason \"\"");
    EXPECT_EQ(read_choice(R"({"message": {"content": " \n"},
                              "finish_reason": "length"})"),
              "502 a reply without text, finish_reason \"length\"");
}

TEST_F(ReadReplyTest, NulIsReplaced)
{
    EXPECT_EQ(read_choice(R"({"message": {"content": "a\u0000b"}})"),
              "<a\uFFFDb>  0 -1+-1");
}

class ReadErrorTest : public testing::Test {
protected:
    static std::string read(int status, std::string_view body)
    {
        auto error = read_error(status, body);
        return std::string(error.model_missing ? "model " : "") +
               (error.money ? "money " : "") + "<" + error.reason + ">";
    }

    static std::string error(const std::string& message,
                             const std::string& code)
    {
        return R"({"error": {"type": "t", "message": ")" + message +
               R"(", "code": ")" + code + R"("}})";
    }
};

TEST_F(ReadErrorTest, ModelMissing)
{
    EXPECT_EQ(read(404, error("The model `x` does not exist or you do not "
                              "have access to it.",
                              "model_not_found")),
              "model <model_not_found: The model `x` does not exist or you do "
              "not have access to it.>");
    EXPECT_EQ(read(400, error("", "model_deprecated")),
              "model <model_deprecated>");
    EXPECT_EQ(read(404, R"({"error": "Model 'x' not found, try pulling"})"),
              "model <Model 'x' not found, try pulling>");
    EXPECT_EQ(read(404, R"({"message": "The model does not exist."})"),
              "model <The model does not exist.>");
    EXPECT_EQ(read(410, error("That model is deprecated.", "gone")),
              "model <gone: That model is deprecated.>");

    EXPECT_EQ(read(500, error("", "model_not_found")), "<model_not_found>");
    EXPECT_EQ(read(404, error("no such path", "")), "<t: no such path>");
    EXPECT_EQ(read(400, R"({"error": "model not found"})"),
              "<model not found>");
}

TEST_F(ReadErrorTest, Money)
{
    for (std::string code :
         {"insufficient_quota", "credit_balance_exhausted",
          "billing_hard_limit_reached", "billing_not_active",
          "access_terminated", "project_spend_limit_exceeded",
          "organization_spend_limit_exceeded",
          "organization_usage_limit_exceeded"}) {
        EXPECT_EQ(read(429, error("", code)), "money <" + code + ">");
    }
    EXPECT_EQ(read(429, R"({"error": {"type": "insufficient_quota"}})"),
              "money <insufficient_quota>");

    EXPECT_EQ(read(429, error("Slow down", "rate_limit_exceeded")),
              "<rate_limit_exceeded: Slow down>");
}

TEST_F(ReadErrorTest, NoKeyInTheReason)
{
    EXPECT_EQ(read(401, error("Incorrect API key provided: sk-pr_o*9-x. Find",
                              "invalid_api_key")),
              "<invalid_api_key: Incorrect API key provided: ***. Find>");
    EXPECT_EQ(read(401, error("provided: mysecret***9999", "c")),
              "<c: provided: ***>");
    EXPECT_EQ(read(401, "risk-free 'sk-abc'"), "<risk-free '***'>");
}

TEST_F(ReadErrorTest, NoJson)
{
    EXPECT_EQ(read(502, ""), "<>");
    EXPECT_EQ(read(502, "{}"), "<{}>");
    EXPECT_EQ(read(502, "<h1>Bad\r\ngateway\xFF</h1>\n"),
              "<<h1>Bad gateway\uFFFD</h1>>");
}

TEST_F(ReadErrorTest, ReasonIsShort)
{
    std::string long_text = "ab";
    while (long_text.size() < 3000) {
        long_text += "é";
    }
    auto reason = read_error(500, long_text).reason;
    EXPECT_EQ(reason, long_text.substr(0, 500));

    reason = read_error(500, "x" + long_text).reason;
    EXPECT_EQ(reason, "x" + long_text.substr(0, 498));
}

// A transcript of a stream: the pieces, each in brackets, and its end.
class StreamReaderTest : public testing::Test {
protected:
    void feed(std::string_view bytes)
    {
        const auto before = reader_.text().size();
        bool goes_on = reader_.feed(bytes);
        if (reader_.text().size() > before) {
            log_ += "[" + reader_.text().substr(before) + "]";
        }
        if (!goes_on) {
            log_ += "!";
        }
    }

    void feed_content(const std::string& content) { feed(event(content)); }

    std::string finish()
    {
        Problem problem;
        auto answer = reader_.finish(problem);
        return log_ + " " + told(answer, problem);
    }

    // `content` as within a JSON string.
    static std::string event(const std::string& content)
    {
        return R"(data: {"model":"m","created":7,"choices":[{"index":0,)"
               R"("delta":{"content":")" +
               content + "\"}}]}\n\n";
    }

    static constexpr std::string_view stop =
        R"(data: {"choices":[{"index":0,"delta":{},)"
        R"("finish_reason":"stop"}]})"
        "\n\n";
    static constexpr std::string_view usage =
        R"(data: {"choices":[],"usage":)"
        R"({"prompt_tokens":9,"completion_tokens":3}})"
        "\n\n";
    static constexpr std::string_view done = "data: [DONE]\n\n";

    StreamReader reader_{100};
    std::string log_;
};

TEST_F(StreamReaderTest, Pieces)
{
    feed_content("");
    feed_content("Pa");
    feed_content("ris");
    feed(stop);
    feed(usage);
    feed(done);
    EXPECT_EQ(finish(), "[Pa][ris] <Paris> m 7 9+3 complete");
}

TEST_F(StreamReaderTest, CutAnywhere)
{
    auto stream = ": hello\r\n\r\n" + event("é \\ud83d\\ude00") + "event: x\r" +
                  event("b") + std::string(stop) + std::string(usage) +
                  std::string(done);
    for (std::size_t size = 1; size <= stream.size(); ++size) {
        StreamReader reader(100);
        for (std::size_t at = 0; at < stream.size(); at += size) {
            EXPECT_TRUE(reader.feed(stream.substr(at, size)));
        }

        Problem problem;
        EXPECT_EQ(reader.text(), "é 😀b");
        EXPECT_EQ(told(reader.finish(problem), problem),
                  "<é 😀b> m 7 9+3 complete");
    }
}

TEST_F(StreamReaderTest, LineEnds)
{
    for (std::string end : {"\n", "\r\n", "\r"}) {
        StreamReader reader(100);
        for (auto line : {":", "data:{\"choices\":", "id: 1",
                          "data: [{\"delta\":{\"content\":\"a\"}}]}", "",
                          "data:[DONE]", ""}) {
            for (char c : line + end) {
                EXPECT_TRUE(reader.feed({&c, 1}));
            }
        }

        Problem problem;
        EXPECT_EQ(reader.text(), "a");
        EXPECT_EQ(told(reader.finish(problem), problem), "<a>  0 -1+-1");
    }
}

TEST_F(StreamReaderTest, WhiteSpaceIsHeldBack)
{
    feed_content("\\n ");
    feed_content(" \\u3000a b\\n");
    feed_content("\\n");
    feed_content(" c ");
    feed_content(" ");
    feed(stop);
    EXPECT_EQ(finish(), "[a b][\n\n c] <a b\n\n c> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, Refusal)
{
    feed(R"(data: {"choices":[{"delta":{"content":null,"refusal":"No"}}]})"
         "\n\n");
    feed(R"(data: {"choices":[{"delta":{"refusal":"."}}]})"
         "\n\n");
    feed(stop);
    EXPECT_EQ(finish(), "[No][.] <No.>  0 -1+-1");
}

TEST_F(StreamReaderTest, OtherChoicesAreIgnored)
{
    feed_content("a");
    feed(R"(data: {"choices":[{"index":1,"delta":{"content":"z"},)"
         R"("finish_reason":"length"}]})"
         "\n\n");
    feed(stop);
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, NothingCountsAfterDone)
{
    feed_content("a");
    feed(std::string(stop) + std::string(done) + event("b"));
    feed("data: garbage\n\n");
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, EndsEarly)
{
    feed_content("half an");
    feed("data: {\"choices\"");
    EXPECT_EQ(finish(), "[half an] 502 the stream ended before the answer did");
}

TEST_F(StreamReaderTest, Empty)
{
    feed(stop);
    feed(done);
    EXPECT_EQ(finish(), " 502 a reply without text, finish_reason \"stop\"");
}

TEST_F(StreamReaderTest, ErrorEvent)
{
    feed_content("a");
    feed(R"(data: {"error":{"message":"Overloaded sk-1","type":"server"}})"
         "\n\n");
    feed(stop);
    EXPECT_EQ(finish(),
              "[a]!! 502 an error in the stream: server: Overloaded ***");
}

TEST_F(StreamReaderTest, Garbage)
{
    feed("data: {\"choices\n\n");
    EXPECT_EQ(finish(), "! 502 an event of the stream is no JSON");
}

TEST_F(StreamReaderTest, TextIsBounded)
{
    feed_content(std::string(99, 'a'));
    feed_content("b");
    feed_content("c");
    EXPECT_EQ(finish(), "[" + std::string(99, 'a') +
                            "][b][c]! 502 the answer is too large");
}

TEST_F(StreamReaderTest, HeldWhiteSpaceIsBounded)
{
    feed_content("a");
    feed_content(std::string(60, ' '));
    feed_content(std::string(60, ' '));
    EXPECT_EQ(finish(), "[a]! 502 the answer is too large");
}

TEST_F(StreamReaderTest, EventsAreBounded)
{
    feed(std::string(70'000, 'x'));
    EXPECT_EQ(finish(), "! 502 an event of the stream is too large");

    StreamReader reader(100);
    int lines = 0;
    while (reader.feed("data: x\n")) {
        ASSERT_LT(++lines, 70'000);
    }
}

}  // namespace
}  // namespace chatbot
