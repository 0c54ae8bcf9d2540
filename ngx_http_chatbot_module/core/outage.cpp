#include "core/outage.hpp"

#include <algorithm>
#include <utility>

namespace chatbot {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr minutes turn_time(1);

// After so long an outage is told next.
Clock::duration next_age(Clock::duration age)
{
    if (age < minutes(1)) {
        return minutes(1);
    }
    if (age < minutes(10)) {
        return minutes(10);
    }
    return std::chrono::floor<hours>(age) + hours(1);
}

std::string lasting(Clock::duration time)
{
    return in_words(std::chrono::floor<seconds>(time));
}

}  // namespace

std::string in_words(seconds time)
{
    constexpr std::pair<long, const char*> units[] = {
        {24 * 3600, " days"}, {3600, " h"}, {60, " min"}, {1, " s"}};

    const auto n = static_cast<long>(time.count());
    const auto* unit = std::find_if(
        std::begin(units), std::end(units) - 1, [n](const auto& each) {
            return n >= (each.first > 3600 ? 2 : 1) * each.first;
        });
    return std::to_string(n / unit->first) + unit->second;
}

std::string Outage::fail(const std::string& reason, Clock::time_point now)
{
    if (!std::exchange(failing_, true)) {
        since_ = now;
        told_ = false;
        reasons_.clear();
    }

    if (!told_) {
        if (!take_turn(now)) {
            return "";
        }
        told_ = true;
        again_at_ = since_ + next_age(now - since_);
        reasons_.insert(reason);
        return reason;
    }
    if (now >= again_at_) {
        again_at_ = since_ + next_age(now - since_);
        return reason + " (for " + lasting(now - since_) + ")";
    }
    return reasons_.size() < max_reasons && reasons_.insert(reason).second
               ? reason
               : "";
}

std::string Outage::recover(const std::string& text, Clock::time_point now)
{
    return std::exchange(failing_, false) && told_
               ? text + " after " + lasting(now - since_)
               : "";
}

// Each minute there is one more, up to `burst`.
bool Outage::take_turn(Clock::time_point now)
{
    const auto more = (now - turns_at_) / turn_time;
    if (more > 0) {
        turns_ = static_cast<int>(std::min<long>(burst, turns_ + more));
        turns_at_ = now;
    }
    if (turns_ == 0) {
        return false;
    }
    turns_--;
    return true;
}

}  // namespace chatbot
