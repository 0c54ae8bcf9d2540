#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"

namespace chatbot {

// The question in what a client sent.
//
// Threads:  functions without state; call them anywhere.

// The longest body that is read: a question of which each byte is escaped as
// \uXXXX, and room for all else.
[[nodiscard]] constexpr std::size_t max_body_size(std::size_t query_max_size)
{
    return 6 * query_max_size + 16 * 1024;
}

// Whether a body of so many bytes is read: 413 if it is too long, 415 if it is
// compressed.
[[nodiscard]] Problem check_body(std::size_t size,
                                 std::string_view content_encoding,
                                 std::size_t query_max_size);

// Takes the member or field "query" out of the body of a POST.  An absent one
// (and an empty body) leaves `query` alone; of several the last counts. Returns
// the problem: 400 for a body that is malformed, 415 for a type that is neither
// JSON nor a form, and for a charset other than UTF-8, 422 for a member that is
// no string.
[[nodiscard]] Problem query_from_body(std::string_view content_type,
                                      std::string_view body,
                                      std::optional<std::string>& query);

// Whether the question can be asked: 422 if there is none or it is blank, 400
// if it is not UTF-8 or contains U+0000, 413 if it is longer than `max_size`
// bytes.
[[nodiscard]] Problem check_query(const std::optional<std::string>& query,
                                  std::size_t max_size);

}  // namespace chatbot
