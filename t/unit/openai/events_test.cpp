#include "openai/events.hpp"

#include <gtest/gtest.h>

#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

const std::string reply =
    R"({"id":"c1","object":"chat.completion","created":7,"model":"m",)"
    R"("choices":[{"index":0,"message":{"role":"assistant","content":"a b"},)"
    R"("logprobs":{"content":[{"token":"a","logprob":-0.1}]},)"
    R"("finish_reason":"stop"},)"
    R"({"index":1,"message":{"role":"assistant","content":null,)"
    R"("tool_calls":[{"id":"t","type":"function","function":)"
    R"({"name":"f","arguments":"{\"x\":1}"}}]},"logprobs":null,)"
    R"("finish_reason":"tool_calls"}],)"
    R"("usage":{"prompt_tokens":1,"completion_tokens":2},)"
    R"("service_tier":"default"})";

bool equal(const std::string& a, const std::string& b)
{
    return cJSON_Compare(parse_json(a).get(), parse_json(b).get(), true);
}

TEST(EventsTest, AReplyCutIntoEventsIsTheSameReply)
{
    EXPECT_TRUE(equal(join_events(split_reply(reply)), reply))
        << join_events(split_reply(reply));
}

TEST(EventsTest, PartsAddUp)
{
    std::string events;
    const auto add = [&](const std::string& choice) {
        append_event(events, R"({"id":"c","object":"chat.completion.chunk",)"
                             R"("model":"m","usage":null,"choices":[)" +
                                 choice + "]}");
    };
    add(R"({"index":0,"delta":{"role":"assistant","content":""}})");
    add(R"({"index":0,"delta":{"role":"assistant","content":"Hel"}})");
    add(R"({"index":1,"delta":{"tool_calls":[{"index":0,"id":"t",)"
        R"("type":"function","function":{"name":"f","arguments":""}}]}})");
    add(R"({"index":0,"delta":{"content":"lo"},"logprobs":)"
        R"({"content":[{"token":"lo"}]}})");
    for (const std::string part : {R"({\"a\")", R"(:1})"}) {
        add(R"({"index":1,"delta":{"tool_calls":[{"index":0,"function":)"
            R"({"arguments":")" +
            part + R"("}}]}})");
    }
    add(R"({"index":0,"delta":{},"finish_reason":"stop"})");
    append_event(events, R"({"id":"c","choices": [],"usage":{"n":1}})");

    const auto joined = join_events(events);
    EXPECT_TRUE(equal(
        joined,
        R"({"id":"c","object":"chat.completion","model":"m","usage":{"n":1},)"
        R"("choices":[{"index":0,"message":{"role":"assistant",)"
        R"("content":"Hello"},"logprobs":{"content":[{"token":"lo"}]},)"
        R"("finish_reason":"stop"},{"index":1,"message":{"content":null,)"
        R"("tool_calls":[{"id":"t","type":"function","function":)"
        R"({"name":"f","arguments":"{\"a\":1}"}}]}}]})"))
        << joined;
}

TEST(EventsTest, TheUsageIsMarked)
{
    std::string events;
    append_event(events, R"({"choices":[],"usage":{}})");
    EXPECT_TRUE(events.starts_with(usage_mark));

    events.clear();
    append_event(events, R"({"choices":[{"delta":{"content":)"
                         R"("\"choices\":[]"}}]})");
    EXPECT_TRUE(events.starts_with(data_mark)) << "a text about it";

    events.clear();
    append_event(events, "{\n\n\"a\":1}");
    EXPECT_EQ(events.find("\n\n"), events.size() - 2) << "one event";
}

TEST(EventsTest, WhatAReplySays)
{
    ReplyError error;
    auto answer = read_api_reply(reply, error, "");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, "a b");
    EXPECT_EQ(answer->reply, reply);
    EXPECT_EQ(answer->completion_tokens, 2);
    EXPECT_TRUE(answer->complete);

    const auto one = [](const std::string& choice) {
        return R"({"choices":[)" + choice + "]}";
    };
    answer =
        read_api_reply(one(R"({"message":{"content":null,"tool_calls":)"
                           R"([{"id":"t"}]},"finish_reason":"tool_calls"})"),
                       error, "");
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->text, R"([{"id":"t"}])");

    answer = read_api_reply(
        one(R"({"message":{"content":"x"},"finish_reason":"length"})"), error,
        "");
    ASSERT_TRUE(answer);
    EXPECT_FALSE(answer->complete) << "cut off: not to be used again";

    EXPECT_FALSE(read_api_reply("{}", error, ""));
    EXPECT_FALSE(read_api_reply("no", error, ""));
    EXPECT_FALSE(read_api_reply(
        R"({"error":{"message":"m","code":"rate_limit_exceeded"}})", error,
        ""));
    EXPECT_EQ(error.status, 429);
}

TEST(EventsTest, WhatIsNoStreamHarmsNobody)
{
    for (const std::string any :
         {"", "data: ", "data: 7\n\n", "data: {\"choices\":7}\n\n",
          "data: {\"choices\":[7,null,{\"delta\":7}]}\n\n", "\n\n\n\n",
          "usage: {\"choices\":[{\"delta\":{\"tool_calls\":{}}}]}\n\n"}) {
        (void)join_events(any);
        (void)split_reply(any);
    }
}

TEST(EventsTest, TheBody)
{
    const ApiCall call{"m", R"("messages":[])"};
    EXPECT_EQ(api_body(call, false, true), R"({"model":"m","messages":[]})");
    EXPECT_EQ(api_body(call, true, false),
              R"({"model":"m","messages":[],"stream":true})");
    EXPECT_EQ(api_body(call, true, true),
              R"({"model":"m","messages":[],"stream":true,)"
              R"("stream_options":{"include_usage":true}})");
}

}  // namespace
}  // namespace chatbot
