#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/exchange.hpp"

namespace chatbot {

class PostgresConnection;

// The table request_logs: makes or widens it, and inserts lines of the journal.
// Where the rights to widen it are missing, the columns that are there are
// used.
//
// Threads:  insert() on a worker thread, the rest between two inserts on the
//           event loop.
// Time:     an insert takes at most timeout_ms, connecting included (name
//           resolution excepted), and ends early once stopping().
class LogPostgres {
public:
    // `table` may be "schema.table"; it is quoted, not parsed further.
    LogPostgres(std::string conninfo, std::string table, Stopping stopping);
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
    // is told once; that records are refused, whenever insert() hands some
    // over.
    [[nodiscard]] std::vector<Notice> take_notices();

    static constexpr int timeout_ms = 10000;

private:
    enum class Outcome { done, refused, failed };

    bool connect();
    bool prepare();
    bool look();
    bool is_log();
    bool widen(std::string& refusal);
    bool run(const std::string& sql);
    Outcome copy_lines(std::string_view lines);
    bool insert_lines(std::string_view lines);
    Outcome insert_batch(std::string_view lines);
    bool insert_new(std::string_view lines);
    void hand_over_refused(std::string_view lines, std::string& rejected);
    void write_insert();
    void tell_limits(const std::string& refusal);
    bool fail(const std::string& why);
    void tell(Notice::Level level, const std::string& text);

    const std::string conninfo_;
    const std::string table_;  // quoted
    const Stopping stopping_;

    std::unique_ptr<PostgresConnection> connection_;
    std::size_t first_host_ = 0;  // of the conninfo, to ask first

    // What the table has, as long as there is a connection.
    std::set<std::string, std::less<>> columns_;
    bool exists_ = false;
    bool unique_ = false;  // request_id is
    bool has_rules_ = false;
    std::string insert_;
    std::string copy_;  // empty: this table is not for it

    // Lines known to be refused.  Kept from one try to the next, so that many
    // of them are found in the end, however slow the server.
    std::set<std::string, std::less<>> refused_;
    std::string refusal_;  // why the last one was

    std::string failure_;  // what was told last; empty: all is well
    std::string limits_;   // the same
    std::vector<Notice> notices_;
};

}  // namespace chatbot
