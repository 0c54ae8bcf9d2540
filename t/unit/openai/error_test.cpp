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

// What services say of a model "bad" that they do not serve, and what sounds
// alike and means something else.
class MissingModelTest : public testing::Test {
protected:
    static bool is_missing(int status, const std::string& body)
    {
        return read_error(status, body, R"({"model": "org/bad:1"})")
            .model_missing;
    }

    static std::string message(const std::string& text)
    {
        std::string body = "{\"error\": {\"message\": ";
        append_json(body, text);
        return body + ", \"code\": null}}";
    }
};

TEST_F(MissingModelTest, InManyWords)
{
    for (auto text : {
             "Model Not Exist",
             "model \"org/bad:1\" not found, try pulling it first",
             "The model `org/bad:1` does not exist or you do not have access "
             "to it.",
             "Invalid model: org/bad:1",
             "Invalid model 'x'. Permitted models can be found in the docs",
             "Unknown model: x",
             "org/bad:1 is not a valid model ID",
             "No endpoints found for org/bad:1.",
             "models/org/bad:1 is not found for API version v1, or is not "
             "supported for generateContent.",
             "/chat/completions: Invalid model name passed in model=org/bad:1",
             "The requested model 'org/bad:1' is not supported by any provider "
             "you have enabled.",
             "The model `org/bad:1` has been decommissioned and is no longer "
             "supported.",
             "The provided model identifier is invalid.",
             "The model or endpoint org/bad:1 doesn't exist",
             "The API deployment for this resource does not exist.",
             "Publisher Model `projects/p/models/org/bad:1` was not found",
             "Could not find model org/bad:1",
             "Unable to access model org/bad:1.",
             "You do not have access to the model org/bad:1",
             "Model org/bad:1 is not available in your region",
             "Model \xE2\x80\x9Corg/bad:1\xE2\x80\x9D doesn\xE2\x80\x99t exist",
             "模型不存在，请检查模型代码。",
         }) {
        EXPECT_TRUE(is_missing(404, message(text))) << text;
        EXPECT_TRUE(is_missing(400, message(text))) << text;
        EXPECT_FALSE(is_missing(500, message(text))) << text;
        EXPECT_FALSE(is_missing(429, message(text))) << text;
    }
}

TEST_F(MissingModelTest, ByItsCode)
{
    for (std::string code :
         {"model_not_found", "DeploymentNotFound", "unknown_model",
          "unavailable_model", "invalid_model", "model_not_available",
          "ModelDeprecated", "model_decommissioned", "ModelNotFoundException",
          "unsupported_model", "ModelNotFoundError"}) {
        EXPECT_TRUE(is_missing(400, R"({"error": {"code": ")" + code + "\"}}"))
            << code;
        EXPECT_TRUE(
            is_missing(404, R"({"message": "no", "type": ")" + code + "\"}"))
            << code;
    }
}

TEST_F(MissingModelTest, InOtherForms)
{
    for (auto body : {
             R"([{"error": {"code": 404, "status": "NOT_FOUND",
                  "message": "models/org/bad:1 is not found"}}])",
             R"({"error": "model 'org/bad:1' not found"})",
             R"({"code": "Some requested entity was not found",
                 "error": "The model org/bad:1 does not exist"})",
             R"({"error": {"message": "model: org/bad:1", "code": 404,
                           "type": "not_found_error", "param": null}})",
             R"({"detail": "Model not found: org/bad:1"})",
             R"({"errors": [{"message": "No such model org/bad:1"}]})",
             R"({"error": {"message": "This is not a chat model and thus not
                           supported here", "param": "model"}})",
             R"({"error": {"message": "Model Not Exist", "param": "None",
                           "type": "invalid_request_error", "code": "400"}})",
         }) {
        EXPECT_TRUE(is_missing(404, body)) << body;
    }
}

TEST_F(MissingModelTest, SomethingElse)
{
    for (auto text : {
             "Unsupported parameter: 'max_tokens' is not supported with this "
             "model. Use 'max_completion_tokens' instead.",
             "Unsupported value: 'temperature' does not support 0.2 with this "
             "model.",
             "This model's maximum context length is 8192 tokens.",
             "The model org/bad:1 does not support image input.",
             "org/bad:1 is not supported with tools",
             "The model `org/bad:1` is not available for batch requests",
             "No endpoints found that support tool use.",
             "No endpoints found matching your data policy.",
             "Your project does not have access to this feature.",
             "You do not have access to the model fine-tuning feature.",
             "Invalid model parameters: top_p",
             "Invalid 'messages': the model requires a user message.",
             "Unknown parameter 'foo' for model org/bad:1.",
             "Image not found. The model could not load it.",
             "Tool not found for model org/bad:1",
             "Resource not found",
             "no such path",
             "File bad not found",
             "",
         }) {
        EXPECT_FALSE(is_missing(404, message(text))) << text;
        EXPECT_FALSE(is_missing(400, message(text))) << text;
    }
    for (std::string code :
         {"unsupported_parameter", "model_overloaded", "invalid_request_error",
          "unsupported_model_feature", "not_found_error", "model"}) {
        EXPECT_FALSE(is_missing(404, R"({"error": {"code": ")" + code + "\"}}"))
            << code;
    }
    EXPECT_FALSE(is_missing(400, R"({"error": {"param": "tools",
        "message": "This model is not supported"}})"));
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

TEST_F(ErrorInSuccessTest, None)
{
    for (auto body :
         {"{}", "[]", "null", R"({"error": null})", R"({"error": ""})",
          R"({"error": {}})", R"({"error": false, "choices": []})",
          R"({"code": 500, "choices": []})",
          R"({"code": 0, "message": "ok"})"}) {
        EXPECT_EQ(found(body), "none") << body;
    }
}

}  // namespace
}  // namespace chatbot
