#pragma once

#include <string>

#include "core/exchange.hpp"

namespace chatbot {

// The address that is asked: the query of the base URL stays at its end.
[[nodiscard]] std::string address_of(const ModelServer& server, ApiPath path);

// The host, and the path that is asked, for the error log: "upstream
// api.openai.com/v1/chat/completions".
[[nodiscard]] std::string upstream(const ModelServer& server,
                                   ApiPath path = ApiPath::completions);

}  // namespace chatbot
