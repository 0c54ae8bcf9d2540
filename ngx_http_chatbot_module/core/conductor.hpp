#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/cache_control.hpp"
#include "core/errands.hpp"
#include "core/exchange.hpp"
#include "core/recorder.hpp"
#include "core/route.hpp"
#include "core/seat.hpp"

namespace chatbot {

// How a question is asked.
struct AskOptions {
    bool stream = false;               // the waiter wants it piece by piece
    CacheUse cache = CacheUse::usual;  // as far as the key allows it
    std::vector<Message> history{};
    std::string client{};  // as in ModelCall
    ApiCall api{};
};

// The Conductor knows what happens next to each question: ask, record, answer.
//
// A *flight* is what is known of one question on its way: who waits, and the
// text received so far.  Equal questions join the flight that is there, so they
// are asked once.  If a waiter leaves, its flight continues, since the answer
// is paid for.
//
// Text is pulled: a waiter is told that there is more and keeps an offset into
// the one text of its flight, which the answer then takes over.  So a slow
// client, one that joined late and a cached answer are the same code.
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
    class Services : public Recorder::Services {
    public:
        // on_timer() is to be called at this time (of now_ms()), instead of
        // the time that was set before.
        virtual void set_timer(std::uint64_t when_ms) = 0;

        // on_settle() is to be called soon.
        virtual void settle_soon() = 0;

        // To the reactor: see Errands.
        virtual void send(Errand&& errand) = 0;
        virtual void listen(FlightId flight) = 0;
        virtual void cancel(FlightId flight) = 0;

        // Room in the journal for a record of about so many bytes; false: there
        // is none.  Each reservation is released once.
        virtual bool reserve(std::size_t journal, std::size_t bytes) = 0;

    protected:
        ~Services() = default;
    };

    Conductor(Services& services, std::size_t journals,
              std::size_t max_in_flight);
    ~Conductor();

    Conductor(const Conductor&) = delete;
    Conductor& operator=(const Conductor&) = delete;

    // Asks record.request_text.  Questions with the same `key` are equal; one
    // without a key equals no other.  `record` holds what is known by now.  The
    // route outlives the conductor.  The seat is valid until on_answer().
    Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
              Record&& record, AskOptions&& options = {}) noexcept;

    // The waiter is gone.  Its request is recorded all the same, with status
    // 499, once its flight has ended.
    void leave(Seat* seat);

    // What the model wrote by now; valid until the next call of a member.
    [[nodiscard]] static std::string_view text(const Seat* seat);

    // How the cache took part by now, and the flight; 0 once it has landed.
    [[nodiscard]] static CacheStatus status(const Seat* seat);
    [[nodiscard]] static FlightId flight(const Seat* seat);

    // How many questions have no answer yet, those whose waiter left included.
    [[nodiscard]] std::size_t in_flight() const { return in_flight_; }

    void on_events(std::list<FlightEvent> events);
    void on_timer();
    void on_settle();

    // The process is about to end: first all waiters are gone; then, when no
    // more results will come, what has no answer is recorded as failed.
    void leave_all();
    void close();

    // What is reserved in the journal for an answer.  A larger one is recorded
    // too, unless the disk is full.
    static constexpr std::size_t answer_room = 16 * 1024;

private:
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

    [[nodiscard]] SharedReply refuse(Seat& seat, const Route& route);
    void join(Flight& flight, std::list<Seat>& seats);
    [[nodiscard]] Flight* find_open(const Route& route, const Key& key,
                                    CacheUse use);
    void take_off(const Route& route, const std::optional<Key>& key,
                  AskOptions&& options, std::list<Seat>& seats);
    void close_to_joiners(const Flight& flight);
    void land(Flight& flight, const SharedReply& reply);
    void dismiss(Flight& flight, const SharedReply& reply);
    void tell_later(Flight& flight);
    void on_end(Flight& flight, FlightEvent& event);
    void wake_at(std::uint64_t when_ms);
    void on_deadline(Flight& flight);
    void tell_texts();
    [[nodiscard]] Flight* find(FlightId id);

    Services& services_;
    const std::size_t max_in_flight_;

    std::size_t in_flight_ = 0;
    FlightId last_id_ = 0;
    std::unordered_map<FlightId, Flight> flights_;
    std::unordered_map<Topic, Flight*, TopicHash> open_;  // to join
    Recorder recorder_;
    std::vector<FlightId> told_;      // soon, that there is more text
    std::uint64_t timer_ms_ = never;  // what it is set to
};

}  // namespace chatbot
