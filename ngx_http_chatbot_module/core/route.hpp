#pragma once

#include <cstddef>

#include "core/errands.hpp"
#include "core/exchange.hpp"

namespace chatbot {

// Where the questions of one location go.  Belongs to the configuration: made
// once, then only read, and alive as long as the worker process.
struct Route {
    static constexpr std::size_t none = Errand::no_cache;

    const ModelSettings* model = nullptr;
    std::size_t cache = none;    // which of the caches
    std::size_t journal = none;  // which of the journals
    int cache_timeout_ms = 250;
    int cache_valid_s = 3600;
    bool cache_lock = true;
    bool cancel_abandoned = false;  // a call whose last waiter left

    bool operator==(const Route&) const = default;
};

}  // namespace chatbot
