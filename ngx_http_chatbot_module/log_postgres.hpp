#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "exchange.hpp"

struct pg_conn;

namespace chatbot {

// Whether libpq can read `conninfo` (a string of keyword=value pairs or a URI).
[[nodiscard]] bool valid_conninfo(const std::string& conninfo);

// "host:port/dbname" of a conninfo, to tell databases apart: without user and
// password, so that a changed password is not another database.
[[nodiscard]] std::string database_name(const std::string& conninfo);

// The table request_logs: makes or widens it, and inserts lines of the journal.
//
// Threads:  insert() on a worker thread, the rest between two inserts on the
//           event loop.  `stopping` is read by insert() and must be safe to
//           read there.
// Time:     an insert takes at most timeout_ms, connecting included (name
//           resolution excepted), and ends early once *stopping is set.
class LogPostgres {
public:
    // `table` may be "schema.table"; it is quoted, not parsed further.
    LogPostgres(std::string conninfo, std::string table,
                const volatile int* stopping);
    ~LogPostgres();

    LogPostgres(const LogPostgres&) = delete;
    LogPostgres& operator=(const LogPostgres&) = delete;

    // Inserts whole lines of JSON, each once, however often they come
    // (`request_id` decides).  Returns true when all are committed, but for
    // those that PostgreSQL refuses for what they are: these are appended to
    // `rejected` with a notice that says why.  False: try again later, all of
    // them; nothing is in `rejected`.
    [[nodiscard]] bool insert(std::string_view lines,
                              std::string& rejected) noexcept;

    // Takes what should be logged since the last call.  A failure that lasts
    // is told once.
    [[nodiscard]] std::vector<Notice> take_notices();

    static constexpr int timeout_ms = 10000;
};

}  // namespace chatbot
