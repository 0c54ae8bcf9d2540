#include "openai/responses.hpp"

#include <gtest/gtest.h>

#include <string>

#include "openai/stream.hpp"

namespace chatbot {
namespace {

using std::string_literals::operator""s;

constexpr std::string_view whole =
    R"({"object":"response","model":"m","created_at":7,"status":"completed",)"
    R"("output":[{"type":"reasoning","summary":[]},{"type":"message",)"
    R"("content":[{"type":"output_text","text":"a "},)"
    R"({"type":"output_text","text":"b"}]}],"usage":{"input_tokens":5,)"
    R"("output_tokens":6,"input_tokens_details":{"cached_tokens":3},)"
    R"("output_tokens_details":{"reasoning_tokens":2}}})";

std::string event(const std::string& type, const std::string& members)
{
    return "event: " + type + "\ndata: {\"type\":\"" + type + "\"," + members +
           "}\n\n";
}

std::string completed()
{
    return event("response.completed", "\"response\":" + std::string(whole));
}

// "text", or "status: reason" of a failure; then the events kept.
std::string read(std::string_view stream, std::size_t step = 1'000'000)
{
    StreamReader reader(1000, {}, true, true);
    for (std::size_t at = 0; at < stream.size(); at += step) {
        if (!reader.feed(stream.substr(at, step))) {
            break;
        }
    }
    const auto kept = reader.events();
    ReplyError error;
    const auto answer = reader.finish_api(error);
    return (answer ? answer->text
                   : std::to_string(error.status) + ": " + error.reason) +
           "\n" + kept;
}

TEST(ResponsesTest, WhatAReplySays)
{
    ReplyError error;
    auto answer = read_response(std::string(whole), error, "");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, "a b");
    EXPECT_EQ(answer->model, "m");
    EXPECT_EQ(answer->created, 7);
    EXPECT_EQ(answer->prompt_tokens, 5);
    EXPECT_EQ(answer->completion_tokens, 6);
    EXPECT_EQ(answer->cached_tokens, 3);
    EXPECT_EQ(answer->reasoning_tokens, 2);
    EXPECT_EQ(answer->reply, whole);
    EXPECT_FALSE(answer->complete) << "never cached";

    answer = read_response(R"({"output":[{"content":[{"refusal":"no"}]}]})",
                           error, "");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, "no");

    answer =
        read_response(R"({"output":[{"type":"function_call"}]})", error, "");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, R"([{"type":"function_call"}])") << "as JSON";
}

TEST(ResponsesTest, WhatIsNoReply)
{
    for (const std::string reply :
         {"", "no", "[]", "{}", R"({"output":"a"})", "\xff", "{\"output\":[",
          R"({"output":null})"}) {
        ReplyError error;
        EXPECT_FALSE(read_response(reply, error, "")) << reply;
        EXPECT_EQ(error.status, 0) << reply;
    }

    ReplyError error;
    EXPECT_FALSE(read_response(
        R"({"error":{"code":"rate_limit_exceeded","message":"m"}})", error,
        ""));
    EXPECT_EQ(error.status, 429);
}

TEST(ResponsesTest, BadBytesInAReplyAreReplaced)
{
    ReplyError error;
    auto answer = read_response(
        "{\"output\":[{\"content\":[{\"text\":\"a\xff\\ud800\\u0000\"}]}]}",
        error, "");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, "a\uFFFD\uFFFD\uFFFD");
}

TEST(ResponsesTest, AStreamCutAnywhere)
{
    const auto stream =
        event("response.created", "\"response\":{\"output\":[]}") +
        event("response.output_text.delta", R"("delta":"a b")") + completed();
    for (std::size_t step = 1; step < 50; ++step) {
        ASSERT_EQ(read(stream, step), "a b\n" + stream) << step;
    }
    for (std::size_t size = 0; size + 3 < stream.size(); size += 7) {
        EXPECT_TRUE(read(stream.substr(0, size)).starts_with("0: ")) << size;
    }
}

TEST(ResponsesTest, OneThatIsIncompleteIsAnAnswer)
{
    const auto stream =
        event("response.incomplete", "\"response\":" + std::string(whole));
    EXPECT_EQ(read(stream), "a b\n" + stream);
}

TEST(ResponsesTest, Failures)
{
    const auto before = event("response.created", "\"response\":{}");
    const auto failed =
        event("response.failed",
              R"("response":{"status":"failed","error":{"code":"server_error",)"
              R"("message":"m"}})");
    EXPECT_EQ(read(before + failed),
              "502: server_error: m\n" + before + failed);
    EXPECT_TRUE(ends_in_failure(before + failed));
    EXPECT_TRUE(ends_in_failure(failed.substr(failed.find("data: "))));
    EXPECT_FALSE(ends_in_failure(before));
    EXPECT_FALSE(ends_in_failure(failed + before));
    EXPECT_FALSE(ends_in_failure("\n\n"));
    EXPECT_FALSE(ends_in_failure(""));
    EXPECT_EQ(read(before + event("error", R"("code":"rate_limit_exceeded",)"
                                           R"("message":"m")")),
              "429: rate_limit_exceeded: m\n" + before);
    EXPECT_EQ(read("data: {\"type\":\"error\",\"message\":\"m\"}\n\n"),
              "502: error: m\n");
    EXPECT_TRUE(read("data: no JSON\n\n").starts_with("0: "));
    EXPECT_TRUE(read(before).starts_with("0: ")) << "it breaks off";
    EXPECT_TRUE(read("event: x\ndata: " + std::string(100'000, 'x') + "\n\n")
                    .starts_with("0: "))
        << "too large";
    std::string many;
    for (int i = 0; i < 5000; ++i) {
        many += event("response.output_text.delta", R"("delta":"some text")");
    }
    EXPECT_TRUE(read(many).starts_with("0: the answer is larger than"));
}

TEST(ResponsesTest, EventsThatAreMade)
{
    const auto event = completed_event("{\"a\":\n1}");
    EXPECT_EQ(event,
              "event: response.completed\ndata: "
              "{\"type\":\"response.completed\",\"sequence_number\":0,"
              "\"response\":{\"a\": 1}}\n\n");
}

}  // namespace
}  // namespace chatbot
