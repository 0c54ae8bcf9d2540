#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "core/record.hpp"
#include "core/seat.hpp"

namespace chatbot {

// Records the questions whose answer is known.
//
// Threads:  everything happens on the event loop.
// Promise:  each question is recorded once, if it is to be recorded.  The reply
//           to one that cannot be recorded is a refusal.
class Recorder {
public:
    class Services {
    public:
        // Monotonic, in milliseconds.
        virtual std::uint64_t now_ms() = 0;

        // Gives back what was reserved in a journal.
        virtual void release(std::size_t journal, std::size_t bytes) = 0;

        // Makes whole lines durable; false: none of them is.
        virtual bool record(std::size_t journal, std::string_view lines) = 0;

        // For statistics: what became of a question, `durable` where its record
        // is in a journal.
        virtual void settled(const Record& record, bool durable)
        {
            (void)record;
            (void)durable;
        }

    protected:
        ~Services() = default;
    };

    Recorder(Services& services, std::size_t journals);

    // Takes the questions, which have this reply.
    void add(std::list<Seat>& seats, const SharedReply& reply);

    [[nodiscard]] bool empty() const { return settled_.empty(); }

    // Records some of the questions, with one write for each journal, and hands
    // them back: to send many long answers at once would hold up all other
    // requests of the worker.
    [[nodiscard]] std::list<Seat> record_some();

    // All waiters are gone.
    void leave_all();

    // To a question that cannot be recorded.
    [[nodiscard]] static SharedReply refusal();

private:
    [[nodiscard]] std::list<Seat> take_portion();
    void complete(Seat& seat);
    void write(std::list<Seat>& seats, std::size_t journal);

    Services& services_;
    std::vector<std::string> lines_;  // of each journal, while recording
    std::list<Seat> settled_;
};

}  // namespace chatbot
