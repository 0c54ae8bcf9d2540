#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace chatbot {

// What was decided but not yet committed: records as lines of JSON in files
// ("segments") of one directory.  A line counts from the moment append()
// returned true; it then survives the death of any process.  (It is not synced:
// the death of the machine may cost the last seconds.)
//
// A segment belongs to the process that holds its flock(2); those of processes
// that are gone are adopted.  Segments are named NAME-TIME-PID-N.jsonl, where
// TIME is when it was made (UTC): PID and N come again, as in a new container,
// and a file that was moved to an archive must not be overwritten there.
//
// Threads:  a Journal's members are called on the event loop only; the free
//           functions below it on any thread.  The reader reads the file with
//           pread(2), never the writer's memory.

// A file that this process holds locked.
struct Segment {
    std::string path;
    int fd = -1;
    std::uint64_t size = 0;     // bytes written, whole lines
    std::uint64_t shipped = 0;  // bytes that are committed
};

// Some whole lines to ship: bytes [from, to) of an open segment.
struct Slice {
    int fd = -1;
    std::uint64_t from = 0;
    std::uint64_t to = 0;

    [[nodiscard]] bool empty() const { return from == to; }
};

class Journal {
public:
    // `dir` exists.  `max_size` bounds all segments in it, in bytes, give or
    // take a segment for each process that writes there.  Without `ships` the
    // lines stay: what is full is closed, and nobody asks for a slice.
    Journal(std::string dir, std::string name, std::uint64_t max_size,
            bool ships = true);

    // Leaves behind what is not shipped, removes what is.
    ~Journal();

    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    // Whether more can be appended: there is room in the current segment
    // (whose blocks are allocated ahead) or a further one could be made.  The
    // last quarter of a segment is kept for requests that were let in already.
    [[nodiscard]] bool has_room();

    // Appends whole lines with one write(2), all or nothing.  A segment that
    // somebody removed or moved is written to for a second at most.
    [[nodiscard]] bool append(std::string_view lines);

    // The path of a segment that was removed or moved since the last call;
    // empty if there is none.
    [[nodiscard]] std::string take_lost();

    // Why has_room() or append() last returned false, for the error log.
    [[nodiscard]] const std::string& error() const { return error_; }

    // The oldest lines not yet shipped, of one segment; read_slice() takes as
    // much of them as makes a good batch.  The slice stays valid until
    // shipped() is called, whatever is appended or adopted meanwhile.
    [[nodiscard]] Slice next_slice();

    // The first `n` bytes of the last next_slice() are committed, and nobody
    // reads that slice any more: a segment that is done with is removed, the
    // current one replaced by an empty one (at most once a second, unless it is
    // large, and by next_slice() if it was too early then).
    void shipped(std::uint64_t n);

    // Puts segments that find_orphans() found in front of the queue; one that
    // does not ship closes them, as they are in order now.
    void adopt(std::vector<Segment> orphans);

    // Bytes not yet shipped.
    [[nodiscard]] std::uint64_t backlog() const;

    static constexpr std::uint64_t usual_segment = 4 * 1024 * 1024;
    static constexpr std::uint64_t usual_segments = 256;
    static constexpr std::uint64_t max_segment = 64 * 1024 * 1024;
    static constexpr std::uint64_t max_slice = 1024 * 1024;

private:
    void look_after_current();
    bool is_roomy() const;
    bool fits(std::uint64_t n) const;
    bool rotate();
    bool replace_current();
    bool make(Segment& segment);
    bool reserve(const Segment& segment);
    void retire();
    void empty_current();
    bool fail(const std::string& path, int error);

    const std::string dir_;
    const std::string name_;
    const std::uint64_t max_size_;
    const bool ships_;
    const std::uint64_t segment_size_;

    Segment current_;            // the one written to; fd -1: none
    std::deque<Segment> queue_;  // the others, oldest first
    int shipping_ = -1;          // fd of the last next_slice()
    unsigned made_ = 0;          // segments so far
    std::string error_;
    std::string lost_;
    std::chrono::steady_clock::time_point retry_at_;  // make none before
    std::chrono::steady_clock::time_point empty_at_;
    std::chrono::steady_clock::time_point look_at_;
};

// Locks and returns the segments in `dir` whose name starts with `prefix` and
// that no living process holds.  A torn last line is cut off; empty segments
// are removed.  `error` is why the first that cannot be opened cannot, empty if
// there is none.
[[nodiscard]] std::vector<Segment> find_orphans(const std::string& dir,
                                                const std::string& prefix,
                                                std::string& error);

// The segments in `dir` whose name starts with `prefix`, that hold anything and
// that no living process holds, oldest first.
[[nodiscard]] std::vector<std::string> find_abandoned(
    const std::string& dir, const std::string& prefix);

// Reads a slice into `lines`: whole lines, at most Journal::max_slice bytes of
// it (more only if a single line is longer).  Returns false if it cannot be
// read.
[[nodiscard]] bool read_slice(const Slice& slice, std::string& lines);

// Appends lines that PostgreSQL refuses to DIR/rejected.jsonl, all or nothing.
[[nodiscard]] bool set_aside(const std::string& dir, std::string_view lines);

}  // namespace chatbot
