#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"
#include "openai/error.hpp"

namespace chatbot {

// Replies of OpenAI's POST /responses, which clients get as they came.
// (https://platform.openai.com/docs/api-reference/responses)
//
// Threads:  functions without state; call them anywhere.

// What an event of a stream says of its end.
struct ResponseEvent {
    enum class End { none, whole, failed };

    End end = End::none;
    std::string_view response{};  // as written; a part of the event's data
};
[[nodiscard]] ResponseEvent read_response_event(std::string_view data);

// Appends an event; `data` is JSON.
void append_relayed(std::string& events, std::string_view name,
                    std::string_view data);

// Whether the last of these events tells that the response has failed.
[[nodiscard]] bool ends_in_failure(std::string_view events);

// The event that ends a stream with a reply in one piece.
[[nodiscard]] std::string completed_event(std::string_view reply);

// What a reply says: all of it in `reply` and as `events`, and its text, or
// else its output as JSON.  On failure `error` is set, see read_reply().
[[nodiscard]] std::optional<Answer> read_response(std::string reply,
                                                  ReplyError& error,
                                                  std::string_view request);

}  // namespace chatbot
