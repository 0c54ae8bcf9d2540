#pragma once

#include <algorithm>
#include <chrono>

#include "core/poller.hpp"

namespace chatbot {

// What is known of a cache: up, or down since some failures.  A cache that is
// down is not asked; a probe at growing intervals finds out when it is back.
class CacheHealth {
public:
    [[nodiscard]] bool up() const { return up_; }

    // Whether a probe is due.  The caller then makes one, and reports how it
    // ended; until then no other is due.
    [[nodiscard]] bool take_probe(Clock::time_point now)
    {
        if (up_ || now < probe_at_) {
            return false;
        }
        probe_at_ = Clock::time_point::max();
        return true;
    }

    // When the next probe is due; max() if none is.
    [[nodiscard]] Clock::time_point probe_at() const { return probe_at_; }

    void on_success()
    {
        up_ = true;
        backoff_ = {};
        probe_at_ = Clock::time_point::max();
    }

    void on_failure(Clock::time_point now)
    {
        up_ = false;
        backoff_ = std::clamp(2 * backoff_, min_backoff, max_backoff);
        probe_at_ = now + backoff_;
    }

    static constexpr std::chrono::milliseconds min_backoff{100};
    static constexpr std::chrono::milliseconds max_backoff{5000};

private:
    bool up_ = true;
    std::chrono::milliseconds backoff_{0};
    Clock::time_point probe_at_ = Clock::time_point::max();
};

}  // namespace chatbot
