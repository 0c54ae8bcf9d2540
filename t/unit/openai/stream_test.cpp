#include "openai/protocol.hpp"
#include "openai/stream.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "told.hpp"

namespace chatbot {
namespace {

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
        ReplyError error;
        auto answer = reader_.finish(error);
        return log_ + " " + told(answer, error);
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

        ReplyError error;
        EXPECT_EQ(reader.text(), "é 😀b");
        EXPECT_EQ(told(reader.finish(error), error), "<é 😀b> m 7 9+3 complete");
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

        ReplyError error;
        EXPECT_EQ(told(reader.finish(error), error), "<a>  0 -1+-1 complete");
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

// What a stream of these texts, as within JSON strings, becomes: the pieces,
// then the answer.  `rest` is what each event has besides.
std::string texts_told(const std::vector<std::string>& texts,
                       const std::string& rest)
{
    StreamReader reader(100);
    std::string pieces;
    std::size_t told = 0;
    for (const auto& text : texts) {
        EXPECT_TRUE(reader.feed(R"(data: {"choices":[{"delta":{"content":")" +
                                text + "\"}}]" + rest + "}\n\n"));
        pieces += "[" + reader.text().substr(told) + "]";
        told = reader.text().size();
    }
    EXPECT_TRUE(reader.feed("data: [DONE]\n\n"));

    ReplyError error;
    const auto answer = reader.finish(error);
    return pieces + " " + (answer ? answer->text : error.reason);
}

// Services that cut a text by UTF-16 units; read with and without a tree.
TEST_F(StreamReaderTest, HalfACharacterIsHeldBack)
{
    for (std::string rest : {"", R"(,"usage":{"prompt_tokens":"1"})"}) {
        const auto told = [&](const std::vector<std::string>& texts) {
            return texts_told(texts, rest);
        };
        EXPECT_EQ(told({R"(hi \ud83d)", R"(\ude00!)"}), "[hi][ 😀!] hi 😀!");
        EXPECT_EQ(told({R"(\uD83D)", "", R"(\uDE00\ud83d)", R"(\ude01)"}),
                  "[][][😀][😁] 😀😁");
        EXPECT_EQ(told({R"(a\ud83d)", "b"}), "[a][\uFFFDb] a\uFFFDb");
        EXPECT_EQ(told({R"(a\ud83d)", R"(\ud83d)", R"(\ude00)"}),
                  "[a][\uFFFD][😀] a\uFFFD😀");
        EXPECT_EQ(told({R"(a\ud83d)", R"(\u0000)"}),
                  "[a][\uFFFD\uFFFD] a\uFFFD\uFFFD");
        EXPECT_EQ(told({R"(a\ud83d)"}), "[a] a\uFFFD") << "the end";
        EXPECT_EQ(told({R"(\ude00a\ud83db)", R"(\ude00)"}),
                  "[\uFFFDa\uFFFDb][\uFFFD] \uFFFDa\uFFFDb\uFFFD");
        EXPECT_EQ(told({R"(\\ud83d)", R"(\ude00)"}), R"([\ud83d])"
                                                     "[\uFFFD] "
                                                     R"(\ud83d)"
                                                     "\uFFFD")
            << "no escape";
    }
}

TEST_F(StreamReaderTest, HalfACharacterOfAPartOrARefusal)
{
    feed(R"(data: {"choices":[{"delta":{"content":[{"type":"text",)"
         R"("text":"\ud83d"}]}}]})"
         "\n\n");
    feed(R"(data: {"choices":[{"delta":{"refusal":"\ude00"}}]})"
         "\n\n");
    feed(done);
    EXPECT_EQ(finish(), "[😀] <😀>  0 -1+-1");
}

TEST_F(StreamReaderTest, NumbersThatJsonDoesNotHave)
{
    feed(R"(data: {"choices":[{"delta":{"content":"NaN"},"logprobs":)"
         R"({"content":[{"logprob":-Infinity},{"logprob":NaN}]}}]})"
         "\n\n");
    feed(stop);
    feed(done);
    EXPECT_EQ(finish(), "[NaN] <NaN>  0 -1+-1 complete");
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

// What is no JSON would end a client of the API.
TEST_F(StreamReaderTest, ChunksAloneAreKept)
{
    StreamReader reader(100, "{}", true);
    EXPECT_TRUE(reader.feed("data: {ping}\n\ndata: [1]\n\ndata: 7\n\n" +
                            event("a") + std::string(stop) +
                            std::string(done)));
    EXPECT_EQ(reader.events().find(R"(data: {"model")"), 0u) << reader.events();

    ReplyError error;
    const auto answer = reader.finish_api(error);
    ASSERT_TRUE(answer) << error.reason;
    EXPECT_EQ(answer->text, "a");
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
    EXPECT_EQ(finish(), "[half an] 0 the stream ended before the answer did");
}

TEST_F(StreamReaderTest, Empty)
{
    feed(stop);
    feed(done);
    EXPECT_EQ(finish(), " 0 a reply without text, finish_reason \"stop\"");
}

TEST_F(StreamReaderTest, ErrorEvent)
{
    feed_content("a");
    feed(R"(data: {"error":{"message":"Overloaded sk-1","type":"server"}})"
         "\n\n");
    feed(stop);
    EXPECT_EQ(finish(), "[a]!! 503 server: Overloaded ***");
}

TEST_F(StreamReaderTest, Garbage)
{
    feed("data: {\"choices\n\n");
    EXPECT_EQ(finish(), "! 0 an event of the stream is no JSON");
}

TEST_F(StreamReaderTest, TextIsBounded)
{
    feed_content(std::string(99, 'a'));
    feed_content("b");
    feed_content("c");
    EXPECT_EQ(finish(), "[" + std::string(99, 'a') +
                            "][b][c]! 0 the answer is " + larger_than(100));
}

TEST_F(StreamReaderTest, HeldWhiteSpaceIsBounded)
{
    feed_content("a");
    feed_content(std::string(60, ' '));
    feed_content(std::string(60, ' '));
    EXPECT_EQ(finish(), "[a]! 0 the answer is " + larger_than(100));
}

TEST_F(StreamReaderTest, EventsAreBounded)
{
    feed(std::string(70'000, 'x'));
    EXPECT_EQ(finish(), "! 0 an event of the stream is " + larger_than(100));

    StreamReader reader(100);
    int lines = 0;
    while (reader.feed("data: x\n")) {
        ASSERT_LT(++lines, 70'000);
    }
}

TEST_F(StreamReaderTest, PingsThatAreNoJson)
{
    feed("data: ping\n\ndata:\n\ndata\n\n\n\n: keep-alive\n\n");
    feed("event: ping\ndata: {\"type\": \"ping\"}\n\nretry: 1\nid: 7\n\n");
    feed_content("a");
    feed("data: [\n\ndata: 1\n\n");
    feed(stop);
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, SomethingNotUnderstoodIsNotKept)
{
    feed_content("a");
    feed("data: {ping}\n\n");
    feed(stop);
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1");
}

TEST_F(StreamReaderTest, ByteOrderMark)
{
    feed("\xEF\xBB\xBF" + event("a"));
    feed(done);
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, DoneWithoutFinishReason)
{
    feed_content("a");
    feed("data:[DONE]\n\n");
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, LastEventWithoutEmptyLine)
{
    feed_content("a");
    feed("data: [DONE]");
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, LastEventBringsAPiece)
{
    feed_content("a");
    feed(R"(data: {"choices":[{"index":0,"delta":{"content":"b"},)"
         R"("finish_reason":"stop"}]})");
    EXPECT_EQ(finish(), "[a] <ab> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, CutOffBehindTheEnd)
{
    feed_content("a");
    feed(stop);
    feed("data: {\"choices\":[],\"usage\":{\"pro");
    EXPECT_EQ(finish(), "[a] <a> m 7 -1+-1 complete");
}

// Ollama was seen to write one into each event.
TEST_F(StreamReaderTest, FinishReasonInEachEvent)
{
    for (std::string rest : {"", R"(,"usage":{"prompt_tokens":"1"})"}) {
        const auto piece = [&](const std::string& delta) {
            return R"(data: {"choices":[{"index":0,"delta":{)" + delta +
                   R"(},"finish_reason":"stop"}])" + rest + "}\n\n";
        };
        const auto is_whole = [](const std::string& events) {
            StreamReader reader(100);
            EXPECT_TRUE(reader.feed(events));
            return reader.whole();
        };
        const auto hello = piece(R"("content":"Hello ")");
        EXPECT_TRUE(is_whole(hello));
        EXPECT_TRUE(is_whole(hello + piece(R"("role":"assistant")")));
        EXPECT_TRUE(is_whole(hello + piece(R"("content":"","x":null)")));
        EXPECT_FALSE(is_whole(hello + piece(R"("content":"wor")")));
        EXPECT_FALSE(is_whole(hello + event("wor")));
        EXPECT_FALSE(is_whole(piece(R"("reasoning":"a")") +
                              piece(R"("reasoning":"b")")));
        EXPECT_TRUE(
            is_whole(hello + piece(R"("refusal":"no")") + std::string(done)));
        EXPECT_FALSE(is_whole(hello + piece(R"("refusal":"no")")));
    }

    feed(event("Hello ") + std::string(stop) + event("wor"));
    EXPECT_EQ(finish(), "[Hello wor] <Hello wor> m 7 -1+-1 complete")
        << "the reply came to its end";
}

TEST_F(StreamReaderTest, ErrorsInEvents)
{
    feed("event: error\ndata: {\"message\": \"Overloaded\"}\n\n");
    EXPECT_EQ(finish(), "! 503 Overloaded");
}

TEST_F(StreamReaderTest, ErrorInWords)
{
    feed("event:error\ndata: rate limit reached\n\n");
    EXPECT_EQ(finish(), "! 429 rate limit reached");
}

TEST_F(StreamReaderTest, ErrorInTheChoice)
{
    feed(R"(data: {"choices":[{"index":0,"delta":{"content":""},)"
         R"("finish_reason":"error","error":{"code":502,"message":"x"}}]})"
         "\n\n");
    EXPECT_EQ(finish(), "! 502 x");
}

TEST_F(StreamReaderTest, ErrorWithoutAField)
{
    feed_content("a");
    feed(R"({"error":{"code":503,"message":"gone"}})");
    EXPECT_EQ(finish(), "[a] 503 gone");
}

TEST_F(StreamReaderTest, WhatWasNoJsonIsToldIfTheStreamEndsEarly)
{
    feed_content("a");
    feed("data: ping\n\ndata: upstream connect error sk-1\n\ndata: ping\n\n");
    EXPECT_EQ(finish(),
              "[a] 0 the stream ended before the answer did: upstream connect "
              "error ***");
}

TEST_F(StreamReaderTest, ReplyThatIsOneEvent)
{
    feed(R"(data: {"model":"m","created":7,"choices":[{"index":0,)"
         R"("message":{"content":"ab"},"finish_reason":"stop"}]})"
         "\n\n");
    EXPECT_EQ(finish(), "[ab] <ab> m 7 -1+-1 complete");
}

// Perplexity's.
TEST_F(StreamReaderTest, TheMessageSoFarBesidesItsPieces)
{
    for (std::string so_far : {"a", "ab"}) {
        feed(R"(data: {"model":"m","created":7,"choices":[{"index":0,)"
             R"("message":{"content":")" +
             so_far + R"("},"delta":{"content":")" + so_far.back() +
             "\"}}]}\n\n");
    }
    feed(R"(data: {"choices":[{"index":0,"message":{"content":"ab"},)"
         R"("finish_reason":"stop"}]})"
         "\n\n");
    EXPECT_EQ(finish(), "[a][b] <ab> m 7 -1+-1 complete");
}

// DashScope's, unless it is asked for increments.
TEST_F(StreamReaderTest, TheMessageSoFarInEachEvent)
{
    for (std::string so_far : {"a", "a ", "a b", "a bc"}) {
        feed(R"(data: {"model":"m","created":7,"choices":[{"index":0,)"
             R"("message":{"content":")" +
             so_far + "\"}}]}\n\n");
    }
    feed(stop);
    EXPECT_EQ(finish(), "[a][ b][c] <a bc> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, EventsWithoutEmptyLines)
{
    auto events = event("a") + event("b") + std::string(stop) +
                  std::string(done) + event("c");
    for (auto at = events.find("\n\n"); at != events.npos;
         at = events.find("\n\n", at)) {
        events.erase(at, 1);
    }
    feed(events);
    EXPECT_EQ(finish(), " <ab> m 7 -1+-1 complete");
}

TEST_F(StreamReaderTest, FinishReasonError)
{
    feed(R"(data: {"choices":[{"index":0,"delta":{"content":"a"},)"
         R"("finish_reason":"error"}]})"
         "\n\n");
    EXPECT_EQ(finish(), "! 502 finish_reason \"error\"");
}

}  // namespace
}  // namespace chatbot
