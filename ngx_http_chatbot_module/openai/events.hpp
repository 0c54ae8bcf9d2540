#pragma once

#include <string>
#include <string_view>

namespace chatbot {

// The events of a stream for clients of the API, as they came, or made of a
// reply in one piece.  (join.hpp makes a reply of events.)
//
// They are kept one behind the other, "data: {...}\n\n" each.  That of the
// usage, which a client gets only if it asked for it, starts with "usage: "
// instead.
//
// Threads:  functions without state; call them anywhere.

inline constexpr std::string_view data_mark = "data: ";
inline constexpr std::string_view usage_mark = "usage: ";
inline constexpr std::string_view event_end = "\n\n";

// Appends one event; `data` is JSON.
void append_event(std::string& events, std::string_view data);

// Appends the data of an event, and its end.
void append_on_one_line(std::string& events, std::string_view json);

// The events that a reply in one piece would have been.
[[nodiscard]] std::string split_reply(std::string_view reply);

}  // namespace chatbot
