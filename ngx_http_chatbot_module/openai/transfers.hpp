#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "core/exchange.hpp"
#include "core/poller.hpp"
#include "core/resolver.hpp"

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
//           for a moment and for one call at a time.
class Transfers {
public:
    // Not called from within ask(), listen() or cancel().
    using Tell = std::function<void(FlightEvent&&)>;

    // `max_connections` bounds calls by HTTP/1.1; those above it wait.
    Transfers(Poller& poller, Resolver& resolver, std::size_t max_connections,
              Tell tell);
    ~Transfers();

    // Retries and the choice of the model happen in here.
    void ask(ModelCall&& call);

    // The answer is wanted piece by piece, from its start, from now on.
    void listen(FlightId flight);

    // The call is given up; it ends in `failed`.
    void cancel(FlightId flight);

    // Sends what was asked for since the last call.
    void flush();

    [[nodiscard]] Clock::time_point deadline() const;
    void on_time(Clock::time_point now);

    [[nodiscard]] std::size_t in_flight() const;
    [[nodiscard]] std::vector<Notice> take_notices();

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace chatbot
