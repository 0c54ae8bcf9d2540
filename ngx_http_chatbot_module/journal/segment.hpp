#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "journal/file.hpp"

namespace chatbot {

// The files of a journal's directory, and who may take them over.
//
// A segment belongs to the process that holds its flock(2); segments of
// processes that are gone are adopted.  They are named NAME-TIME-PID-N.jsonl.
// TIME is when the file was made (UTC): PID and N repeat, as in a new
// container, and a file in an archive must not be overwritten by a later one of
// the same name.
//
// Threads:  all functions may be called on any thread.

// A file that this process holds locked.
struct Segment {
    std::string path;
    File file;
    std::uint64_t size = 0;     // bytes written, whole lines
    std::uint64_t shipped = 0;  // bytes that are committed
    std::uint64_t claimed = 0;  // bytes that may be written (see Journal)
    std::time_t since = 0;      // when the first that is to be shipped came
    bool adopted = false;       // of a worker that may have shipped some of it
};

// Some whole lines to ship: bytes [from, to) of an open segment.
struct Slice {
    int fd = -1;
    std::uint64_t from = 0;
    std::uint64_t to = 0;
    bool adopted = false;  // some of them may have been shipped

    [[nodiscard]] bool empty() const { return from == to; }
};

// A batch to ship has about so many bytes.
constexpr std::uint64_t max_slice = 1024 * 1024;

// Makes an empty segment and locks it; false: errno says why not, of the file
// `path`.  `made` numbers the files of this process.
[[nodiscard]] bool make_segment(const std::string& dir, const std::string& name,
                                unsigned& made, Segment& segment);

// Gives blocks back that were allocated and not used.
void trim(Segment& segment);

// Closes a segment, and removes it where everything is shipped.
void close_segment(Segment segment);

// What find_orphans() found.
struct Orphans {
    std::vector<Segment> segments;
    bool more = false;  // than were asked for
    std::vector<std::string>
        errors;  // files that cannot be taken over, and why
};

// Locks and returns the oldest `max` of the segments in `dir` whose name starts
// with `prefix` and that no living process holds.  A torn last line is cut off;
// empty segments are removed.
[[nodiscard]] Orphans find_orphans(const std::string& dir,
                                   const std::string& prefix, std::size_t max);

// The same for segments that stay where they are: returns the errors only.
[[nodiscard]] std::vector<std::string> tidy_orphans(const std::string& dir,
                                                    const std::string& prefix);

// The segments in `dir` whose name starts with `prefix`, that hold anything and
// that no living process holds, oldest first.
[[nodiscard]] std::vector<std::string> find_abandoned(
    const std::string& dir, const std::string& prefix);

// Whether a living process holds any of those segments.
[[nodiscard]] bool has_held(const std::string& dir, const std::string& prefix);

// Reads a slice into `lines`: whole lines, at most max_slice bytes of it (more
// only if a single line is longer).  Returns false if it cannot be read.
[[nodiscard]] bool read_slice(const Slice& slice, std::string& lines);

// What the files of `dir` take on the disk whose name starts with `prefix`,
// except those whose path is in `except`; none if `dir` cannot be read.
[[nodiscard]] std::optional<std::uint64_t> disk_size(
    const std::string& dir, std::string_view prefix,
    const std::set<std::string>& except);

// What all files of a journal are.
struct Usage {
    std::uint64_t disk = 0;   // what they take there
    std::uint64_t bytes = 0;  // of segments whose name starts with `prefix`
};
[[nodiscard]] Usage usage(const std::string& dir, std::string_view prefix);

// Renames a file to NAME-TIME-PID-N.jsonl.
[[nodiscard]] bool move_away(const std::string& dir, const std::string& name,
                             const std::string& path);

}  // namespace chatbot
