#pragma once

#include <string>
#include <string_view>

#include "core/api_request.hpp"
#include "nginx/chatbot.hpp"

namespace chatbot {

// The endpoint "chatbot_protocol openai": what differs from a chat.

// What a request below the location asks for.
enum class ApiPath { none, completions, models };

[[nodiscard]] ApiPath api_path(const ngx_http_request_t* r);

// Reads a POST of completions; the model is checked, and its alias resolved.
[[nodiscard]] Problem read_api_question(const LocConf& lcf,
                                        std::string_view body,
                                        ApiRequest& request);

// The answer to GET models.
[[nodiscard]] std::string models_json(const LocConf& lcf);

// {"error": {"message", "type", "param", "code"}}
[[nodiscard]] std::string api_error_json(ngx_uint_t status,
                                         const Problem& problem);

// Whether OpenAI's SDKs are to try again.
[[nodiscard]] const char* should_retry(ngx_uint_t status);

// The name of the client whose key stands in the request; empty if it has none
// of the keys in "chatbot_clients".
[[nodiscard]] std::string_view api_client(ngx_http_request_t* r);

// Setters of the directives.
char* set_protocol(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_clients(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_alias(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

}  // namespace chatbot
