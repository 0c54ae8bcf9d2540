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

}  // namespace chatbot
