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
