#pragma once

#include <map>

#include "core/poller.hpp"

namespace chatbot {

struct Call;

// When which call is to be looked at.  Each call has one alarm from its start,
// so that to set it takes no memory.
//
// Threads:  one at a time.
class Alarms {
    using All = std::multimap<Clock::time_point, Call*>;

public:
    static constexpr auto never = Clock::time_point::max();

    // A call's; not set at first.  The Alarms outlive it.
    class Alarm {
    public:
        // Throws std::bad_alloc.
        Alarm(Alarms& alarms, Call& call)
            : all_(alarms.all_),
              place_(all_.emplace(never, &call))
        {
        }
        ~Alarm() { all_.erase(place_); }

        Alarm(const Alarm&) = delete;
        Alarm& operator=(const Alarm&) = delete;

        [[nodiscard]] Clock::time_point at() const { return place_->first; }

        void set(Clock::time_point at) noexcept
        {
            auto node = all_.extract(place_);
            node.key() = at;
            place_ = all_.insert(std::move(node));
        }

    private:
        All& all_;
        All::iterator place_;
    };

    [[nodiscard]] Clock::time_point earliest() const
    {
        return all_.empty() ? never : all_.begin()->first;
    }

    // The call whose alarm came first, if that is due; it is no longer set.
    [[nodiscard]] Call* take_due(Clock::time_point now);

private:
    All all_;
};

}  // namespace chatbot
