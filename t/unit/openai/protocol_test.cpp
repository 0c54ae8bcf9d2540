#include "openai/protocol.hpp"

#include <gtest/gtest.h>

#include <string>

#include "told.hpp"
#include "text/json.hpp"

namespace chatbot {
namespace {

TEST(RequestBodyTest, Plain)
{
    ModelSettings settings;
    EXPECT_EQ(
        request_body(settings, "gpt", {}, "a \"b\"\n?", false),
        R"({"model":"gpt","messages":[{"role":"user","content":"a \"b\"\n?"}]})");
}

TEST(RequestBodyTest, Everything)
{
    ModelSettings settings;
    settings.system_prompt = "Be brief.";
    settings.params = {{"temperature", "0.2"}, {"stop", "[\"x\"]"}};

    auto body = request_body(settings, "gpt", {}, "q", true);
    EXPECT_TRUE(parse_json(body));
    EXPECT_EQ(body,
              R"({"model":"gpt","messages":[)"
              R"({"role":"system","content":"Be brief."},)"
              R"({"role":"user","content":"q"}],)"
              R"("temperature":0.2,"stop":["x"],)"
              R"("stream":true,"stream_options":{"include_usage":true}})");
}

TEST(RequestBodyTest, ConversationBeforeTheQuestion)
{
    EXPECT_EQ(request_body({}, "m", {{"user", "a\n"}, {"assistant", "b"}}, "q",
                           false),
              R"({"model":"m","messages":[{"role":"user","content":"a\n"},)"
              R"({"role":"assistant","content":"b"},)"
              R"({"role":"user","content":"q"}]})");
}

TEST(RequestBodyTest, MembersLeftOut)
{
    ModelSettings settings;
    settings.params = {{"seed", "1"}, {"top_p", "0.5"}};
    EXPECT_EQ(request_body(settings, "m", {}, "q", true, {"seed"}),
              R"({"model":"m","messages":[{"role":"user","content":"q"}],)"
              R"("top_p":0.5,"stream":true,)"
              R"("stream_options":{"include_usage":true}})");
    EXPECT_EQ(request_body(settings, "m", {}, "q", true,
                           {"stream_options", "top_p", "seed"}),
              R"({"model":"m","messages":[{"role":"user","content":"q"}],)"
              R"("stream":true})");
}

TEST(RequestBodyTest, OnlyOpenaiHasObfuscation)
{
    ModelSettings settings;
    settings.url = "https://api.openai.com/v1";
    EXPECT_TRUE(request_body(settings, "m", {}, "q", true)
                    .ends_with(R"("stream_options":{"include_usage":true,)"
                               R"("include_obfuscation":false}})"));

    settings.url = "https://api.openai.com.example.org/v1";
    EXPECT_TRUE(request_body(settings, "m", {}, "q", true)
                    .ends_with(R"("stream_options":{"include_usage":true}})"));
}

TEST(RequestBodyTest, SafetyIdentifier)
{
    ModelSettings settings;
    const auto body = [&](const std::vector<std::string>& left_out) {
        return request_body(settings, "m", {}, "q", false, left_out, {}, "ab");
    };
    EXPECT_TRUE(body({}).ends_with(R"(}],"safety_identifier":"ab"})"));
    EXPECT_TRUE(body({"safety_identifier"}).ends_with(R"("}]})"));

    settings.params = {{"safety_identifier", "\"x\"", "other"}};
    EXPECT_TRUE(body({}).ends_with(R"(}],"safety_identifier":"ab"})"));
    settings.params = {{"safety_identifier", "\"x\""}};
    EXPECT_TRUE(body({}).ends_with(R"(}],"safety_identifier":"x"})"));
}

TEST(SafetyIdentifierTest, ForOpenaiUnlessToldOtherwise)
{
    ModelSettings settings;
    ModelServer server;
    server.api_key = "Jefe";
    const auto of = [&](const std::string& url, std::string_view client) {
        server.url = url;
        return safety_identifier(settings, server, client);
    };
    const std::string client = "what do ya want for nothing?";
    const std::string hashed =
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    for (auto url :
         {"https://api.openai.com/v1", "https://API.OpenAI.com",
          "http://api.openai.com:80/v1", "https://api.openai.com?a"}) {
        EXPECT_EQ(of(url, client), hashed) << url;
    }
    for (auto url : {"https://eu.api.openai.com/v1", "https://openai.com/v1",
                     "https://api.openai.com.example.org/v1",
                     "http://127.0.0.1/api.openai.com/", "api.openai.com"}) {
        EXPECT_EQ(of(url, client), "") << url;
    }
    EXPECT_EQ(of("https://api.openai.com/v1", ""), "");

    settings.identify_to_all = true;
    EXPECT_EQ(of("http://127.0.0.1/v1", client), hashed);
    EXPECT_EQ(of("http://127.0.0.1/v1", ""), "");

    server.api_key = "another";
    EXPECT_NE(of("http://127.0.0.1/v1", client), hashed);
}

// "-" is for what is refused.
std::string param(std::string_view text)
{
    return param_value(text).value_or("-");
}

TEST(ParamValueTest, JsonAsWritten)
{
    for (auto json : {"0.2", "true", "null", "\"quoted\"",
                      "1234567890123456789", "-18446744073709551616", "1e400",
                      "0.10", "1E+2", "[\"a\", {\"b\": null}]", "{}"}) {
        EXPECT_EQ(param(json), json);
    }
    EXPECT_EQ(param(" 1000 "), "1000");
    EXPECT_EQ(param("[\"\n\",\n\"\\\"\t\"]"), "[\"\\n\",\n\"\\\"\\t\"]");
}

TEST(ParamValueTest, NearlyJsonIsRefused)
{
    for (auto text : {"01", "1.", ".5", "1e", "+1", "--1", "1.2.3", "{", "[1,]",
                      "{a: 1}", "{'a': 1}", "\"open", "[1] 2", "\"\\x\"",
                      "\"\xFF\"", "True", "NULL"}) {
        EXPECT_EQ(param(text), "-") << text;
    }
}

TEST(ParamValueTest, WordsAreStrings)
{
    EXPECT_EQ(param("low"), R"("low")");
    EXPECT_EQ(param("say \"hi\" \xFF"), "\"say \\\"hi\\\" \uFFFD\"");
    EXPECT_EQ(param(""), R"("")");
    EXPECT_EQ(param("2nd"), R"("2nd")");
    EXPECT_EQ(param("1/2"), R"("1/2")");
    EXPECT_EQ(param("-"), R"("-")");
    EXPECT_EQ(param("none"), R"("none")");
}

class ReadReplyTest : public testing::Test {
protected:
    static std::string read(std::string_view body)
    {
        ReplyError error;
        auto answer = read_reply(body, error);
        return told(answer, error);
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
    EXPECT_EQ(read_choice(R"({"message": {"content": ["a ", "b"]}})"),
              "<a b>  0 -1+-1 complete");
    EXPECT_EQ(read_choice(R"({"message": {"content": {"text": "a"}}})"),
              "<a>  0 -1+-1 complete");
    EXPECT_EQ(read_choice(R"({"message": {"content": [
                                {"type": "reasoning", "text": "hm"},
                                {"type": "output_text", "text": "a"}]}})"),
              "<a>  0 -1+-1 complete");
}

TEST_F(ReadReplyTest, IndexOfTheChoice)
{
    EXPECT_EQ(read(R"({"choices": [
                        {"index": 1, "message": {"content": "b"}},
                        {"index": 0, "message": {"content": "a"}}]})"),
              "<a>  0 -1+-1 complete");
    EXPECT_EQ(read_choice(R"({"index": 1, "message": {"content": "a"}})"),
              "<a>  0 -1+-1 complete");
}

TEST_F(ReadReplyTest, OddNumbers)
{
    EXPECT_EQ(read(R"({"created": -5, "model": 7,
                       "usage": {"prompt_tokens": 1e10,
                                 "completion_tokens": "3"},
                       "choices": [{"message": {"content": "x"}}]})"),
              "<x>  0 -1+-1 complete");
}

TEST_F(ReadReplyTest, NoUsableText)
{
    EXPECT_EQ(read("<html>"), "0 a reply that is no JSON: <html>");
    EXPECT_EQ(read("{\"choices\": [secret"), "0 a reply that is no JSON");
    EXPECT_EQ(read(""), "0 an empty reply");
    EXPECT_EQ(read("[]"), "0 a reply without choices");
    EXPECT_EQ(read(R"({"choices": []})"),
              "0 a reply without choices, only choices");
    EXPECT_EQ(read(R"({"choices": "x"})"),
              "0 a reply without choices, only choices");
    EXPECT_EQ(read(R"({"message": "not\nnow"})"),
              "0 a reply without choices: not now");
    EXPECT_EQ(read_choice("null"),
              "0 a reply without text, finish_reason \"\"");
    EXPECT_EQ(read_choice(R"({"message": {"content": " \n"},
                              "finish_reason": "length"})"),
              "0 a reply without text, finish_reason \"length\"");
}

TEST_F(ReadReplyTest, NaturalEnds)
{
    const auto ends = [](const std::string& reason) {
        return read_choice(
                   R"({"message": {"content": "x"}, "finish_reason": )" +
                   reason + "}") == "<x>  0 -1+-1 complete";
    };
    for (auto reason : {R"("stop")", R"("STOP")", R"("eos")", R"("eos_token")",
                        R"("end_turn")", R"("stop_sequence")", R"("COMPLETE")",
                        R"("eosFound")", R"("endoftext")",
                        R"("FINISH_REASON_STOP")", R"("")", "null"}) {
        EXPECT_TRUE(ends(reason)) << reason;
    }
    for (auto reason : {R"("length")", R"("MAX_TOKENS")", R"("content_filter")",
                        R"("tool_calls")", R"("abort")", R"("unstop")"}) {
        EXPECT_FALSE(ends(reason)) << reason;
    }
    EXPECT_TRUE(is_known_end("MAX_TOKENS"));
    EXPECT_TRUE(is_known_end("Stop"));
    EXPECT_FALSE(is_known_end("abort"));
}

TEST_F(ReadReplyTest, ErrorInside)
{
    EXPECT_EQ(read(R"({"error": {"message": "Slow down", "code": 429}})"),
              "429 Slow down");
    EXPECT_EQ(read(R"({"error": {"message": "no\nluck", "code": "400"}})"),
              "400 no luck");
    EXPECT_EQ(read_choice(R"({"error": {"code": 502, "message": "gone"},
                              "finish_reason": "error",
                              "message": {"content": "half"}})"),
              "502 gone");
    EXPECT_EQ(read_choice(R"({"finish_reason": "error",
                              "message": {"content": "half"}})"),
              "502 finish_reason \"error\"");
    EXPECT_EQ(read_choice(R"({"error": null, "finish_reason": "stop",
                              "message": {"content": "x"}})"),
              "<x>  0 -1+-1 complete");
    EXPECT_EQ(read(R"({"error": {}, "choices": [{"message":
                       {"content": "x"}}]})"),
              "<x>  0 -1+-1 complete");
}

TEST_F(ReadReplyTest, Tokens)
{
    const auto tokens = [](const std::string& usage) {
        ReplyError error;
        auto answer = read_reply(R"({"choices": [{"message": {"content": "x"}}],
                                     "usage": )" +
                                     usage + "}",
                                 error);
        return std::to_string(answer->cached_tokens) + " " +
               std::to_string(answer->reasoning_tokens);
    };
    EXPECT_EQ(tokens("{}"), "-1 -1");
    EXPECT_EQ(tokens("null"), "-1 -1");
    EXPECT_EQ(tokens(R"({"prompt_tokens_details": {"cached_tokens": 7},
                         "completion_tokens_details": {"reasoning_tokens": 5}})"),
              "7 5");
    EXPECT_EQ(tokens(R"({"prompt_tokens_details": null,
                         "prompt_cache_hit_tokens": 9})"),
              "9 -1");
}

TEST(FormTest, ByTheFirstByteThenByTheType)
{
    const auto form = [](std::string_view start, const char* type = nullptr) {
        switch (form_of(start, type)) {
            case ReplyForm::whole:
                return "whole";
            case ReplyForm::stream:
                return "stream";
            case ReplyForm::unknown:
                return "unknown";
        }
        return "";
    };
    for (auto type : {"text/event-stream", "application/json", "text/plain"}) {
        EXPECT_STREQ(form("{\"id\"", type), "whole");
        EXPECT_STREQ(form("data: {", type), "stream");
        EXPECT_STREQ(form("\n\n: ping", type), "stream");
        EXPECT_STREQ(form("event: error", type), "stream");
        EXPECT_STREQ(form("\xEF\xBB\xBF [", type), "whole");
        EXPECT_STREQ(form(" \r\n", type), "unknown");
        EXPECT_STREQ(form("\xEF\xBB", type), "unknown");
        EXPECT_STREQ(form("dat", type), "unknown");
        EXPECT_STREQ(form("", type), "unknown");
    }
    EXPECT_STREQ(form("<html>", "text/html"), "whole");
    EXPECT_STREQ(form("datum"), "whole");
    EXPECT_STREQ(form("x: y", "Text/Event-Stream; charset=utf-8"), "stream");
}

TEST_F(ReadReplyTest, NulIsReplaced)
{
    EXPECT_EQ(read_choice(R"({"message": {"content": "a\u0000b"}})"),
              "<a\uFFFDb>  0 -1+-1 complete");
}

}  // namespace
}  // namespace chatbot
