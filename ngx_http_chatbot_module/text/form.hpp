#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chatbot {

// Percent-encoding, and forms of the type application/x-www-form-urlencoded.
//
// Threads:  functions without state; call them anywhere.

// The byte that the escape "%XX" which `text` starts with stands for; -1 if it
// starts with none.
[[nodiscard]] int read_escape(std::string_view text);

// Decodes one name or value of application/x-www-form-urlencoded as the WHATWG
// URL standard does: "+" is a space, "%XX" a byte, and a "%" that starts no
// escape stays as it is.
[[nodiscard]] std::string decode_form(std::string_view text);

// `text` with "%XX" for each control character of ASCII and each "%", so that
// it can stand in a header, and different texts stay different.
[[nodiscard]] std::string encode_controls(std::string_view text);

// The decoded value of the last member `name` of an application/
// x-www-form-urlencoded text, such as the arguments of a URI.
[[nodiscard]] std::optional<std::string> form_member(std::string_view form,
                                                     std::string_view name);

}  // namespace chatbot
