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

// The weight ("q", from 0 to 1) of a type in an Accept header: 1 if none is
// told, 0 if the type is not listed by its name (RFC 9110, section 12.5.1).
[[nodiscard]] double accepted_weight(std::string_view accept,
                                     std::string_view type);

}  // namespace chatbot
