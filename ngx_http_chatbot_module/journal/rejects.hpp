#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace chatbot {

// Records that PostgreSQL refuses for what they are.  They are set aside in
// DIR/rejected.jsonl, for an administrator to look at.
//
// A file that has a sixteenth of max_size becomes rejected-TIME-PID-N.jsonl.
// All of them together take at most a quarter of max_size, which the journal
// counts as its own; when they have that, records are held until some are
// removed.
//
// A file that is renamed to a segment's name is taken in again.
struct Rejects {
    std::string dir;
    std::uint64_t max_size = 0;  // of the journal
};

// Appends lines, all or nothing; returns why it cannot, empty if it is done.
// Several processes append to the same file.  If it cannot be used, because its
// lock is held or it is no regular file, the lines get a file of their own.
//
// Threads:  any.  It waits some milliseconds at most.
[[nodiscard]] std::string set_aside(const Rejects& rejects,
                                    std::string_view lines);

}  // namespace chatbot
