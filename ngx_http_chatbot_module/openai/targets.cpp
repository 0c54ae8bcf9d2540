#include "openai/targets.hpp"

#include <algorithm>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds max_rest = std::chrono::hours(1);

}  // namespace

Targets::Targets(std::vector<ModelServer> servers, std::vector<Notice>& notices)
    : notices_(notices)
{
    for (auto& server : servers) {
        servers_.push_back({.what = std::move(server)});
    }
}

// A server whose rest is over is well for one call, which tries it.
bool Targets::is_well(const Server& server, Clock::time_point now)
{
    return !server.open || (now >= server.until && server.trials == 0);
}

std::optional<Targets::Choice> Targets::choose(
    const std::set<std::size_t>& tried, Clock::time_point now)
{
    Server* chosen = choose_due(tried, now);
    chosen = chosen ? chosen : choose_well(tried, false, now);
    chosen = chosen ? chosen : choose_well(tried, true, now);
    chosen = chosen ? chosen : choose_resting(tried);
    if (!chosen) {
        return std::nullopt;
    }

    const bool trial = chosen->open;
    const auto index = static_cast<std::size_t>(chosen - servers_.data());
    invariant(!tried.contains(index), "a server is chosen that was tried");
    chosen->calls++;
    chosen->trials += trial;
    return Choice{index, trial};
}

bool Targets::has_other(const std::set<std::size_t>& tried,
                        Clock::time_point now) const
{
    for (std::size_t i = 0; i < servers_.size(); ++i) {
        if (!tried.contains(i) && is_well(servers_[i], now)) {
            return true;
        }
    }
    return false;
}

// A server whose rest is over is tried at once.
Targets::Server* Targets::choose_due(const std::set<std::size_t>& tried,
                                     Clock::time_point now)
{
    for (std::size_t i = 0; i < servers_.size(); ++i) {
        auto& server = servers_[i];
        if (server.open && !server.what.backup && !tried.contains(i) &&
            is_well(server, now)) {
            return &server;
        }
    }
    return nullptr;
}

// Smooth weighted round robin, as nginx does it: each gains its weight, the
// first of those with the most is chosen, and pays what all have gained.
Targets::Server* Targets::choose_well(const std::set<std::size_t>& tried,
                                      bool backup, Clock::time_point now)
{
    Server* best = nullptr;
    int total = 0;
    for (std::size_t i = 0; i < servers_.size(); ++i) {
        auto& server = servers_[i];
        if (server.what.backup != backup || tried.contains(i) ||
            !is_well(server, now)) {
            continue;
        }
        server.current += server.what.weight;
        total += server.what.weight;
        if (!best || server.current > best->current) {
            best = &server;
        }
    }
    if (best) {
        best->current -= total;
    }
    return best;
}

Targets::Server* Targets::choose_resting(const std::set<std::size_t>& tried)
{
    Server* best = nullptr;
    for (std::size_t i = 0; i < servers_.size(); ++i) {
        auto& server = servers_[i];
        if (!tried.contains(i) && (!best || server.until < best->until)) {
            best = &server;
        }
    }
    return best;
}

void Targets::report(const Choice& choice, Result result, Clock::time_point now,
                     std::optional<milliseconds> rest,
                     const std::string& reason)
{
    auto& server = servers_[choice.server];
    if (!invariant(server.calls > 0 && server.trials >= choice.trial,
                   "the end of a call that was not begun")) {
        return;
    }
    server.calls--;
    server.trials -= choice.trial;
    if (servers_.size() == 1) {
        return;
    }

    switch (result) {
        case Result::ok:
            // An answer to a call from before the breaker opened says nothing.
            if (choice.trial || !server.open) {
                server.fails = 0;
                close(server, now);
            }
            return;
        case Result::failed:
            count_failure(server, now, rest, reason);
            return;
        case Result::spent:
            open(server, now, rest.value_or(spent_rest), reason);
            return;
        case Result::nothing:
            return;
    }
}

void Targets::count_failure(Server& server, Clock::time_point now,
                            std::optional<milliseconds> rest,
                            const std::string& reason)
{
    const milliseconds window{server.what.fail_timeout_ms};
    if (server.what.max_fails == 0) {
        return;
    }
    if (server.fails == 0 || now - server.first_fail > window) {
        server.fails = 0;
        server.first_fail = now;
    }
    if (++server.fails >= server.what.max_fails || server.open) {
        open(server, now, std::max(window, rest.value_or(window)), reason);
    }
}

// A failure of a call from before the breaker opened prolongs nothing.
void Targets::open(Server& server, Clock::time_point now, milliseconds rest,
                   const std::string& reason)
{
    if (server.open && now < server.until) {
        return;
    }

    const bool again = std::exchange(server.open, true);
    rest = std::min(rest, max_rest);
    server.until = now + rest;
    server.fails = 0;
    const auto rest_s = std::chrono::ceil<std::chrono::seconds>(rest).count();
    const auto why = server.outage.fail(reason, now);
    notices_.push_back({.level = Notice::Level::warn,
                        .text = why.empty()
                                    ? ""
                                    : "server " + server.what.name +
                                          (again ? " still" : "") +
                                          " is not asked for " +
                                          std::to_string(rest_s) + " s: " + why,
                        .change = {.kind = Change::Kind::breaker_opened,
                                   .server = server.what.name,
                                   .group = this,
                                   .rest_s = static_cast<int>(rest_s)}});
}

void Targets::close(Server& server, Clock::time_point now)
{
    if (std::exchange(server.open, false)) {
        notices_.push_back(
            {.level = Notice::Level::notice,
             .text = server.outage.recover(
                 "server " + server.what.name + " is asked again", now),
             .change = {.kind = Change::Kind::breaker_closed,
                        .server = server.what.name,
                        .group = this}});
    }
}

}  // namespace chatbot
