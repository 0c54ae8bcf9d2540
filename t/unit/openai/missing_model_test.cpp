#include "openai/error.hpp"

#include <gtest/gtest.h>

#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

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
             "Model isn't supported",
             "The model 'x' has reached its end of life on 2026-01-01",
             "This model version has reached the end of its life.",
             "model 'x' was removed on September 15, 2025",
             "org/bad:1 has been sunset",
             "Model disabled.",
             "org/bad:1 does not support chat",
             "model org/bad:1 is not in the list of available models",
             "'org/bad:1' is not one of ['good'] - 'model'",
             "No access to model: org/bad:1",
             "No models loaded. Please load a model in the developer page",
             "No allowed providers are available for the selected model.",
             "could not find real modelID for org/bad:1",
             "no router for requested model",
             "You don't have access to the model with the specified model ID.",
             "Could not resolve the foundation model from the identifier",
             "Invocation of model ID org/bad:1 with on-demand throughput "
             "isn\xE2\x80\x99t supported.",
             "The chatCompletion operation does not work with the specified "
             "model, org/bad:1.",
             "Your account 1 has not activated the model org/bad:1.",
             "key not allowed to access model. Tried to access org/bad:1",
             "Function '9b96341b': Not found for account 'x'",
             "Only vicuna&&chatglm allowed now, your model org/bad:1",
             "您无权访问 org/bad:1。",
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
          "unsupported_model", "ModelNotFoundError", "ModelNotOpen",
          "key_model_access_denied"}) {
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
             R"({"detail": {"error": "Model is not available"}})",
             "could not find real modelID for org/bad:1\n",
             R"({"detail": [{"type": "literal_error", "loc": ["body", "model"],
                             "msg": "Input should be 'a' or 'b'"}]})",
             R"({"error": {"message": "This is not a chat model and thus not
                           supported here", "param": "model"}})",
             R"({"error": {"message": "Model Not Exist", "param": "None",
                           "type": "invalid_request_error", "code": "400"}})",
         }) {
        EXPECT_TRUE(is_missing(404, body)) << body;
    }
}

TEST_F(MissingModelTest, WithAnotherStatus)
{
    EXPECT_TRUE(is_missing(401, R"({"error": {"code": "401", "param": "model",
        "type": "team_model_access_denied", "message": "x"}})"));
    EXPECT_FALSE(is_missing(401, message("Invalid model key")));

    EXPECT_TRUE(is_missing(503, message("当前分组 default 下对于模型 org/bad:1 "
                                        "无可用渠道 (request id: 1)")));
    EXPECT_TRUE(is_missing(503, message("No available channel for model x")));
    EXPECT_FALSE(is_missing(503, message("The model is not available")));
}

TEST_F(MissingModelTest, SomethingElse)
{
    for (auto text : {
             "Content removed: the model refused",
             "Unexpected error: model org/bad:1 crashed",
             "The model has blocked the prompt",
             "The model is not allowed to call tools",
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
    EXPECT_FALSE(is_missing(
        403, message("Insufficient balance: model x is not available")));
    EXPECT_FALSE(is_missing(400, R"({"error": {"param": "tools",
        "message": "This model is not supported"}})"));
}

}  // namespace
}  // namespace chatbot
