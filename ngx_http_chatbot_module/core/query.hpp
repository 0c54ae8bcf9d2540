#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"

namespace chatbot {

// The question: found in what a client sent, written for a header.
//
// Threads:  functions without state; call them anywhere.

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

// Takes the member "query" out of the body of a POST.  An absent member (and an
// empty body) leaves `query` alone.  Returns the problem: 400 for JSON that is
// none, 415 for a type that is neither JSON nor a form, 422 for a member that
// is no string.
[[nodiscard]] Problem query_from_body(std::string_view content_type,
                                      std::string_view body,
                                      std::optional<std::string>& query);

// Whether the question can be asked: 422 if there is none or it is blank, 400
// if it is not UTF-8 or contains U+0000, 413 if it is longer than `max_size`
// bytes.
[[nodiscard]] Problem check_query(const std::optional<std::string>& query,
                                  std::size_t max_size);

}  // namespace chatbot
