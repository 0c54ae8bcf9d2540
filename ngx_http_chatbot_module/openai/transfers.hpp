#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/exchange.hpp"
#include "core/poller.hpp"
#include "core/resolver.hpp"
#include "openai/alarms.hpp"
#include "openai/call.hpp"
#include "openai/handles.hpp"
#include "openai/multis.hpp"
#include "openai/origin.hpp"
#include "openai/policy.hpp"

namespace chatbot {

// All calls of one worker process to OpenAI-compatible APIs, by libcurl's
// socket interface: only transfers with events are touched, so the cost of an
// event does not depend on how many calls are in flight.
//
// Threads:  all on the thread of the poller.
// Promise:  every call given to ask() ends in exactly one event `answered` or
//           `failed`, at the latest settings->timeout_ms after it was taken, as
//           long as on_time() is called when the deadline() has come.
// Memory:   bounded per call: of a reply, 6 * settings->answer_max_size and 320
//           KiB are kept at most.  A stream may bring more, until the timeout,
//           but only its answer and the event not yet ended are kept.  Parsing
//           takes some 40 times the size of the JSON at worst ("[0,0,0..."),
//           for a moment and for one call at a time.  Where there is none, a
//           call fails; members throw std::bad_alloc only if `tell` does, and
//           ask() if it has not taken the call.
class Transfers {
public:
    // Not called from within ask(), listen() or cancel().
    using Tell = std::function<void(FlightEvent&&)>;

    // `max_connections` bounds calls by HTTP/1.1; those above it wait.
    Transfers(Poller& poller, Resolver& resolver, std::size_t max_connections,
              Tell tell);
    ~Transfers();

    Transfers(const Transfers&) = delete;
    Transfers& operator=(const Transfers&) = delete;

    // Retries and the choice of server and model happen in here.
    void ask(ModelCall&& call);

    // The answer is wanted piece by piece, from its start, from now on.
    void listen(FlightId flight);

    // The call is given up; it ends in `failed`.
    void cancel(FlightId flight);

    // Sends what was asked for since the last call.
    void flush();

    [[nodiscard]] Clock::time_point deadline() const;
    void on_time(Clock::time_point now);

    [[nodiscard]] std::size_t in_flight() const { return calls_.size(); }
    [[nodiscard]] std::vector<Notice> take_notices()
    {
        return std::exchange(notices_, {});
    }

private:
    using Stage = Call::Stage;

    [[nodiscard]] Call* find(FlightId flight);
    [[nodiscard]] Origin& origin_of(const Call& call);

    void on_alarm(Call& call);
    void start(Call& call) noexcept;
    void on_resolved(FlightId flight, const Resolver::Result& result) noexcept;
    void transfer(Call& call) noexcept;
    [[nodiscard]] bool transfer_if_room(Call& call);
    void prepare_attempt(Call& call, const Origin& origin);
    void start_queued() noexcept;

    void touch(FlightId flight) noexcept;
    void on_moved();
    void learn_http1(const Call& call) noexcept;
    void hand_on(Call& call) noexcept;
    void drop_attempt(Call& call) noexcept;

    void ended(Call& call, CURLcode code);
    void end_unreachable(Call& call, const char* reason);
    void end_soon(Call& call, Problem&& problem) noexcept;
    void end(Call& call, Outcome&& outcome);
    void finish(Call& call, Outcome&& outcome);

    Resolver& resolver_;
    const Tell tell_;
    std::vector<Notice> notices_;
    Policy policy_{notices_};
    Alarms alarms_;

    // Destroyed from the bottom up: libcurl wants it in this order.
    Handles handles_;
    Multis multis_;
    std::unordered_map<FlightId, Call> calls_;

    std::unordered_map<const ModelServer*, Origin> origins_;
    std::vector<FlightId> touched_;  // since the last move
    std::deque<FlightId> queue_;     // for a connection
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace chatbot
