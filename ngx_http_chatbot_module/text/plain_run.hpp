#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace chatbot {

// Runs of characters in a JSON string that stand for themselves.
//
// Threads:  functions without state; call them anywhere.

// Whether one of eight bytes may be a quote, a backslash or a control
// character: no such byte is missed.
// (https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord)
[[nodiscard]] inline bool may_end_plain(std::uint64_t word)
{
    constexpr std::uint64_t ones = 0x0101010101010101;
    constexpr std::uint64_t highs = 0x8080808080808080;

    const auto has_less = [](std::uint64_t bytes, std::uint64_t limit) {
        return (bytes - ones * limit) & ~bytes & highs;
    };
    return (has_less(word, 0x20) | has_less(word ^ ones * '"', 1) |
            has_less(word ^ ones * '\\', 1)) != 0;
}

// Where the run of plain characters of a string ends: at a quote, a backslash,
// a control character, or the end of the text.
[[nodiscard]] inline std::size_t plain_length(std::string_view text)
{
    std::size_t at = 0;
    std::uint64_t word;
    while (text.size() - at >= sizeof(word)) {
        std::memcpy(&word, text.data() + at, sizeof(word));
        if (may_end_plain(word)) {
            break;
        }
        at += sizeof(word);
    }
    while (at < text.size()) {
        auto c = static_cast<unsigned char>(text[at]);
        if (c == '"' || c == '\\' || c < 0x20) {
            break;
        }
        ++at;
    }
    return at;
}

}  // namespace chatbot
