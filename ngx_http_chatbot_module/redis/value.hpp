#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"

namespace chatbot {

// The value under which an answer is kept, and back; nothing if `value` is no
// such value.
[[nodiscard]] std::string write_cache_value(const Answer& answer);
[[nodiscard]] std::optional<Answer> read_cache_value(std::string_view value);

}  // namespace chatbot
