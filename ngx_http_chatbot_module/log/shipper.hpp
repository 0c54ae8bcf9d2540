#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/exchange.hpp"
#include "journal/rejects.hpp"
#include "journal/segment.hpp"
#include "postgres/table.hpp"

namespace chatbot {

// Takes the lines of a journal to PostgreSQL, batch by batch, and looks for the
// segments of workers that are gone.
//
// A batch is decided once: each of its lines is a row or is refused.  Refused
// lines are then set aside (see Rejects); until that is done, the batch waits.
//
// Threads:  run() and clean() in a thread, everything else between two of them
//           on the event loop.
class LogShipper {
public:
    struct Settings {
        std::string dir;             // of the journal
        std::string orphans;         // what the segments to adopt start with
        std::uint64_t max_size = 0;  // of the journal
        std::string conninfo;        // empty: nothing is shipped
        std::string table;
        std::int64_t keep_s = 0;  // rows older than this are deleted; 0: none
        bool prepare = false;     // make the table before there is a record
    };

    // What run() is to do.
    struct Order {
        Slice slice;              // lines to ship; may be empty
        std::string later;        // some lines that were recorded after them
        std::size_t orphans = 0;  // look for so many segments; 0: do not look
    };

    LogShipper(const Settings& settings, Stopping stopping);

    // REQUIRES: while has_batch(), the slice is the one that it had before.
    void run(const Order& order) noexcept;

    // Deletes rows that are too old, if it is time to.
    void clean() noexcept { postgres_.clean(); }

    // Whether a batch has begun, and waits or goes on.
    [[nodiscard]] bool has_batch() const { return !lines_.empty(); }

    // What became of the batch.  Once it is done, end_batch() is to be called.
    [[nodiscard]] Shipping shipping() const { return shipping_; }
    [[nodiscard]] const std::string& lines() const { return lines_; }
    [[nodiscard]] const std::string& rejected() const { return rejected_; }
    void end_batch() { lines_.clear(); }

    // What the last run() found.
    [[nodiscard]] Orphans take_orphans();

    // What is to be logged, besides what postgres() tells.
    [[nodiscard]] std::vector<Notice> take_notices()
    {
        return std::exchange(notices_, {});
    }

    // For what concerns the connection.
    [[nodiscard]] LogPostgres& postgres() { return postgres_; }

private:
    void search(std::size_t max);
    void tell_orphan_errors(const std::vector<std::string>& errors);
    Shipping ship(const Order& order);
    bool read_batch(const Slice& slice);
    std::string later_lines(const Order& order) const;
    bool set_rejected_aside();

    const std::string dir_;
    const std::string orphans_;
    const bool ships_;
    const Rejects rejects_;
    LogPostgres postgres_;

    std::string lines_;     // a batch of the slice, until it is done
    std::string rejected_;  // some of them
    bool decided_ = false;  // what becomes of each of them
    bool waited_ = false;   // the batch, once at least
    Shipping shipping_ = Shipping::done;
    bool prepare_;  // the table, before there is a record

    Orphans found_;
    std::set<std::string> told_;  // errors of orphans
    std::string held_for_;        // why refused lines cannot be set aside
    std::vector<Notice> notices_;
};

}  // namespace chatbot
