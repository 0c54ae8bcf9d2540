#include "openai/chunk.hpp"

#include <gtest/gtest.h>

#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

std::string told(const Chunk& chunk)
{
    return "<" + chunk.text + "> " + chunk.finish_reason + " " +
           chunk.head.model + " " + std::to_string(chunk.head.created);
}

// What the scanner reads; "-" if it leaves the chunk to the tree.
std::string scanned(const std::string& data)
{
    Chunk chunk;
    return scan_chunk(data, chunk) ? told(chunk) : "-";
}

std::string with_delta(const std::string& delta)
{
    return R"({"choices":[{"index":0,"delta":)" + delta + "}]}";
}

TEST(ScanChunkTest, OpenaisOwn)
{
    EXPECT_EQ(
        scanned(
            R"({"id":"chatcmpl-1","object":"chat.completion.chunk",)"
            R"("created":1780000000,"model":"gpt-6-luna-2026","service_tier":)"
            R"("default","system_fingerprint":"fp_1","choices":[{"index":0,)"
            R"("delta":{"content":" Paris"},"logprobs":null,)"
            R"("finish_reason":null}],"usage":null,"obfuscation":"x"})"),
        "< Paris>  gpt-6-luna-2026 1780000000");
    EXPECT_EQ(scanned(R"({"choices":[{"index":0,"delta":{},)"
                      R"("finish_reason":"stop"}]})"),
              "<> stop  0");
    EXPECT_EQ(scanned(R"({"choices":[]})"), "<>   0");
}

TEST(ScanChunkTest, Usage)
{
    Chunk chunk;
    ASSERT_TRUE(scan_chunk(
        R"({"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,)"
        R"("total_tokens":29,"prompt_tokens_details":{"cached_tokens":4,)"
        R"("audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":)"
        R"(6,"audio_tokens":0,"accepted_prediction_tokens":0}}})",
        chunk));
    EXPECT_EQ(chunk.head.prompt_tokens, 19);
    EXPECT_EQ(chunk.head.completion_tokens, 10);
    EXPECT_EQ(chunk.head.cached_tokens, 4);
    EXPECT_EQ(chunk.head.reasoning_tokens, 6);

    chunk.clear();
    ASSERT_TRUE(
        scan_chunk(R"({"choices":[],"usage":{"total_tokens":1}})", chunk));
    EXPECT_EQ(chunk.head.prompt_tokens, -1);
    EXPECT_EQ(chunk.head.reasoning_tokens, -1);
}

TEST(ScanChunkTest, HowTheTextIsWritten)
{
    const auto written = [](const std::string& delta, const char* rest = "") {
        const auto data =
            R"({"choices":[{"delta":{)" + delta + "}" + rest + "}]}";
        Chunk chunk;
        return scan_chunk(data, chunk) ? std::string(chunk.written) : "not";
    };
    const std::string text = R"("content":"\u00e9\"")";
    EXPECT_EQ(written(text), R"(\u00e9\")");
    EXPECT_EQ(written(R"("role":"assistant","x":null,"y":"",)" + text,
                      R"(,"logprobs":null,"finish_reason":"stop")"),
              R"(\u00e9\")");
    EXPECT_EQ(written(R"("content":"")"), "");
    EXPECT_EQ(written(R"("content":null)"), "");
    EXPECT_EQ(written(R"("reasoning":"x",)" + text), "") << "grows, too";
    EXPECT_EQ(written(text + R"(,"tool_calls":[])"), "");
    EXPECT_EQ(written(text, R"(,"logprobs":{})"), "");
}

TEST(ScanChunkTest, OtherMembersAreSkipped)
{
    EXPECT_EQ(scanned(R"( { "choices" : [ { "delta" : { "role":"assistant",)"
                      R"("content":"a", "reasoning_content":null}, "x":)"
                      R"([1,-0.5e+3,{"y":true}], "content_filter_results":)"
                      R"({"hate":{"filtered":false}} } ] } )"),
              "<a>   0");
}

TEST(ScanChunkTest, Escapes)
{
    EXPECT_EQ(scanned(with_delta(
                  R"({"content":"\n\"\\\/\u00e9\u041f\ud83d\ude00"})")),
              "<\n\"\\/éП😀>   0");
    EXPECT_EQ(scanned(with_delta(R"({"content":"\u0000\ud800x"})")),
              "<\uFFFD\uFFFDx>   0");
}

TEST(ScanChunkTest, TheRestIsLeftToTheTree)
{
    for (auto data : {
             "",
             "{",
             "[]",
             "null",
             "{}",
             R"({"choices":[{"index":1,"delta":{"content":"a"}}]})",
             R"({"choices":[{"delta":{}},{"delta":{}}]})",
             R"({"choices":[],"usage":[]})",
             R"({"choices":[],"usage":null,"usage":{}})",
             R"({"choices":[],"usage":{"prompt_tokens":"1"}})",
             R"({"choices":[],"usage":{"prompt_tokens":-1}})",
             R"({"choices":[],"usage":{"prompt_tokens":1.5}})",
             R"({"choices":[],"usage":{"completion_tokens":2147483648}})",
             R"({"choices":[],"usage":{"reasoning_tokens":1}})",
             R"({"choices":[],"usage":{"prompt_cache_hit_tokens":1}})",
             R"({"choices":[],"usage":{"prompt_tokens_details":null}})",
             R"({"choices":[],"usage":{"prompt_tokens_details":)"
             R"({"cached_tokens":1},"prompt_tokens_details":{}}})",
             R"({"choices":[],"error":{"code":1}})",
             R"({"choices":[{"delta":{},"error":{}}]})",
             R"({"choices":[{"delta":{"content":["x"]}}]})",
             R"({"choices":[{"delta":{"refusal":"No"}}]})",
             R"({"choices":[],"choices":[]})",
             R"({"choices":[]} x)",
             R"({"choices":[],})",
             R"({"choices":[],"x":01})",
             R"({"choices":[],"x":"\y"})",
             R"({"choices":[],"created":1e9})",
             "{\"choices\":[],\"x\":\"\t\"}",
             "{\"choices\":[],\"x\":\"\xFF\"}",
         }) {
        EXPECT_EQ(scanned(data), "-") << data;
    }
}

}  // namespace
}  // namespace chatbot
