#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

#include "core/exchange.hpp"

namespace chatbot {

// What the conductor wants done for a flight: look the answer up, ask the model
// if it is not there, keep what the model says.
struct Errand {
    static constexpr std::size_t no_cache = static_cast<std::size_t>(-1);

    ModelCall call;                // call.flight names the errand
    std::size_t cache = no_cache;  // which of the caches
    Key key{};                     // in the cache
    int cache_valid_s = 0;         // an older answer is a miss
    bool look_up = true;           // else any is
};

// Leads errands from the cache to the model and back to the cache.  Decides
// what comes next and does no I/O, so that it can be simulated.
//
// Threads:  all on the reactor's thread.
// Promise:  each errand taken ends in exactly one event `hit`, `answered` or
//           `failed`, if each lookup() ends in on_lookup() and each ask() in
//           an event `answered` or `failed`.
// Memory:   where there is none, an errand fails, or take() throws
//           std::bad_alloc and leaves nothing behind.
class Errands {
public:
    // What has to be done.  Results come back through the on_x() members, never
    // from within these calls.
    class Services {
    public:
        // Seconds since the epoch.
        virtual std::int64_t time_s() = 0;

        // False: the cache cannot be asked now; no on_lookup() follows, nor
        // after std::bad_alloc.
        virtual bool look_up(std::size_t cache, FlightId flight,
                             const Key& key) = 0;
        virtual void store(std::size_t cache, const Key& key, int expire_s,
                           const Answer& answer) = 0;

        virtual void ask(ModelCall&& call) = 0;
        virtual void listen(FlightId flight) = 0;
        virtual void cancel(FlightId flight) = 0;

        // For the conductor.
        virtual void tell(FlightEvent&& event) = 0;

    protected:
        ~Services() = default;
    };

    explicit Errands(Services& services)
        : services_(services)
    {
    }

    Errands(const Errands&) = delete;
    Errands& operator=(const Errands&) = delete;

    void take(Errand&& errand);

    // A waiter that wants pieces has joined the flight.
    void listen(FlightId flight);

    // No waiter is left, and the answer is not to be kept: the errand ends in
    // `failed`, unless it has ended by now.
    void cancel(FlightId flight);

    // `found` is empty for a miss, and where the cache gave no answer.
    void on_lookup(FlightId flight, std::optional<Answer>&& found);
    void on_model(FlightEvent&& event);

    [[nodiscard]] std::size_t in_flight() const { return errands_.size(); }

private:
    enum class Stage { looking_up, asking };

    struct State {
        Errand errand;
        Stage stage;
    };
    using States = std::unordered_map<FlightId, State>;

    [[nodiscard]] bool look_up(States::iterator it);
    void ask(States::iterator it);
    [[nodiscard]] std::optional<Answer> to_keep(const Errand& errand,
                                                const FlightEvent& event);
    void fail(States::iterator it, Problem&& problem);
    void end(States::iterator it, FlightEvent&& event);

    Services& services_;
    States errands_;
};

}  // namespace chatbot
