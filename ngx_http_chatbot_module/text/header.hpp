#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chatbot {

// Values of header fields such as Content-Type and Content-Disposition: a word,
// and parameters behind it (RFC 9110, section 5.6.6).  Nothing is refused: what
// is no parameter is passed over.
//
// Threads:  functions without state; call them anywhere.

// The word before the parameters, in lower case.
[[nodiscard]] std::string header_word(std::string_view value);

// The first parameter of this name, which must be in lower case; its value as
// it stands there, or without the quotes and escapes of a quoted string.
[[nodiscard]] std::optional<std::string> header_parameter(
    std::string_view value, std::string_view name);

}  // namespace chatbot
