#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "postgres/connection.hpp"

namespace chatbot {

// Deletes rows of the log that are older than some time.
//
// Where the table is partitioned by range of "timestamp", partitions are made
// ahead, like the last one that is there, and dropped as a whole.  Other rows
// are deleted in small batches: those of other tables, of partitions without
// bounds, and of the last partition.  An advisory lock makes sure that one
// worker of all hosts at a time works on a table.
//
// Threads:  a worker thread.
// Time:     work() takes about a second at most.
class Retention {
public:
    // `table` is quoted.
    Retention(std::string table, std::int64_t keep_s);

    // Whether it is time to look for old rows.
    [[nodiscard]] bool is_due() const { return Clock::now() >= due_; }

    // Deletes some.  Returns why it could not; empty if all is well.
    [[nodiscard]] std::string work(PostgresConnection& connection);

private:
    using Clock = std::chrono::steady_clock;

    std::vector<std::string> tend_partitions(PostgresConnection& connection,
                                             std::string& error) const;
    PostgresResult run(PostgresConnection& connection,
                       const std::string& statement, std::string& error) const;

    const std::string table_;
    const std::string keep_;  // an interval, as an SQL expression
    const Clock::duration interval_;
    Clock::time_point due_{};
};

}  // namespace chatbot
