#include "openai/error.hpp"

#include <gtest/gtest.h>

#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

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
}

// "code, param: message"
TEST_F(ReadErrorTest, WhatAClientOfTheApiIsTold)
{
    const auto told = [](int status, std::string_view body,
                         std::string_view request = {}) {
        auto error = read_error(status, body, request);
        return error.code + ", " + error.param + ": " + error.message;
    };

    EXPECT_EQ(told(400, R"({"error": {"message": "Too long: 9 tokens.",)"
                        R"("type": "invalid_request_error",)"
                        R"("param": "messages",)"
                        R"("code": "context_length_exceeded"}})"),
              "context_length_exceeded, messages: Too long: 9 tokens.");
    EXPECT_EQ(told(404, error("The model `x` does not exist.", "NotFound")),
              "model_not_found, model: The model `x` does not exist.");
    EXPECT_EQ(told(400,
                   R"({"error": {"message":)"
                   R"("Unsupported parameter: 'top_k'"}})",
                   R"({"model":"m","top_k":1})"),
              ", top_k: Unsupported parameter: 'top_k'");
    EXPECT_EQ(told(422, R"({"detail": [{"type": "missing",)"
                        R"("loc": ["body", "messages"], "msg": "required"}]})"),
              "missing, messages: required");
    EXPECT_EQ(told(400, error("key sk-abc is wrong\n", "")),
              ", : key *** is wrong");
    EXPECT_EQ(told(413, "<html><h1>413</h1></html>"), ", : ");
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

    EXPECT_EQ(read(402, R"({"error": {"message": "Pay"}})"), "money <Pay>");
    EXPECT_EQ(read(400, R"({"error": {"message": "Your credit balance is too
                            low"}})"),
              "money <Your credit balance is too low>");
    EXPECT_EQ(read(429, R"({"error": {"message": "Insufficient Balance"}})"),
              "money <Insufficient Balance>");

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

// DashScope's, which is asked for a stream.
TEST_F(ReadErrorTest, AsAnEvent)
{
    EXPECT_EQ(read(429, "id:1\nevent:error\n:HTTP_STATUS/429\ndata:" +
                            error("x", "insufficient_quota") + "\n\n"),
              "money <insufficient_quota: x>");
    EXPECT_EQ(read(404, "data: " + error("x", "model_not_found") + "\r\n"),
              "model <model_not_found: x>");
    EXPECT_EQ(read(500, "event: error\n\n"), "<event: error>");
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

// A member of the request that the service does not take.
class RefusedMemberTest : public testing::Test {
protected:
    static std::string refused(int status, const std::string& body)
    {
        return read_error(status, body,
                          R"({"model": "m", "messages": [], "temperature": 1,
                              "reasoning_effort": "none", "stop": "x",
                              "stream": true, "stream_options": {}})")
            .refused_member;
    }

    static std::string error(const std::string& text, const std::string& code,
                             const std::string& param)
    {
        std::string body = "{\"error\": {\"message\": ";
        append_json(body, text);
        return body + ", \"code\": \"" + code + "\", \"param\": \"" + param +
               "\"}}";
    }
};

TEST_F(RefusedMemberTest, IsNamed)
{
    EXPECT_EQ(refused(400, error("Unsupported value: 'temperature' does not "
                                 "support 0.2 with this model.",
                                 "unsupported_value", "temperature")),
              "temperature");
    EXPECT_EQ(refused(400, error("x", "unsupported_parameter",
                                 "stream_options.include_obfuscation")),
              "stream_options");
    EXPECT_EQ(refused(400, error("Unrecognized request argument supplied: "
                                 "stream_options",
                                 "", "")),
              "stream_options");
    EXPECT_EQ(refused(400, error("Unsupported parameter: 'stop' with this "
                                 "model. reasoning_effort may be.",
                                 "", "")),
              "stop");
    EXPECT_EQ(refused(422, R"({"detail": [{"type": "extra_forbidden",
                  "loc": ["body", "stream_options"],
                  "msg": "Extra inputs are not permitted"}]})"),
              "stream_options");
    EXPECT_EQ(refused(400, R"({"error": "json: unknown field
                  \"reasoning_effort\""})"),
              "reasoning_effort");
}

TEST_F(RefusedMemberTest, IsNone)
{
    EXPECT_EQ(refused(400, error("Expected a value <= 2", "above_max_value",
                                 "temperature")),
              "");
    EXPECT_EQ(refused(400, error("Unsupported", "unsupported_parameter",
                                 "messages[0].name")),
              "");
    EXPECT_EQ(refused(400, error("not supported: stop asking", "", "")), "");
    EXPECT_EQ(refused(500, error("x", "unsupported_value", "temperature")), "");
    EXPECT_EQ(refused(400, error("Unknown model 'm'", "", "")), "");
}

class ErrorInSuccessTest : public testing::Test {
protected:
    static std::string found(const std::string& body)
    {
        Json json = parse_json(body);
        auto error = find_error(json.get());
        return error ? std::to_string(error->status) +
                           (error->money ? " money " : " ") + error->reason
                     : "none";
    }
};

TEST_F(ErrorInSuccessTest, StatusIsNamedOrSaid)
{
    EXPECT_EQ(found(R"({"error": {"code": 429, "message": "x"}})"), "429 x");
    EXPECT_EQ(found(R"({"error": {"code": "503", "message": "x"}})"), "503 x");
    EXPECT_EQ(found(R"({"error": {"status": 504, "message": "x"}})"), "504 x");
    EXPECT_EQ(found(R"({"error": {"type": "rate_limit_error"}})"),
              "429 rate_limit_error");
    EXPECT_EQ(found(R"({"error": {"type": "overloaded_error"}})"),
              "503 overloaded_error");
    EXPECT_EQ(found(R"({"error": {"type": "invalid_request_error"}})"),
              "400 invalid_request_error");
    EXPECT_EQ(found(R"({"error": {"code": "insufficient_quota"}})"),
              "429 money insufficient_quota");
    EXPECT_EQ(found(R"({"error": "Too Many Requests"})"),
              "429 Too Many Requests");
    EXPECT_EQ(found(R"({"error": "something"})"), "502 something");
    EXPECT_EQ(found(R"({"object": "error", "message": "x", "code": 503})"),
              "503 x");
    EXPECT_EQ(found(R"({"code": 500, "message": "no choices"})"),
              "500 no choices");
}

TEST_F(ErrorInSuccessTest, InOtherForms)
{
    EXPECT_EQ(found(R"({"error": 429, "message": "x"})"), "429 x");
    EXPECT_EQ(found(R"({"error": {"error": {"code": 503, "message": "x"}}})"),
              "503 x");
    EXPECT_EQ(found(R"({"base_resp": {"status_code": 1002,
                        "status_msg": "rate limit"}})"),
              "429 rate limit");
    EXPECT_EQ(found(R"({"base_resp": {"status_code": 0, "status_msg": ""}})"),
              "none");
    EXPECT_EQ(found(R"({"error": {"code": "1302", "message": "并发数过高"}})"),
              "429 并发数过高");
}

// What a reply without choices says counts, if it is about an error.
TEST_F(ErrorInSuccessTest, WithoutChoices)
{
    const auto read = [](std::string body) {
        auto error = read_without_choices(parse_json(body).get());
        return std::to_string(error.status) + " " + error.reason;
    };

    EXPECT_EQ(read(R"({"message": "Too many requests"})"),
              "429 Too many requests");
    EXPECT_EQ(read(R"({"error_code": 18, "error_msg": "limit reached"})"),
              "429 limit reached");
    EXPECT_EQ(read(R"({"Response": {"Error": {"Code": "LimitExceeded",
                                              "Message": "x"}}})"),
              "429 LimitExceeded: x");
    EXPECT_EQ(read(R"({"errors": ["Service unavailable"]})"),
              "503 Service unavailable");
    EXPECT_EQ(read(R"({"code": "Throttling", "message": "x"})"),
              "429 Throttling: x");
    EXPECT_EQ(read(R"({"message": "ok"})"), "0 a reply without choices: ok");
    EXPECT_EQ(read(R"({"data": {"text": "secret"}, "id": 1})"),
              "0 a reply without choices, only data, id");
    EXPECT_EQ(read(R"(["secret"])"), "0 a reply without choices");
}

TEST_F(ErrorInSuccessTest, None)
{
    for (auto body :
         {"{}", "[]", "null", R"({"error": null})", R"({"error": ""})",
          R"({"error": {}})", R"({"error": false, "choices": []})",
          R"({"code": 500, "choices": []})", R"({"error": 0})",
          R"({"error": {"message": null, "code": null}})",
          R"({"error": {"message": "", "code": 0, "details": []}})",
          R"({"code": 0, "message": "ok"})"}) {
        EXPECT_EQ(found(body), "none") << body;
    }
}

}  // namespace
}  // namespace chatbot
