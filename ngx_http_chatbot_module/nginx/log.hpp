#pragma once

#include <chrono>
#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/outage.hpp"
#include "journal/journal.hpp"
#include "log/shipper.hpp"
#include "nginx/chatbot.hpp"
#include "nginx/segments.hpp"
#include "nginx/task.hpp"

namespace chatbot {

// What "chatbot_metrics" tells of a log.
struct LogState {
    std::uint64_t shipped_bytes = 0;  // of segments that are still there
    std::time_t oldest_s = 0;         // since when records wait; 0: none does
    bool waits = false;               // for PostgreSQL
    bool failing = false;             // the journal
};

// The log of one target: records go to the journal, and a thread follows the
// journal and takes its lines to PostgreSQL, batch by batch.
//
// PostgreSQL may have fewer connections than there are workers: an idle one is
// given back, and where they are short workers take turns.
//
// Threads:  every member is called on the event loop only.
class LogLane {
public:
    LogLane(ngx_thread_pool_t* pool, const LogTarget& target,
            const std::string& dir, const SegmentNames& names,
            std::uint64_t max_size, std::function<void()> changed);

    // Room for the record of a request that is let in, of about so many bytes.
    // False: the request is to be refused.  release() gives it back, right
    // before the record is made or when there is none to make.  Where max_size
    // is small, less is reserved, so that some requests are let in at a time.
    [[nodiscard]] bool reserve(std::uint64_t bytes);
    void release(std::uint64_t bytes);

    // Records what was let in, beyond max_size if need be.  False: the disk
    // refuses.
    [[nodiscard]] bool record(std::string_view lines);

    // Whether a request would be let in.
    [[nodiscard]] bool can_record();

    // The last argument of the constructor is called when it may have changed.
    [[nodiscard]] LogState state() const;

    // Whether a thread works for it.
    [[nodiscard]] bool in_pool() const { return task_.in_pool(); }

    // The worker is about to exit, the thread pool is gone: ships what can be
    // shipped at once, the rest stays for the next worker.
    void close();

private:
    void tell_damage();
    bool tell(bool done);
    void linger();
    void wake_in(ngx_msec_t ms, bool hold);
    void send();
    void go_on();
    void schedule();
    void run() noexcept;
    bool gives_up();
    void finished();

    const bool ship_;  // to PostgreSQL
    const std::uint64_t max_reservation_;
    Journal journal_;
    const std::function<void()> changed_;

    // The thread's while the task is busy.
    LogShipper::Order order_;
    LogShipper shipper_;
    std::optional<std::chrono::steady_clock::time_point> leaving_at_;

    Task task_;
    Event timer_;           // the next batch
    Event patrol_;          // the next search for orphans
    Event hold_;            // keeps the worker while the task is busy
    Event idle_;            // gives the connection back
    bool lingers_ = false;  // the next batch, for want of records
    bool patrol_due_ = true;
    bool more_orphans_ = false;  // than there was room for
    std::string recent_;         // lines recorded while a batch waits
    ngx_msec_t backoff_ms_ = 0;
    Outage outage_;         // of the journal
    bool failing_ = false;  // the journal
};

}  // namespace chatbot
