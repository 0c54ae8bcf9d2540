#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <unordered_map>

#include "core/exchange.hpp"
#include "text/digest.hpp"

namespace chatbot {

// How streams name answers, so that a client that was cut off can go on.  A
// flight has a name from its start; a whole answer is named by its text, so
// that its name is the same in all workers and on all hosts.
//
// Threads:  event loop only.
// Memory:   the last max_known flights are known by both names.
class AnswerNames {
public:
    // `prefix` is unique among workers.
    explicit AnswerNames(std::string prefix)
        : prefix_(std::move(prefix))
    {
    }

    [[nodiscard]] std::string of(FlightId flight) const
    {
        return prefix_ + std::to_string(flight);
    }

    [[nodiscard]] static std::string of(const Answer& answer)
    {
        return hex(digest({answer.text})).substr(0, 16);
    }

    // The flight has landed with that answer.
    void remember(const std::string& flight, const std::string& answer)
    {
        if (!known_.emplace(flight, answer).second) {
            return;
        }
        order_.push_back(flight);
        if (order_.size() > max_known) {
            known_.erase(order_.front());
            order_.pop_front();
        }
    }

    // Whether `name`, of a flight or of an answer, means `answer`.
    [[nodiscard]] bool means(const std::string& name,
                             const std::string& answer) const
    {
        auto found = known_.find(name);
        return name == answer ||
               (found != known_.end() && found->second == answer);
    }

    static constexpr std::size_t max_known = 4096;

private:
    const std::string prefix_;
    std::unordered_map<std::string, std::string> known_;
    std::deque<std::string> order_;
};

}  // namespace chatbot
