#pragma once

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "core/errands.hpp"
#include "core/exchange.hpp"
#include "openai/transfers.hpp"
#include "reactor/epoll.hpp"
#include "reactor/threaded_resolver.hpp"
#include "redis/cache.hpp"

namespace chatbot {

// Does all that a worker process waits for on Redis and the model, in one
// thread: one epoll over their connections.  Errands go in, events come out.
//
//     event loop                 thread
//     post(), flush() --inbox--> Errands --> RedisCache
//                                   |   \--> Transfers
//     take_events() <--outbox-------'
//
// A miss goes from Redis' reply straight to the model, without a trip to the
// event loop.
//
// Threads:  run() on a worker thread, the rest on the event loop.  `notify` is
//           called on the worker thread, with at most one call until the next
//           take_events(); so is `measure`, with each lookup.
// Memory:   room for the end of an errand is made by post(), so that it is told
//           even if there is no memory by then.  Where there is none, what is
//           in the inbox waits, and pieces are handed on later.
// Time:     run() returns when there is nothing to do for `linger`, and after
//           `max_run` in any case, so that a thread pool with too few threads
//           gets slower, not stuck; within `stop_interval` once stopping().
class Reactor final : Errands::Services {
public:
    // When a run shall end before its time.
    enum class Stop { no, when_done, at_once };

    Reactor(const std::vector<RedisSettings>& caches,
            std::size_t max_connections, std::function<Stop()> stopping,
            std::function<void()> notify, RedisCache::Measure measure = {});
    ~Reactor();

    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    // What is posted is seen by the thread with the next flush(), which wakes
    // it, once for all of them.
    void post(Errand&& errand);
    void post_listen(FlightId flight);
    void post_cancel(FlightId flight);
    void flush();

    // What happened since the last call, in the order it happened.
    struct Events {
        std::list<FlightEvent> events;
        std::vector<Notice> notices;
    };
    [[nodiscard]] Events take_events();

    // Whether all caches can be asked, as far as is known.
    [[nodiscard]] bool caches_up() const { return caches_up_; }

    // Whether run() has something to do.  REQUIRES: it does not run.
    [[nodiscard]] bool has_work() const;

    void run() noexcept;

    static constexpr std::chrono::milliseconds linger{1000};
    static constexpr std::chrono::milliseconds max_run{1000};
    static constexpr std::chrono::milliseconds stop_interval{50};

private:
    // One thing to do for a flight.
    struct Order {
        enum class Kind { errand, listen, cancel };

        Kind kind = Kind::errand;
        FlightId flight = 0;
        Errand errand{};
        std::list<FlightEvent> end{};  // of an errand: the room for it
    };

    Order& post(Order::Kind kind, FlightId flight);

    std::int64_t time_s() override;
    bool look_up(std::size_t cache, FlightId flight, const Key& key) override;
    void store(std::size_t cache, const Key& key, int expire_s,
               const Answer& answer) override;
    void ask(ModelCall&& call) override;
    void listen(FlightId flight) override;
    void cancel(FlightId flight) override;
    void tell(FlightEvent&& event) override;

    void turn(Clock::time_point until);
    void take_inbox();
    void carry_out(Order& order);
    void begin(Order& order);
    void flush_clients();
    void flush_outbox();
    [[nodiscard]] bool busy() const;
    [[nodiscard]] Clock::time_point deadline() const;

    const std::function<Stop()> stopping_;
    const std::function<void()> notify_;

    // The event loop's.
    std::vector<Order> posted_;

    // Shared.
    mutable std::mutex mutex_;
    std::vector<Order> inbox_;
    Events outbox_;
    bool asleep_ = false;    // in epoll: a new errand has to wake it
    bool notified_ = false;  // since the last take_events()
    std::atomic<bool> caches_up_ = true;

    // The thread's.
    std::vector<Order> orders_;  // taken from the inbox
    std::size_t next_order_ = 0;
    Events told_;
    std::list<FlightEvent> ends_;  // room for those to come
    Epoll epoll_;
    ThreadedResolver resolver_;
    Errands errands_;
    std::vector<std::unique_ptr<RedisCache>> caches_;
    Transfers transfers_;
};

}  // namespace chatbot
