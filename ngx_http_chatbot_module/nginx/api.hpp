#pragma once

#include <string_view>

#include "nginx/chatbot.hpp"

namespace chatbot {

// The name of the client whose key stands in the request; empty if it has none
// of the keys in "chatbot_clients".
[[nodiscard]] std::string_view api_client(ngx_http_request_t* r);

}  // namespace chatbot
