#pragma once

#include <cstddef>
#include <charconv>
#include <string>
#include <string_view>

namespace chatbot {

// Hexadecimal digits, read and written.
//
// Threads:  functions without state; call them anywhere.

// Appends a byte as two digits; `ten` is the digit for 10: 'a' or 'A'.
inline void append_hex(std::string& out, unsigned char byte, char ten = 'a')
{
    for (int digit : {byte >> 4, byte & 15}) {
        out += static_cast<char>(digit < 10 ? '0' + digit : ten + digit - 10);
    }
}

// The number that the first `size` characters of `text` are, in either case; -1
// if they are not all digits.
[[nodiscard]] inline int read_hex(std::string_view text, std::size_t size)
{
    if (text.size() < size) {
        return -1;
    }

    unsigned number = 0;
    const char* end = text.data() + size;
    return std::from_chars(text.data(), end, number, 16).ptr == end
               ? static_cast<int>(number)
               : -1;
}

}  // namespace chatbot
