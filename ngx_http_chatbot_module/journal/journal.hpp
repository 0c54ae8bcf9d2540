#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "journal/segment.hpp"

namespace chatbot {

// What was decided but not yet committed: records as lines of JSON in files
// ("segments", see segment.hpp) of one directory.  A line counts from the
// moment append() returned true; it then survives the death of any process.
// (It is not synced: the death of the machine may cost the last seconds.)
//
// Room:     a request reserves room for its record when it is let in, and gives
//           the reservation back right before the record is appended:
//
//               if (!journal.reserve(n)) { refuse the request: 503 }
//               ...
//               journal.release(n);
//               journal.append(line);
//
//           What is written, by all processes, and what this one has reserved
//           is at most max_size when reserve() returns true.  The others' files
//           are looked at once a second, and more often when it gets tight;
//           what they have reserved counts by the blocks that they have
//           allocated for it.  Blocks are allocated ahead in steps that grow
//           with the segment, so an idle process takes next to nothing.  Where
//           a file system cannot allocate ahead, free space is enough.
//
// Threads:  a Journal's members are called on the event loop only; the free
//           functions of segment.hpp on any thread.  The reader reads the file
//           with pread(2), never the writer's memory.
//
// Limits:   max_open segments are kept open besides the current one; others are
//           closed and left to find_orphans(), with take_left_behind().
class Journal {
public:
    // `dir` exists.  `max_size` bounds the files in it, in bytes.  Without
    // `ships` the lines stay: what is full is closed, and nobody asks for a
    // slice.
    Journal(std::string dir, std::string name, std::uint64_t max_size,
            bool ships = true);

    // Leaves behind what is not shipped, removes what is.
    ~Journal();

    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    // Makes sure that there is room for one more record of about so many bytes,
    // until release() is called with the same number.  False: there is none,
    // error() says why.
    [[nodiscard]] bool reserve(std::uint64_t bytes) noexcept;

    // Gives a reservation back.
    // REQUIRES: reserve(bytes) returned true.
    void release(std::uint64_t bytes) noexcept;

    // What is reserved and not released.
    [[nodiscard]] std::uint64_t reserved() const { return reserved_; }

    // Appends whole lines with one write(2), all or nothing, and beyond
    // max_size if need be: what was let in fails only where the disk refuses.
    // A segment that another program removed or moved is written to for a
    // second at most.
    [[nodiscard]] bool append(std::string_view lines) noexcept;

    // Whether a segment can be made now; error() says why not.
    [[nodiscard]] bool is_writable() noexcept;

    // What another program did to a segment since the last call, for the error
    // log; empty if nothing.
    [[nodiscard]] std::string take_damage() noexcept;

    // Why reserve(), append() or is_writable() last returned false, for the
    // error log.
    [[nodiscard]] const std::string& error() const { return error_; }

    // Some lines not yet shipped, of one segment: the oldest and those of the
    // current one by turns, so that new ones do not wait behind a long backlog.
    // read_slice() takes as much of them as makes a good batch.  The slice
    // stays valid until shipped() or next_slice() is called, whatever is
    // appended or adopted meanwhile.
    [[nodiscard]] Slice next_slice() noexcept;

    // The first `n` bytes of the last next_slice() are committed, and nobody
    // reads that slice any more: a segment that is done with is removed, the
    // current one replaced by an empty one (at most once a second, unless it is
    // large, and by next_slice() if it was too early then).
    void shipped(std::uint64_t n) noexcept;

    // How many segments may be adopted.
    [[nodiscard]] std::size_t vacancies() const;

    // Puts segments that find_orphans() found in front of the queue.
    void adopt(std::vector<Segment> orphans) noexcept;

    // Whether a segment was closed before it was shipped, since the last call:
    // it is an orphan now, to be found and adopted again.
    [[nodiscard]] bool take_left_behind();

    // Whether there is more than a batch to ship, or much for this max_size.
    [[nodiscard]] bool is_behind() const;

    // Bytes not yet shipped, and bytes that are shipped, of the segments that
    // are open.
    [[nodiscard]] std::uint64_t backlog() const;
    [[nodiscard]] std::uint64_t shipped() const;

    // Since when lines wait to be shipped; 0: none does.
    [[nodiscard]] std::time_t oldest() const;

    static constexpr std::uint64_t usual_segment = 4 * 1024 * 1024;
    static constexpr std::uint64_t usual_segments = 256;
    static constexpr std::uint64_t max_segment = 64 * 1024 * 1024;
    static constexpr std::uint64_t max_step = 1024 * 1024;
    static constexpr std::size_t max_open = 32;

private:
    using Clock = std::chrono::steady_clock;

    bool covers(std::uint64_t bytes) const;
    bool claim(std::uint64_t bytes);
    bool extend(std::uint64_t bytes);
    bool grow(Segment& segment, std::uint64_t needed, std::uint64_t limit);
    std::uint64_t limit_of_current(std::uint64_t needed);
    void look_at_others();
    bool write_current(std::string_view lines);
    bool replace_current(std::uint64_t bytes);
    bool empty_in_place();
    void empty_current();
    void look_after_current();
    void retire();
    bool is_sound(const Segment& segment, bool written_to);
    void drop_damaged();
    bool fail(const std::string& path, int error);
    bool fail(std::string why) noexcept;

    const std::string dir_;
    const std::string name_;
    const std::uint64_t max_size_;
    const bool ships_;
    const std::uint64_t segment_size_;

    Segment current_;            // the one written to, if any
    std::deque<Segment> queue_;  // the others, oldest first
    std::vector<File> damaged_;  // to be closed when nobody reads them
    std::uint64_t reserved_ = 0;
    unsigned made_ = 0;          // segments so far
    int shipping_ = -1;          // fd of the last next_slice()
    bool current_next_ = false;  // is to be shipped next
    bool left_behind_ = false;

    std::uint64_t others_ = 0;     // bytes on the disk, all but ours
    Clock::time_point others_at_;  // when they were looked at
    Clock::duration others_cost_{};

    std::string error_;
    std::string damage_;
    Clock::time_point retry_at_;  // claim nothing before
    Clock::time_point empty_at_;
    Clock::time_point look_at_;
};

}  // namespace chatbot
