#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/exchange.hpp"
#include "core/outage.hpp"
#include "core/poller.hpp"

namespace chatbot {

// The servers that calls with the same settings can go to, and which of them
// are well.
//
// Calls are spread by smooth weighted round robin over the servers that are
// well; a backup is asked only while no other is.  max_fails failures within
// fail_timeout open a server's breaker: it rests for fail_timeout, then one
// call tries it; if that succeeds it is well again.  A key whose quota is spent
// rests until its reset, or for minutes.  While all of them rest, the one whose
// rest ends first is asked.
//
// Threads:  one at a time.  Time is passed in.
class Targets {
public:
    // How a call of a server ended.
    enum class Result {
        ok,      // whatever it answered: the server and the key do their work
        failed,  // the server's fault
        spent,   // the key's fault: refused, or no money left
        nothing  // it was given up; nothing is known
    };

    struct Choice {
        std::size_t server;
        bool trial;  // of a server that was not well
    };

    // A server alone is always asked.  `notices` get what changes.
    Targets(std::vector<ModelServer> servers, std::vector<Notice>& notices);

    [[nodiscard]] const ModelServer& server(std::size_t index) const
    {
        return servers_[index].what;
    }

    // Where to send a call that these did not serve; nothing once there is no
    // other.  Each choice is to be followed by one report().
    [[nodiscard]] std::optional<Choice> choose(
        const std::set<std::size_t>& tried, Clock::time_point now);

    // Whether choose() would find a server that is well.
    [[nodiscard]] bool has_other(const std::set<std::size_t>& tried,
                                 Clock::time_point now) const;

    // `rest` is how long the server is not to be asked, if it said so.
    void report(const Choice& choice, Result result, Clock::time_point now,
                std::optional<std::chrono::milliseconds> rest = {},
                const std::string& reason = {});

    static constexpr std::chrono::minutes spent_rest{5};

private:
    struct Server {
        ModelServer what;
        int current = 0;  // of the smooth round robin
        int fails = 0;    // since `first_fail`
        Clock::time_point first_fail{};
        bool open = false;
        Clock::time_point until{};  // while open: when it may be tried
        int calls = 0;              // chosen, and not yet reported
        int trials = 0;             // those of them that try it
        Outage outage{};
    };

    [[nodiscard]] static bool is_well(const Server& server,
                                      Clock::time_point now);
    [[nodiscard]] Server* choose_due(const std::set<std::size_t>& tried,
                                     Clock::time_point now);
    [[nodiscard]] Server* choose_well(const std::set<std::size_t>& tried,
                                      bool backup, Clock::time_point now);
    [[nodiscard]] Server* choose_resting(const std::set<std::size_t>& tried);
    void open(Server& server, Clock::time_point now,
              std::chrono::milliseconds rest, const std::string& reason);
    void close(Server& server, Clock::time_point now);
    void count_failure(Server& server, Clock::time_point now,
                       std::optional<std::chrono::milliseconds> rest,
                       const std::string& reason);

    std::vector<Server> servers_;
    std::vector<Notice>& notices_;
};

}  // namespace chatbot
