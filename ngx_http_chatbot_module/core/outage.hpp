#pragma once

#include <chrono>
#include <cstddef>
#include <set>
#include <string>

#include "core/poller.hpp"

namespace chatbot {

// What to log of something that fails for a while: that it does, and why; the
// same again after 1 min, 10 min, 1 h, and then each hour; another reason, but
// only so many; and when it is over.
//
// Outages in quick succession are told `burst` times, and then once a minute.
// One that was not told does not end with a line, either.
//
// Threads:  one at a time.  Time is passed in.
class Outage {
public:
    // It fails, still or anew.  Returns the line to log; empty: none.
    [[nodiscard]] std::string fail(const std::string& reason,
                                   Clock::time_point now);

    // It does not fail.  Returns `text` and how long it did; empty: nothing is
    // to be logged.
    [[nodiscard]] std::string recover(const std::string& text,
                                      Clock::time_point now);

    static constexpr int burst = 5;
    static constexpr std::size_t max_reasons = 5;  // of an outage

private:
    [[nodiscard]] bool take_turn(Clock::time_point now);

    bool failing_ = false;
    bool told_ = false;  // this one
    Clock::time_point since_{};
    Clock::time_point again_at_{};   // when it is to be told again
    std::set<std::string> reasons_;  // told
    int turns_ = burst;              // that outages may begin with
    Clock::time_point turns_at_{};   // when there was one more
};

// "12 s", "3 min", "5 h", "2 days".
[[nodiscard]] std::string in_words(std::chrono::seconds time);

}  // namespace chatbot
