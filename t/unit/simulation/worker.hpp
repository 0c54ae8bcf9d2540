#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/conductor.hpp"
#include "journal/journal.hpp"
#include "simulation/thread.hpp"
#include "simulation/world.hpp"

// A worker process in the simulation, and its clients.

namespace chatbot::simulation {

inline constexpr std::uint64_t never = ~std::uint64_t{0};
inline constexpr std::size_t max_in_flight = 12;
inline constexpr std::size_t api_route = 4;

class Worker;

class Client final : public Waiter {
public:
    enum class State { waiting, left, answered, killed };

    void on_text() override;
    void on_answer(const SharedReply& reply, CacheStatus status) override;

    void check_text(const Answer& answer, const std::string& row) const;
    void check_status(const Reply& reply, CacheStatus status,
                      const std::string& row) const;

    Worker* worker = nullptr;
    std::string id;
    std::string question;
    CacheUse use = CacheUse::usual;
    bool stream = false;
    bool slow = false;
    bool joined = false;
    bool unrecordable = false;  // there was no room for its record
    bool in_ask = false;
    State state = State::waiting;
    FlightId flight = 0;
    Seat* seat = nullptr;
    std::string read;
};

// A worker process.
class Worker final : public Conductor::Services {
public:
    Worker(World& world, std::deque<Client>& clients,
           const std::vector<Route>& routes)
        : world_(world),
          clients_(clients),
          routes_(routes)
    {
        auto orphans = find_orphans(world.dir, "log", journal_.vacancies());
        world.check(orphans.errors.empty(), "an orphan cannot be adopted");
        journal_.adopt(std::move(orphans.segments));
    }

    // What may happen next; the one chosen happens.
    void step();

    // Until nothing is left to do.
    void finish();

    // The worker exits.
    void shut_down();

    void check_invariants();

    void leave(Client& client)
    {
        world_.say(client.id + " leaves");
        client.state = Client::State::left;
        conductor_.leave(client.seat);
    }

    void ask();

    // Everything asked is recorded in the end, but for what was refused.
    void check_records();

    Thread& thread() { return thread_; }
    World& world() { return world_; }

private:
    struct Flight {
        std::size_t route;
        std::string question;
        std::uint64_t deadline_ms;
        bool open;          // can be joined
        bool renews;        // does not look into the cache
        bool waits = true;  // has neither ended nor reached its deadline
    };

    std::uint64_t now_ms() override { return world_.now_ms; }

    void set_timer(std::uint64_t when_ms) override { timer_ms_ = when_ms; }
    void settle_soon() override { settle_ = true; }

    void send(Errand&& errand) override
    {
        ++sent_;
        const auto flight = errand.call.flight;
        const auto& route = routes_[asked_route_];
        const bool renews = asked_use_ == CacheUse::renew;
        for (auto& [id, other] : flights_) {
            if (asks_what(other, asked_route_, errand.call.question) &&
                keyed_) {
                world_.check(renews && !other.renews,
                             "an equal question is in flight");
                other.open = false;
            }
        }
        check_errand(errand);
        if (!keyed_) {
            thread_.unkept.insert(flight);
        }
        flights_[flight] = {
            .route = asked_route_,
            .question = errand.call.question,
            .deadline_ms = world_.now_ms + 1250 +
                           static_cast<unsigned>(route.model->timeout_ms),
            .open = route.cache_lock && keyed_,
            .renews = renews};
        last_flight_ = flight;
        if (world_.lives()) {
            thread_.inbox.push_back(
                {Thread::Order::Kind::errand, flight, std::move(errand)});
        }
    }

    static bool asks_what(const Flight& flight, std::size_t route,
                          const std::string& question)
    {
        return flight.open && flight.route == route &&
               flight.question == question;
    }

    // What is asked goes on as it is, and asks the cache as far as it may.
    void check_errand(const Errand& errand)
    {
        const auto& call = errand.call;
        world_.check((errand.cache != Errand::no_cache) == keyed_,
                     "the cache has a part in it, or none, against the rules");
        world_.check(!keyed_ || errand.key == key_of(call.question),
                     "another key");
        world_.check(
            !keyed_ || errand.look_up == (asked_use_ != CacheUse::renew),
            "looked up, or not, against the rules");
        world_.check(call.history.size() == asked_history_ &&
                         call.client == asked_client_ &&
                         bool(call.api) == is_of_api(call.question),
                     "something else is asked");
    }

    void listen(FlightId flight) override
    {
        thread_.inbox.push_back({Thread::Order::Kind::listen, flight, {}});
    }

    void cancel(FlightId flight) override
    {
        flights_.at(flight).open = false;
        thread_.inbox.push_back({Thread::Order::Kind::cancel, flight, {}});
    }

    bool reserve(std::size_t, std::size_t bytes) override
    {
        if (!world_.lives() || !world_.room || !journal_.reserve(bytes)) {
            return false;
        }
        ++reserved_;
        return true;
    }

    void release(std::size_t, std::size_t bytes) override
    {
        world_.check(reserved_ > 0, "more is released than was reserved");
        --reserved_;
        journal_.release(bytes);
    }

    bool record(std::size_t, std::string_view lines) override;
    void note(std::string_view lines);
    void refuse(std::string_view lines);
    Client& client_of(std::string_view line);

    FlightId find_open(const Client& client);
    void ask_for(Client& client);
    void run_loop();
    void run_thread();
    void run_log();
    void commit();
    void fail_something();
    void pass(std::uint64_t ms);
    void on_timer();
    void deliver();
    void settle();

    World& world_;
    std::deque<Client>& clients_;
    const std::vector<Route>& routes_;

    Thread thread_{world_};
    Journal journal_{world_.dir, "log", std::uint64_t{1} << 30};
    Conductor conductor_{*this, 1, max_in_flight};

    std::uint64_t timer_ms_ = never;
    bool settle_ = false;
    int reserved_ = 0;
    int sent_ = 0;
    std::size_t asked_route_ = 0;
    CacheUse asked_use_ = CacheUse::usual;
    bool keyed_ = false;
    std::size_t asked_history_ = 0;
    std::string asked_client_;
    FlightId last_flight_ = 0;
    std::map<FlightId, Flight> flights_;

    bool shipping_ = false;
    std::string lines_;  // out
};

}  // namespace chatbot::simulation
