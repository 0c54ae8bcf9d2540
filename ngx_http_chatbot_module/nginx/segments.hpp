#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/fill_level.hpp"
#include "core/poller.hpp"
#include "journal/segment.hpp"
#include "nginx/chatbot.hpp"
#include "nginx/task.hpp"

namespace chatbot {

// How the segments of a target are named, and what those begin with that it
// adopts.
struct SegmentNames {
    std::string own;
    std::string orphans;
};

// Each target has a journal of its own, named after the database and without
// the password, so that old records are found after the password was changed.
// If there is only one database, it takes all records that were left behind.
[[nodiscard]] std::vector<SegmentNames> segment_names(
    const std::vector<LogTarget>& targets);

// Logs an error if there are records that no worker will take to PostgreSQL.
// Event loop only.
void tell_stranded(const std::string& dir,
                   const std::vector<SegmentNames>& names);

// What the files of a journal are, as they were a moment ago: looking at them
// takes a small share of the time, however many there are.
//
// Threads:  event loop only.
class JournalUsage {
public:
    explicit JournalUsage(std::string dir)
        : dir_(std::move(dir))
    {
    }

    [[nodiscard]] const Usage& now();

private:
    const std::string dir_;
    Usage usage_;
    Clock::time_point next_at_{};
};

// Logs how full the journal of all worker processes gets.  One of them is
// enough.
//
// Threads:  event loop only.
class JournalWatch {
public:
    JournalWatch(std::string dir, std::uint64_t max_size);

private:
    void look();

    const std::string dir_;
    const std::uint64_t max_size_;
    JournalUsage usage_;
    FillLevel fill_;
    Event timer_;
};

}  // namespace chatbot
