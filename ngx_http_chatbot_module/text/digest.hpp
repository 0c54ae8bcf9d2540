#pragma once

#include <array>
#include <initializer_list>
#include <string>
#include <string_view>

namespace chatbot {

// SHA-256, which names equal things.
//
// Threads:  functions without state; call them anywhere.

using Digest = std::array<unsigned char, 32>;

// SHA-256 of the parts; where one part ends and the next starts counts, so
// ("ab", "c") and ("a", "bc") differ.
[[nodiscard]] Digest digest(std::initializer_list<std::string_view> parts);

// SHA-256 of the text alone, as other programs know it.
[[nodiscard]] Digest sha256(std::string_view text);

// HMAC-SHA-256 (RFC 2104): without the key the text cannot be found out, even
// if it is one of few.
[[nodiscard]] Digest hmac(std::string_view key, std::string_view text);

// The digest in hex, in small letters.
[[nodiscard]] std::string hex(const Digest& digest);

}  // namespace chatbot
