#pragma once

#include <string>
#include <string_view>

#include "nginx/chatbot.hpp"

// "chatbot_upstream": several servers of an API, by a name.

namespace chatbot {

// Reads the block.
char* set_upstream(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

// Whether `text` can be the name of one, and not a URL.
[[nodiscard]] bool is_upstream_name(std::string_view text);

// Takes the servers of the upstream that chatbot_pass names; what they leave
// open, `model` has.
char* use_upstream(ngx_conf_t* cf, std::string_view name, ModelSettings& model);

// directives.cpp: follows env:NAME and file:PATH.
char* resolve_value(ngx_conf_t* cf, ngx_str_t& value);

// Why no model can be asked at a URL, as far as that can be told; the base URL
// of what may be the whole address of an API.
[[nodiscard]] const char* wrong_url(std::string url);
[[nodiscard]] std::string base_url(std::string_view url);

}  // namespace chatbot
