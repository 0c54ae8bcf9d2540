#pragma once

#include <cstddef>
#include <limits>
#include <string_view>

namespace chatbot {

// JSON by the letter of RFC 8259, which cJSON is not: it takes "01", "1.", and
// control characters in strings.
//
// Threads:  functions without state; call them anywhere.

// Why a text is refused.
struct JsonFault {
    const char* what = nullptr;  // in words for a client; null: no fault
    std::size_t at = 0;          // the bytes before it

    explicit operator bool() const { return what != nullptr; }
};

// Our own limits, which RFC 8259 (section 9) allows.
constexpr std::size_t max_json_depth = 128;
constexpr std::size_t max_json_number = 63;  // characters; cJSON reads no more
constexpr std::size_t any_number_of_values =
    std::numeric_limits<std::size_t>::max();

// The first fault of a text.  Beyond RFC 8259 each string must be text that can
// be kept: no U+0000, no half of a surrogate pair.  Members count as values.
// Takes linear time, no memory, and a bounded stack.
[[nodiscard]] JsonFault check_json(
    std::string_view text, std::size_t max_values = any_number_of_values);

// An escape "\uXXXX", or two that are a surrogate pair.
struct UnicodeEscape {
    std::size_t size = 0;  // in bytes; 0: there is none
    int character = 0;     // half of a surrogate pair stands for itself

    bool is_half() const { return character >= 0xD800 && character < 0xE000; }
};

// Reads the escape that stands at the position `at`.
[[nodiscard]] UnicodeEscape read_unicode_escape(std::string_view text,
                                                std::size_t at);

}  // namespace chatbot
