#pragma once

#include <cstddef>
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

// -1 if it is none.
[[nodiscard]] constexpr int read_hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    const char small = static_cast<char>(c | 0x20);
    return small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

// The number that the first `size` characters of `text` are, in either case; -1
// if they are not all digits.
[[nodiscard]] inline int read_hex(std::string_view text, std::size_t size)
{
    if (text.size() < size) {
        return -1;
    }

    int number = 0;
    for (char c : text.substr(0, size)) {
        const int digit = read_hex_digit(c);
        if (digit < 0) {
            return -1;
        }
        number = number << 4 | digit;
    }
    return number;
}

}  // namespace chatbot
