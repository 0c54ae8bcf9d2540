#pragma once

#include <chrono>
#include <ctime>
#include <optional>
#include <string_view>

namespace chatbot {

// How long to wait before a service is asked again, as its headers say.
//
// Threads:  functions without state; call them anywhere.

// Retry-After-Ms, in milliseconds; fractions are allowed.
[[nodiscard]] std::optional<std::chrono::milliseconds> read_milliseconds(
    std::string_view value);

// Retry-After in seconds, X-RateLimit-Reset: seconds ("30", "1.5"), a duration
// ("6m0s", "1h2m", "120ms"), or a point in time in seconds or milliseconds
// since the epoch.  What is in the past, or more than a day away, is cut.
[[nodiscard]] std::optional<std::chrono::milliseconds> read_reset(
    std::string_view value, std::time_t now);

}  // namespace chatbot
