#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"
#include "openai/error.hpp"
#include "text/json.hpp"

namespace chatbot {

// Calls of /chat/completions for clients of the API, which get the reply as it
// came.
//
// Threads:  functions without state; call them anywhere.

// The body of the request.
[[nodiscard]] std::string api_body(const ApiCall& call, bool stream,
                                   bool with_stream_options);

// What a reply of status 2xx in one piece says: all of it in `reply` and as
// `events`, and the text, or the calls of tools, of its first choice.  On
// failure `error` is set, see read_reply().
[[nodiscard]] std::optional<Answer> read_api_reply(std::string reply,
                                                   ReplyError& error,
                                                   std::string_view request);

// The same of a reply that was joined; but for `events`.
[[nodiscard]] std::optional<Answer> read_joined_reply(Json reply,
                                                      ReplyError& error,
                                                      std::string_view request);

}  // namespace chatbot
