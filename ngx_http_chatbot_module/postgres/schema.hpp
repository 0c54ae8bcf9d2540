#pragma once

#include <array>
#include <chrono>
#include <string>
#include <string_view>

#include "core/record.hpp"

namespace chatbot {

class PostgresConnection;

// The statements that insert lines of the journal into the log's table.
struct InsertStatements {
    // COPY of rows of `columns`; empty if this table does not take it.
    std::string copy;
    RecordColumns columns;

    // INSERT of a JSON array, $1: of all its lines, or of those that are not
    // there yet.  The latter may need the right to SELECT.
    std::string insert;
    std::string insert_new;

    // Whether `insert_new` needs lock_turns: without a unique index two workers
    // may insert the same line at the same time.
    bool take_turns = false;

    // Whether only `insert_new` is to be used: there is no unique index, but
    // one that makes it fast.
    bool always_new = false;
};

// Serializes a transaction with others that use it, of all workers and hosts,
// until its end.
inline constexpr const char* lock_turns =
    "select pg_advisory_xact_lock(x'63686174626f74'::bigint); ";  // "chatbot"

// Quotes a name with '"', or a string with '\''.
[[nodiscard]] std::string enclosed(std::string_view text, char quote);

// The table of the log: looks at it, makes or widens it, and says how lines are
// inserted.  What is refused is left as it is: the columns that are there are
// used.
//
// Threads:  a worker thread.
class LogSchema {
public:
    // `table` may be "schema.table"; it is quoted, not parsed further.
    explicit LogSchema(std::string_view table);

    // Makes statements() fit the table that the connection sees.  Returns
    // false, with the reason in error(), if nothing can be inserted.
    [[nodiscard]] bool prepare(PostgresConnection& connection);

    [[nodiscard]] const std::string& table() const { return table_; }  // quoted
    [[nodiscard]] const std::string& error() const { return error_; }
    [[nodiscard]] const InsertStatements& statements() const
    {
        return statements_;
    }

    // What the table lacks and why, for the error log; empty if nothing.
    [[nodiscard]] const std::string& limits() const { return limits_; }

    // Whether the refusal of a row by this constraint means that the line is
    // there already.
    [[nodiscard]] static bool is_own_key(PostgresConnection& connection,
                                         std::string_view schema,
                                         std::string_view constraint);

private:
    using Clock = std::chrono::steady_clock;

    bool look(PostgresConnection& connection);
    bool look_at_indexes(PostgresConnection& connection);
    bool is_log();
    bool is_complete() const;
    bool lacks_id() const;
    void widen(PostgresConnection& connection);
    void make_index(PostgresConnection& connection);
    bool change(PostgresConnection& connection, const std::string& statement);
    void write_statements();
    void describe_limits();
    bool fail(const std::string& why);

    const std::string table_;
    InsertStatements statements_;
    std::string error_;
    std::string limits_;

    bool exists_ = false;
    bool has_rules_ = false;
    bool may_select_ = false;
    RecordColumns columns_;
    RecordColumns unfit_;  // there are others of these names
    std::array<std::string, std::size(record_columns)> types_;  // of columns_
    std::string key_;       // columns of a unique index; empty: there is none
    bool indexed_ = false;  // by request_id, unique or not

    std::string refusal_;         // why it could not be changed
    bool busy_ = false;           // as somebody else had it locked
    Clock::time_point widen_at_;  // not before, as it was refused
};

}  // namespace chatbot
