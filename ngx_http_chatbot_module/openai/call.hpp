#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/exchange.hpp"
#include "openai/alarms.hpp"
#include "openai/attempt.hpp"
#include "openai/multi.hpp"
#include "openai/outcome.hpp"
#include "openai/targets.hpp"

namespace chatbot {

// A question of a model, from ask() to its last event.
struct Call {
    enum class Stage {
        resolving,     // the address of the host is looked up
        queued,        // for one of the connections there may be
        transferring,  // an attempt is under way
        resting,       // until the next attempt
        ending,        // soon told, or tried again
    };

    // Throws std::bad_alloc.
    Call(ModelCall&& what, Targets& where, Alarms& alarms)
        : ask(std::move(what)),
          alarm(alarms, *this),
          targets(where)
    {
    }

    const ModelSettings& settings() const { return *ask.settings; }

    // REQUIRES: one is chosen.
    const ModelServer& server() const { return targets.server(choice->server); }

    // In milliseconds.
    int since_taken(Clock::time_point when) const
    {
        return static_cast<int>((when - taken) / std::chrono::milliseconds(1));
    }

    void set_stage(Stage next, Clock::time_point until) noexcept
    {
        stage = next;
        due = std::min(until, deadline);
        wake_at(due);
    }

    // An alarm that comes too early is set anew: most calls end before theirs.
    void wake_at(Clock::time_point at) noexcept
    {
        if (at < alarm.at()) {
            alarm.set(at);
        }
    }

    ModelCall ask;
    const Clock::time_point taken = Clock::now();
    const Clock::time_point deadline =
        taken + std::chrono::milliseconds(settings().timeout_ms);

    Stage stage = Stage::resolving;
    Clock::time_point due;  // when the stage has ended, or takes too long
    Alarms::Alarm alarm;
    Outcome outcome;                   // while ending
    std::unique_ptr<Attempt> attempt;  // while transferring
    Multi* multi = nullptr;            // of the attempt
    std::size_t told = 0;  // bytes of the answer; if any, there is no way back

    // Written by the Policy.
    Targets& targets;
    std::optional<Targets::Choice> choice;  // until the server did or did not
    std::set<std::size_t> tried;            // servers that did not serve it
    std::string model;                      // asked of the server
    std::set<std::string> missing;          // asked in vain of the server
    std::vector<std::string> left_out;      // members of the request
    int retries = 0;
    CallReport report{.attempts = 0};
};

}  // namespace chatbot
