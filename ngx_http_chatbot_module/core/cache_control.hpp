#pragma once

#include <string_view>

namespace chatbot {

// What a request wants of the cache.
enum class CacheUse {
    usual,
    renew,    // a new answer, which is cached
    nothing,  // a new answer that is neither shared nor cached
};

// Reads the value of a request's Cache-Control (RFC 9111, section 5.2.1):
// "no-cache" and "max-age=0" renew, "no-store" wants nothing of the cache, all
// else is the usual.
[[nodiscard]] CacheUse read_cache_control(std::string_view value);

}  // namespace chatbot
