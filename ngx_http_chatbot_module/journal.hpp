#pragma once

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
// A segment belongs to the process that holds its flock(2).  Segments are named
// NAME-PID-N.jsonl; those of processes that are gone are adopted.
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
    // `dir` exists.  `max_size` bounds all segments in it, in bytes.
    Journal(std::string dir, std::string name, std::uint64_t max_size);

    // Leaves behind what is not shipped, removes what is.
    ~Journal();

    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    // Whether more can be appended: there is room in the current segment
    // (whose blocks are allocated ahead) or a further one could be made.
    [[nodiscard]] bool has_room();

    // Appends whole lines with one write(2), all or nothing.
    [[nodiscard]] bool append(std::string_view lines);

    // Why has_room() or append() last returned false, for the error log.
    [[nodiscard]] const std::string& error() const { return error_; }

    // The oldest lines not yet shipped, of one segment; the slice stays valid
    // until shipped() is called.  At most about max_slice bytes, but whole
    // lines only.
    [[nodiscard]] Slice next_slice() const;

    // Bytes [from, from + n) of next_slice() are committed.  Removes a segment
    // that is done with, empties the current one.
    void shipped(std::uint64_t n);

    // Puts segments that find_orphans() found in front of the queue.
    void adopt(std::vector<Segment> orphans);

    // Bytes not yet shipped.
    [[nodiscard]] std::uint64_t backlog() const;

    static constexpr std::uint64_t max_segment = 4 * 1024 * 1024;
    static constexpr std::uint64_t max_slice = 1024 * 1024;
};

// Locks and returns the segments in `dir` whose name starts with `prefix` and
// that no living process holds.  A torn last line is cut off; empty segments
// are removed.
[[nodiscard]] std::vector<Segment> find_orphans(const std::string& dir,
                                                const std::string& prefix);

// Reads a slice into `lines`: whole lines, at most about Journal::max_slice
// bytes of it (more only if a single line is longer).  Returns false if it
// cannot be read.
[[nodiscard]] bool read_slice(const Slice& slice, std::string& lines);

// Appends lines that PostgreSQL refuses to DIR/rejected.jsonl.
[[nodiscard]] bool set_aside(const std::string& dir, std::string_view lines);

}  // namespace chatbot
