#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/exchange.hpp"
#include "core/record.hpp"

namespace chatbot {

// Where the questions of one location go.  Belongs to the configuration: made
// once, then only read, and alive as long as the worker process.
struct Route {
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    const ModelSettings* model = nullptr;
    std::size_t cache = none;    // which of the caches
    std::size_t journal = none;  // which of the journals
    int cache_timeout_ms = 250;
    int cache_valid_s = 3600;
    bool cache_lock = true;

    bool operator==(const Route&) const = default;
};

// What a waiter gets.
struct Reply {
    Answer answer;         // if there is no problem
    Problem problem;       // if it is set
    bool hit = false;      // the answer is the cache's
    bool stored = false;   // the answer goes to the cache
    int ttl_s = 0;         // of a hit: how long it stays valid
    int upstream_ms = -1;  // how long the model took; -1: it was not asked
};

// Who waits for an answer.
class Waiter {
public:
    // What the model wrote since the last piece.  Only called for those who
    // asked for a stream, always before on_answer().
    virtual void on_piece(std::string_view piece) = 0;

    // The end.  The conductor no longer knows this waiter when it calls this.
    virtual void on_answer(const Reply& reply, CacheStatus status) = 0;

protected:
    ~Waiter() = default;
};

// The Conductor knows what happens next to each question: cache, model, record,
// answer.
//
// A *flight* is what is known of one question on its way.  Equal questions join
// the flight that is there, so they are asked once.  A waiter that leaves is
// taken off its flight; the flight goes on, since its answer is paid for.
//
// Threads:  everything happens on the event loop.
// Memory:   where there is none left, the process ends; what it recorded is
//           safe.
// Promise:  every waiter that does not leave is answered exactly once, never
//           from within ask(), and a second after the timeouts of cache and
//           model at the latest.  Everything asked is recorded once, before it
//           is answered.
class Conductor {
public:
    // What the conductor wants done.  Results come back through the on_x()
    // members, never from within these calls.
    class Services {
    public:
        // Monotonic, in milliseconds.
        virtual std::uint64_t now_ms() = 0;

        // Seconds since the epoch.
        virtual std::int64_t time_s() = 0;

        // on_timer() is to be called at this time (of now_ms()), instead of
        // the time that was set before.
        virtual void set_timer(std::uint64_t when_ms) = 0;

        // on_settle() is to be called soon.
        virtual void settle_soon() = 0;

        // False: too many wait; the item is as it was.
        virtual bool ask_model(ModelCall&& call) = 0;
        virtual bool ask_cache(std::size_t cache, CacheItem&& item) = 0;

        // Whether records can be made; makes whole lines durable.
        virtual bool has_room(std::size_t journal) = 0;
        virtual bool record(std::size_t journal, std::string_view lines) = 0;

    protected:
        ~Services() = default;
    };

    // Names a waiter's place on its flight, from ask() until on_answer().
    struct Seat;

    Conductor(Services& services, std::size_t caches, std::size_t journals,
              std::size_t max_in_flight);
    ~Conductor();

    Conductor(const Conductor&) = delete;
    Conductor& operator=(const Conductor&) = delete;

    // Asks record.request_text.  `key` names equal questions; one that has none
    // is like no other.  `record` holds what is known by now.  The route
    // outlives the conductor.
    Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
              Record record, bool stream = false) noexcept;

    // The waiter is gone.  Its request is recorded all the same, with status
    // 499, once its flight has ended.
    void leave(Seat* seat);

    // How many questions have no answer yet, those whose waiter left included.
    [[nodiscard]] std::size_t in_flight() const { return in_flight_; }

    void on_cache(std::size_t cache, std::vector<CacheItem>& batch);

    // `refused` are calls that could not be handed to the model.
    void on_model(std::vector<ModelEvent> events,
                  std::vector<ModelCall>& refused);
    void on_timer();
    void on_settle();

    // The process is about to end: first all waiters are gone and nothing more
    // is asked; then, when no more results will come, what has no answer is
    // recorded as failed.
    void leave_all();
    void close();

private:
    struct Flight;

    // What equal questions have in common.
    struct Topic {
        const Route* route;
        Key key;

        bool operator==(const Topic&) const = default;
    };
    struct TopicHash {
        std::size_t operator()(const Topic& topic) const
        {
            std::size_t hash;  // as good as any other bytes of a SHA-256
            std::memcpy(&hash, topic.key.data(), sizeof(hash));
            return hash ^ std::hash<const Route*>()(topic.route);
        }
    };

    static constexpr std::uint64_t never =
        std::numeric_limits<std::uint64_t>::max();

    // What is known of a cache's health.
    struct Cache {
        bool down = false;
        int backoff_ms = 0;
        std::uint64_t probe_ms = never;  // when to ask if it is back
    };

    Flight& take_off(const Route& route, std::optional<Key> key);
    void look_up(Flight& flight);
    void ask_model(Flight& flight);
    void land(Flight& flight, Reply reply);
    void dismiss(Flight& flight, Reply reply);
    void settle(std::list<Seat>& seats, Reply reply);
    void store(const Flight& flight, const Answer& answer);
    void on_lookup(CacheItem& item);
    void on_event(ModelEvent& event);
    void on_unavailable(std::size_t cache, bool probed);
    void probe(std::size_t cache);
    void wake_at(std::uint64_t when_ms);
    void on_deadline(Flight& flight);
    void write_records(std::list<Seat>& settled);
    [[nodiscard]] bool may_cache(const Flight& flight) const;
    [[nodiscard]] Flight* find(FlightId id);

    Services& services_;
    const std::size_t max_in_flight_;

    bool closing_ = false;
    std::size_t in_flight_ = 0;
    FlightId last_id_ = 0;
    std::unordered_map<FlightId, Flight> flights_;
    std::unordered_map<Topic, Flight*, TopicHash> open_;  // to join
    std::vector<Cache> caches_;
    std::vector<std::string> lines_;  // of each journal, while settling
    std::list<Seat> settled_;         // answered, but not yet recorded
    std::uint64_t timer_ms_ = never;  // what it is set to
};

}  // namespace chatbot
