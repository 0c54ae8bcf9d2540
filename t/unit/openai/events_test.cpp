#include "openai/events.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <new>
#include <string>
#include <vector>

#include "growth.hpp"
#include "journal/failing_call.hpp"
#include "openai/api_call.hpp"
#include "openai/chunk.hpp"
#include "openai/join.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

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

// The reply that the events add up to.
std::string join_events(std::string_view events)
{
    ReplyJoiner joiner;
    while (!events.empty()) {
        auto event = events.substr(0, events.find("\n\n"));
        events.remove_prefix(std::min(event.size() + 2, events.size()));
        take_prefix(event, data_mark) || take_prefix(event, usage_mark);
        Chunk chunk;
        joiner.add(event, scan_chunk(event, chunk) ? chunk.written : "");
    }
    return print_json(joiner.finish().get());
}

bool equal(const std::string& a, const std::string& b)
{
    return cJSON_Compare(parse_json(a).get(), parse_json(b).get(), true);
}

TEST(EventsTest, AReplyCutIntoEventsIsTheSameReply)
{
    EXPECT_TRUE(equal(join_events(split_reply(reply)), reply))
        << join_events(split_reply(reply));
}

TEST(EventsTest, AReplyIsCutByTheLetter)
{
    EXPECT_EQ(split_reply(R"({ "id" : 1.50, "object":"x", "choices" : [ {
        "message" : {"content" : "a\u00e9", "tool_calls":[{"index":7, "id":"t"},
        {}]}, "x":[ ], "logprobs": {}, "finish_reason" : "stop" } ],
        "usage": {"n":1}})"),
              R"(data: {"object":"chat.completion.chunk","id":1.50,)"
              R"("choices":[{"delta":{"content":"a\u00e9","tool_calls":)"
              R"([{"index":0,"id":"t"},{"index":1}]},"x":[ ],"logprobs":{},)"
              R"("finish_reason":null}]})"
              "\n\n"
              R"(data: {"object":"chat.completion.chunk","id":1.50,)"
              R"("choices":[{"x":[ ],"delta":{},"finish_reason":"stop"}]})"
              "\n\n"
              R"(usage: {"object":"chat.completion.chunk","id":1.50,)"
              R"("choices":[],"usage":{"n":1}})"
              "\n\n");
    EXPECT_EQ(split_reply(R"({"a":01,"choices":[{"message":{}}]})"),
              split_reply(R"({"a":1,"choices":[{"message":{}}]})"))
        << "what cJSON alone reads is written anew";
    EXPECT_EQ(split_reply(R"({"choices":[7]})"), "");
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

// The calls of tools that these parts of them, each in an event, add up to.
std::string join_calls(const std::vector<std::string>& parts)
{
    std::string events;
    for (const auto& part : parts) {
        append_event(
            events, R"({"choices":[{"index":0,"delta":{"tool_calls":[)" + part +
                        "]}}]}");
    }
    const auto reply = parse_json(join_events(events));
    return print_json(
        member(member(first_choice(reply.get()), "message"), "tool_calls"));
}

// Gemini's, and those of some gateways.
TEST(EventsTest, ParallelCallsOfOneIndexAreDistinct)
{
    const std::string paris =
        R"({"id":"a","function":{"name":"weather","arguments":"{\"x\":1}"}})";
    const std::string cet =
        R"({"id":"b","function":{"name":"time","arguments":"{\"y\":2}"}})";
    const auto calls = "[" + paris + "," + cet + "]";

    EXPECT_EQ(join_calls({R"({"index":0,)" + paris.substr(1),
                          R"({"index":0,)" + cet.substr(1)}),
              calls);
    EXPECT_EQ(join_calls({R"({"index":0,)" + paris.substr(1) +
                          R"(,{"index":0,)" + cet.substr(1)}),
              calls)
        << "in one event";
    EXPECT_EQ(join_calls({R"({"index":0,"id":"a","function":{"name":"weather",)"
                          R"("arguments":""}})",
                          R"({"index":0,"function":{"arguments":"{\"x\""}})",
                          R"({"index":0,"function":{"arguments":":1}"}})",
                          R"({"index":0,"id":"b","function":{"name":"time",)"
                          R"("arguments":"{"}})",
                          R"({"index":0,"id":"","function":{"name":"",)"
                          R"("arguments":"\"y\":2"}})",
                          R"({"index":0,"id":"b","function":{"name":"time",)"
                          R"("arguments":"}"}})"}),
              calls)
        << "in parts";
    EXPECT_EQ(join_calls({R"({"index":1,"id":"a","function":{"name":"weather",)"
                          R"("arguments":"{\"x\""}})",
                          R"({"index":0,)" + cet.substr(1),
                          R"({"index":1,"function":{"arguments":":1}"}})"}),
              calls)
        << "by turns";
}

TEST(EventsTest, AnIdForEachPartOfACall)
{
    EXPECT_EQ(join_calls({R"({"index":0,"id":"a"})",
                          R"({"index":0,"id":"b","function":{"name":"f",)"
                          R"("arguments":"{"}})",
                          R"({"index":0,"id":"c","function":{"name":"",)"
                          R"("arguments":"}"}})",
                          R"({"index":0,"id":"d","function":)"
                          R"({"arguments":" "}})"}),
              R"([{"id":"d","function":{"name":"f","arguments":"{} "}}])");
}

TEST(GrowthTest, Join)
{
    const auto join = [](auto& events) { return join_events(events); };
    for (std::string choice :
         {R"("delta":{"content":"a"},"logprobs":{"content":[{"token":"a"}]})",
          R"("delta":{"content":[{"type":"text","text":"a"}]})",
          R"("delta":{"content":[{"type":"image"}]})",
          R"("delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]})"}) {
        expect_linear(
            [&](std::size_t size) {
                std::string events;
                for (std::size_t i = 0; i < size / 4; i++) {
                    append_event(events, R"({"choices":[{)" + choice + "}]}");
                }
                return events;
            },
            join);
    }

    expect_linear(
        [](std::size_t size) {
            std::string events;
            for (std::size_t i = 0; i < size / 4; i++) {
                append_event(events, R"({"choices":[{"delta":{"tool_calls":[)"
                                     R"({"index":0,"id":")" +
                                         std::to_string(i) +
                                         R"(","function":{"name":"f"}}]}}]})");
            }
            return events;
        },
        join);
}

// DashScope's.
TEST(EventsTest, AnEmptyTextReplacesNothing)
{
    EXPECT_EQ(join_calls({R"({"index":0,"id":"a","type":"function","function":)"
                          R"({"name":"f","arguments":"{"}})",
                          R"({"index":0,"id":"","type":"","function":)"
                          R"({"name":"","arguments":"}"}})"}),
              R"([{"id":"a","type":"function","function":)"
              R"({"name":"f","arguments":"{}"}}])");
}

// Chunks that differ in their text alone are joined before they are read.
TEST(EventsTest, EqualChunksAddUp)
{
    std::string events;
    const auto add = [&](const std::string& delta, const std::string& rest) {
        for (std::string text : {"ha", "ha", R"(\")", R"(\u00e9)"}) {
            append_event(events, R"({"choices":[{"index":0,"delta":{)" + delta +
                                     R"("content":")" + text + "\"}" + rest +
                                     "}]}");
        }
    };
    add("", "");
    add(R"("role":"assistant",)", R"(,"logprobs":null)");
    add(R"("reasoning_content":"hm",)", "");
    add("", R"(,"logprobs":{"content":[{"token":"x"}]})");
    add("", R"(,"finish_reason":"stop")");

    std::string text;
    for (int i = 0; i < 5; i++) {
        text += R"(haha\"\u00e9)";
    }
    const std::string tokens =
        R"({"token":"x"},{"token":"x"},{"token":"x"},{"token":"x"})";
    EXPECT_TRUE(
        equal(join_events(events),
              R"({"object":"chat.completion","choices":[{"index":0,"message":)"
              R"({"content":")" +
                  text +
                  R"(","role":"assistant","reasoning_content":"hmhmhmhm"},)"
                  R"("logprobs":{"content":[)" +
                  tokens + R"(]},"finish_reason":"stop"}]})"))
        << join_events(events);
}

// Mistral's models that think.
TEST(EventsTest, ContentInPartsAddsUp)
{
    std::string events;
    for (std::string delta : {R"({"role":"assistant","content":"So: "})",
                              R"({"content":[{"type":"thinking","thinking":)"
                              R"([{"type":"text","text":"h"}]}]})",
                              R"({"content":[{"type":"thinking","thinking":)"
                              R"([{"type":"text","text":"m"}]}]})",
                              R"({"content":[{"type":"text","text":"a"}]})",
                              R"({"content":[{"type":"text","text":"b"}]})",
                              R"({"content":"c"})", R"({"content":""})"}) {
        append_event(events,
                     R"({"choices":[{"index":0,"delta":)" + delta + "}]}");
    }
    EXPECT_TRUE(
        equal(join_events(events),
              R"({"object":"chat.completion","choices":[{"index":0,"message":)"
              R"({"role":"assistant","content":[{"type":"text","text":"So: "},)"
              R"({"type":"thinking","thinking":[{"type":"text","text":"hm"}]},)"
              R"({"type":"text","text":"abc"}]}}]})"))
        << join_events(events);
}

TEST(EventsTest, SpokenAnswersAddUp)
{
    std::string events;
    for (std::string part : {"YQ", "Yg"}) {
        append_event(events,
                     R"({"choices":[{"index":0,"delta":{"audio":{"id":"i",)"
                     R"("data":")" +
                         part + R"(","transcript":")" + part + R"("}}}]})");
    }
    EXPECT_TRUE(
        equal(join_events(events),
              R"({"object":"chat.completion","choices":[{"index":0,"message":)"
              R"({"audio":{"id":"i","data":"YQYg","transcript":"YQYg"},)"
              R"("content":null}}]})"))
        << join_events(events);
}

// Perplexity's.
TEST(EventsTest, TheMessageSoFarIsNotAddedToItsParts)
{
    std::string events;
    for (std::string part : {"a", "b"}) {
        append_event(events, R"({"choices":[{"index":0,"delta":{"content":")" +
                                 part + R"("},"message":{"content":"a"}}]})");
    }
    EXPECT_TRUE(equal(join_events(events),
                      R"({"object":"chat.completion","choices":[{"index":0,)"
                      R"("message":{"content":"ab"}}]})"))
        << join_events(events);
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
          "data: {\"choices\":[[7],{\"delta\":[7],\"logprobs\":{}}]}\n\n",
          "usage: {\"choices\":[{\"delta\":{\"tool_calls\":{}}}]}\n\n"}) {
        (void)join_events(any);
        (void)split_reply(any);
    }
}

// What came first in another type than the rest has no meaning.
TEST(EventsTest, APartOfAnotherTypeReplacesWhatCameBefore)
{
    std::string events;
    append_event(events, R"({"choices":[{"message":"m"}]})");
    append_event(events, R"({"choices":[{"delta":{"x":{"a":1}}}]})");
    append_event(events, R"({"choices":[{"delta":{"x":[1]}}]})");
    EXPECT_TRUE(equal(join_events(events),
                      R"({"object":"chat.completion","choices":[{"index":0,)"
                      R"("message":{"x":[1],"content":null}}]})"))
        << join_events(events);
}

// The n-th allocation fails, ours or cJSON's, n upward until none does: a reply
// is whole, or there is none.
class EventsOutOfMemoryTest : public testing::Test {
protected:
    EventsOutOfMemoryTest()
    {
        cJSON_Hooks hooks{
            [](std::size_t n) { return operator new(n, std::nothrow); },
            [](void* p) { operator delete(p); }};
        cJSON_InitHooks(&hooks);
    }
    ~EventsOutOfMemoryTest() { cJSON_InitHooks(nullptr); }

    template <class Make>
    static void fail_each(Make make)
    {
        const std::string whole = make();
        unsigned n = 0;
        bool failed = true;
        while (failed && n < 2000 && !HasFailure()) {
            std::string made = whole;
            const FailingCall failing(++n, FailingCall::How::out_of_memory);
            try {
                made = make();
            } catch (const std::bad_alloc&) {
            }
            failed = FailingCall::happened();
            EXPECT_EQ(made, whole) << n;
        }
        EXPECT_GT(n, 20u);
        EXPECT_LT(n, 2000u);
    }
};

TEST_F(EventsOutOfMemoryTest, AReplyIsWholeOrThereIsNone)
{
    const std::string events = split_reply(reply);
    fail_each([] { return split_reply(reply); });
    fail_each([&] { return join_events(events + events); });
    fail_each([] {
        ReplyError error;
        const auto answer = read_api_reply(reply, error, "");
        EXPECT_TRUE(answer) << error.reason;
        return answer ? answer->text + answer->reply : "";
    });
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
