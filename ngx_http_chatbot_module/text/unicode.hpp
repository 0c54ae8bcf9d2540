#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace chatbot {

// Text as Unicode sees it: checks, trimming, caseless comparison, lines for a
// log.  Clients choose the text, so each function takes linear time (fold() n
// log n, of combining marks), whatever the bytes are.
//
// Threads:  functions without state; call them anywhere.

// Whether `text` is well-formed UTF-8 (RFC 3629: no overlong forms, no
// surrogates, nothing above U+10FFFF).  U+0000 is well-formed.
[[nodiscard]] bool is_utf8(std::string_view text);

// Whether `text` contains a character from U+0000 to U+001F.
[[nodiscard]] bool has_controls(std::string_view text);

// How many bytes of well-formed UTF-8 `text` starts with.
[[nodiscard]] std::size_t utf8_prefix(std::string_view text);

// `text` with each ill-formed sequence and each U+0000 replaced by U+FFFD.
[[nodiscard]] std::string to_utf8(std::string_view text);

// What another machine said, as it may stand in a log: UTF-8, in one line and
// without control characters (each run of these and of white space is one
// space, or nothing at both ends), cut after a character to at most `max_size`
// bytes.
[[nodiscard]] std::string one_line(std::string_view text, std::size_t max_size);

// `text`, which must be UTF-8, without white space (Unicode's White_Space) at
// both ends.
[[nodiscard]] std::string_view trim(std::string_view text);

// `text` with small letters for ASCII's capital ones.
[[nodiscard]] std::string lower_case(std::string_view text);

// `text`, which must be UTF-8, such that two texts that differ in letter case
// only become equal: Unicode's canonical caseless matching (definition D145).
[[nodiscard]] std::string fold(std::string_view text);

// Takes `prefix` off the front of `text`; returns whether it was there.
bool take_prefix(std::string_view& text, std::string_view prefix);

}  // namespace chatbot
