#pragma once

#include <chrono>
#include <random>
#include <unordered_map>
#include <vector>

#include "core/exchange.hpp"
#include "openai/call.hpp"
#include "openai/knowledge.hpp"
#include "openai/outcome.hpp"
#include "openai/targets.hpp"

namespace chatbot {

// The servers that calls with these settings go to: one at least.
[[nodiscard]] std::vector<ModelServer> servers_of(
    const ModelSettings& settings);

// What it is called where calls are told of.
[[nodiscard]] std::string told_name(const ModelServer& server);

// Decides where a call goes, and what comes after an attempt that has ended:
// which server is asked for which model, how often, and when.  Does no I/O.
//
// Threads:  one at a time.
class Policy {
public:
    // What comes next for a call.
    struct Next {
        enum class Kind { end, at_once, later };

        Kind kind = Kind::end;
        Clock::time_point at{};  // later
    };

    // `notices` get what is learned.
    explicit Policy(std::vector<Notice>& notices);

    // The servers for such calls.  Throws std::bad_alloc.
    [[nodiscard]] Targets& targets_of(const ModelSettings& settings);

    // Chooses server and model, unless the call stays where it is; false: there
    // is none.  Throws std::bad_alloc.
    [[nodiscard]] bool choose(Call& call);

    // Without memory to go on, the call ends.
    [[nodiscard]] Next after(Call& call, const Outcome& outcome) noexcept;

    // The call has left the server it was at; nothing is known of that one.
    void give_up(Call& call) noexcept;

private:
    bool choose_model(Call& call);
    void ask_model(Call& call, const std::string& model);
    bool ask_without(Call& call, const Outcome& outcome);
    bool ask_other_model(Call& call, const Outcome& outcome);
    void report(Call& call, const Outcome& outcome);
    static void note(Call& call, const Outcome& outcome);
    bool ask_other_server(Call& call, const Outcome& outcome);
    Next ask_again(Call& call, const Outcome& outcome);
    std::chrono::milliseconds backoff(int retries);

    std::vector<Notice>& notices_;
    Knowledge knowledge_{notices_};
    std::unordered_map<const ModelSettings*, Targets> targets_;
    std::minstd_rand random_{std::random_device{}()};
};

}  // namespace chatbot
