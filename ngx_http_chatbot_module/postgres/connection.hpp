#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "core/exchange.hpp"

struct pg_conn;
struct pg_result;

namespace chatbot {

struct ClearPostgresResult {
    void operator()(pg_result* result) const;
};

// What a statement came to; null if there was no reply.
using PostgresResult = std::unique_ptr<pg_result, ClearPostgresResult>;

[[nodiscard]] bool succeeded(const PostgresResult& result);

// A field of libpq's PQresultErrorField(), such as PG_DIAG_SQLSTATE; empty if
// the result has it not.
[[nodiscard]] std::string_view error_field(const PostgresResult& result,
                                           int field);

// One connection to PostgreSQL, without any call of libpq that blocks (name
// resolution excepted).
//
// Threads:  all on a worker thread.
// Time:     everything fails at the deadline, and soon once stopping().
class PostgresConnection {
public:
    using Clock = std::chrono::steady_clock;

    explicit PostgresConnection(const Stopping& stopping)
        : stopping_(stopping)
    {
    }

    void set_deadline(Clock::time_point deadline) { deadline_ = deadline; }

    // Asks the hosts of the conninfo in turn, from `first_host` on.
    [[nodiscard]] bool open(const std::string& conninfo,
                            std::size_t first_host);

    // Whether the server did not hang up since the last query.
    [[nodiscard]] bool alive();

    // Runs one statement with a parameter, or else any number of statements,
    // in one transaction.  Returns the last result, or the error, or null if
    // there was no reply.
    [[nodiscard]] PostgresResult query(const std::string& sql,
                                       const std::string* param = nullptr);

    // The same of statements of which one is a COPY FROM STDIN.
    [[nodiscard]] PostgresResult copy(const std::string& sql,
                                      const std::string& rows);

    [[nodiscard]] bool timed_out() const { return timed_out_; }

    // Whether open() failed because the server has no connection to spare.
    [[nodiscard]] bool too_many() const { return too_many_; }

    // Why the result is no success; without the data that the server may
    // repeat.
    [[nodiscard]] std::string why(const PostgresResult& result) const;

private:
    bool finish_opening();
    PostgresResult last_result(const std::string* rows);
    bool put(const std::string& rows);
    bool wait(short events);
    bool flush();

    struct Finish {
        void operator()(pg_conn* conn) const;
    };

    const Stopping& stopping_;
    Clock::time_point deadline_;
    bool timed_out_ = false;
    bool too_many_ = false;
    std::unique_ptr<pg_conn, Finish> conn_;
};

}  // namespace chatbot
