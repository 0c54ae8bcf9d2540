#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"
#include "openai/error.hpp"

namespace chatbot {

// Replies to a client of the API, which gets them as they came: in one piece or
// as a stream, and each made from the other where a cached reply, or one that
// others asked for too, comes in the other form.
//
// The events of a stream are kept one behind the other, "data: {...}\n\n" each.
// That of the usage, which a client gets only if it asked for it, starts with
// "usage: " instead.
//
// Threads:  functions without state; call them anywhere.

inline constexpr std::string_view data_mark = "data: ";
inline constexpr std::string_view usage_mark = "usage: ";

// Appends one event; `data` is JSON.
void append_event(std::string& events, std::string_view data);

// Appends the data of an event, and its end.
void append_on_one_line(std::string& events, std::string_view json);

// The reply in one piece that the events add up to; empty if they do not.
[[nodiscard]] std::string join_events(std::string_view events);

// The events that a reply in one piece would have been.
[[nodiscard]] std::string split_reply(std::string_view reply);

// What a reply of status 2xx in one piece says: all of it in `reply`, and the
// text, or the calls of tools, of its first choice.  On failure `error` is set,
// see read_reply().
[[nodiscard]] std::optional<Answer> read_api_reply(std::string reply,
                                                   ReplyError& error,
                                                   std::string_view request);

// The body of POST /chat/completions for a call of the API.
[[nodiscard]] std::string api_body(const ApiCall& call, bool stream,
                                   bool with_stream_options);

}  // namespace chatbot
