#include "core/api_request.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

using std::string_literals::operator""s;

ApiRequest read(const std::string& body)
{
    ApiRequest request;
    auto wrong = read_api_request(body, request);
    EXPECT_FALSE(wrong) << wrong.detail;
    return request;
}

Problem problem(const std::string& body)
{
    ApiRequest request;
    return read_api_request(body, request);
}

// A request with these members beside the usual ones.
std::string with(const std::string& members)
{
    return R"({"model":"m","messages":[{"role":"user","content":"hi"}])" +
           (members.empty() ? "" : "," + members) + "}";
}

TEST(ApiRequestTest, MembersAreKeptAsTheyAreWritten)
{
    auto request = read(
        R"( { "seed" : 9223372036854775807, "model":"m", "top_p":1.10,
            "stream":true, "stream_options":{"include_usage":true},
            "messages":[{"role":"user","content":"hi"}]} )");
    EXPECT_EQ(request.call.model, "m");
    EXPECT_TRUE(request.stream);
    EXPECT_TRUE(request.include_usage);
    EXPECT_EQ(request.call.members,
              R"("seed":9223372036854775807,"top_p":1.10,)"
              R"("messages":[{"role":"user","content":"hi"}])");
    EXPECT_EQ(read(with(R"("x":1,"y":2,"x":3)")).call.members,
              R"("messages":[{"role":"user","content":"hi"}],"y":2,"x":3)");
}

TEST(ApiRequestTest, WhatMeansTheSameIsEqual)
{
    const auto key = read(with(R"("a":{"x":1,"y":[1,2]},"b":"é")")).canonical;
    for (const std::string same : {
             R"("b":"\u00e9","a":{"y":[1 ,2],"x":1})",
             R"("a":{"x":1,"y":[1,2]},"b":"é","user":"me","stream":true)",
             R"("metadata":{"a":1},"a":{"\u0078":1,"y":[1,2]},"b":"é")",
             R"("safety_identifier":"x","a":{"x":1,"y":[1,2]},"b":"é")",
         }) {
        EXPECT_EQ(read(with(same)).canonical, key) << same;
    }
    for (const std::string other : {
             R"("a":{"x":1,"y":[2,1]},"b":"é")",
             R"("a":{"x":1,"y":[1,2]},"b":"É")",
             R"("a":{"x":"1","y":[1,2]},"b":"é")",
             R"("a":{"x":1,"y":[1,2]})",
             R"("a":{"x":1},"y":[1,2],"b":"é")",
         }) {
        EXPECT_NE(read(with(other)).canonical, key) << other;
    }
}

TEST(ApiRequestTest, LargePartsAreEqualByTheirContents)
{
    const std::string text(5000, 't');
    const auto key = [&](const std::string& a, const std::string& b) {
        return read(with("\"x\":[{\"a\":" + a + ",\"b\":" + b + "}]"))
            .canonical;
    };
    const auto large = key('"' + text + '"', "1");
    EXPECT_LT(large.size(), 500u) << "not copied to each level";
    EXPECT_EQ(key("\"\\u0074" + text.substr(1) + '"', "1"), large);
    EXPECT_EQ(
        read(with(R"("x":[{"b":2,"b":1,"a":")" + text + "\"}]")).canonical,
        large);
    EXPECT_NE(key("\"u" + text.substr(1) + '"', "1"), large);
    EXPECT_NE(key('"' + text + '"', "2"), large);
}

TEST(ApiRequestTest, NoTextLooksLikeMembers)
{
    const auto key = [](const std::string& members) {
        return read(with(members)).canonical;
    };
    EXPECT_NE(key(R"("a":"1","b":"2")"), key(R"("a":"1\"1,b:1:2")"));
    EXPECT_NE(key(R"("a":["1","2"])"), key(R"("a":["1\"1,2"])"));
    EXPECT_NE(key(R"("a":[["1"],"2"])"), key(R"("a":[["1","2"]])"));
    EXPECT_NE(key(R"("a":{"b":{"c":1},"d":1})"),
              key(R"("a":{"b":{"c":1,"d":1}})"));
    EXPECT_NE(key(R"("b":15)"), key(R"("b:1":5)"));
}

TEST(ApiRequestTest, BoundsOfMembers)
{
    std::string many;
    for (int i = 0; i < 1000; ++i) {
        many += (i ? ",\"" : "\"") + std::to_string(i) + "\":0";
    }
    EXPECT_EQ(problem(with(many)).status, 400);
    EXPECT_FALSE(problem(with("\"x\":{" + many + "}")));
}

// An agent with as many tools as OpenAI takes, in the middle of its work.
TEST(ApiRequestTest, ManyToolsAndMessages)
{
    std::string messages;
    for (int i = 0; i < 600; i++) {
        messages +=
            R"({"role":"tool","tool_call_id":"c","content":"x"},)"
            R"({"role":"assistant","content":null,"tool_calls":[{"id":"c",)"
            R"("type":"function","function":{"name":"f","arguments":""}}]},)";
    }
    std::string tools;
    for (int i = 0; i < 128; i++) {
        tools += (i ? "," : "") +
                 R"({"type":"function","function":{"name":"f","parameters":{)"
                 R"("type":"object","properties":{)"s;
        for (int p = 0; p < 8; p++) {
            tools += (p ? ",\"p" : "\"p") + std::to_string(p) +
                     R"(":{"type":"string","description":"what it is"})";
        }
        tools += "}}}}";
    }
    EXPECT_FALSE(problem(R"({"model":"m","messages":[)" + messages +
                         R"({"role":"user","content":"hi"}],"tools":[)" +
                         tools + "]}"));
}

TEST(ApiRequestTest, TheQuestionIsTheLastOfTheUser)
{
    const auto question = [](const std::string& messages) {
        return read(R"({"model":"m","messages":[)" + messages + "]}").question;
    };
    const std::string user = R"({"role":"user","content":"one"})";
    EXPECT_EQ(question(user), "one");
    EXPECT_EQ(question(user + R"(,{"role":"assistant","content":null})"),
              "one");
    EXPECT_EQ(question(R"({"content":[{"type":"text","text":"a"},)"
                       R"({"type":"image_url","image_url":{"url":"u"}},7,)"
                       R"({"type":"text","text":"\u00e9"}],"role":"user"})"),
              "aé");
    EXPECT_EQ(question(R"({"role":"user","content":5})"), "");
    EXPECT_EQ(question(R"({"role":"system","content":"x"})"), "");
    EXPECT_EQ(question("7"), "");
    EXPECT_EQ(question(""), "");
}

TEST(ApiRequestTest, WhatIsNoRequest)
{
    EXPECT_EQ(problem("").status, 400);
    EXPECT_EQ(problem("[]").status, 400);
    EXPECT_EQ(problem("{").status, 400);
    EXPECT_EQ(problem(R"({"model":01})").status, 400);
    EXPECT_EQ(problem(R"({"messages":[]})").param, "model");
    EXPECT_EQ(problem(R"({"model":"","messages":[]})").param, "model");
    EXPECT_EQ(problem(R"({"model":7,"messages":[]})").param, "model");
    EXPECT_EQ(problem(R"({"model":"m"})").param, "messages");
    EXPECT_EQ(problem(with(R"("stream":"true")")).param, "stream");
    EXPECT_EQ(problem(with(R"("stream":1)")).param, "stream");
    EXPECT_FALSE(problem(with(R"("stream":null)")));
    EXPECT_EQ(problem(R"({"model":"m","messages":{}})").param, "messages");
    EXPECT_EQ(
        problem(with("\"a\":" + std::string(100, '[') + std::string(100, ']')))
            .status,
        400);
    EXPECT_EQ(problem(with("\"a\":\"\\u0000\"")).status, 400);
}

}  // namespace
}  // namespace chatbot
