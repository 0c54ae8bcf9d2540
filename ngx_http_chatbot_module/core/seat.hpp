#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/exchange.hpp"
#include "core/record.hpp"

namespace chatbot {

// What a waiter gets.
struct Reply {
    Answer answer;     // with a problem: the text that came before it
    Problem problem;   // if it is set
    bool hit = false;  // the answer is the cache's
    int ttl_s = 0;     // of a hit: how long it stays valid
    CallReport call;   // of a hit nothing
};

// All who wait for a flight get the same one.
using SharedReply = std::shared_ptr<const Reply>;

// A client that waits for an answer.
class Waiter {
public:
    // There is more text than before, see Conductor::text().  Called only for
    // waiters that asked for a stream, and only before on_answer().
    virtual void on_text() = 0;

    // The end.  The conductor no longer knows this waiter when it calls this.
    virtual void on_answer(const SharedReply& reply, CacheStatus status) = 0;

protected:
    ~Waiter() = default;
};

// A flight of the conductor.
struct Flight;

// One question, from Conductor::ask() until its waiter is told the answer.
struct Seat {
    // Each question goes through all of these, once.
    enum class Stage { asked, settled, recorded, answered };

    void move_on(Stage next);

    Waiter* waiter = nullptr;  // null: gone
    Record record{};
    std::size_t journal = 0;   // Route::none: it is not recorded
    std::size_t reserved = 0;  // bytes in the journal
    std::uint64_t since_ms = 0;
    bool stream = false;
    Flight* flight = nullptr;  // until it is settled
    CacheStatus status = CacheStatus::none;
    SharedReply reply{};  // once it is settled
    Stage stage = Stage::asked;
};

}  // namespace chatbot
