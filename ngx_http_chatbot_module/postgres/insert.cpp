// How lines are inserted into the table, by LogPostgres.

#include <libpq-fe.h>

#include <algorithm>
#include <utility>

#include "core/record.hpp"
#include "postgres/table.hpp"

namespace chatbot {
namespace {

// A transaction whose client is gone holds its locks no longer than this (but
// for one that waits for the rest of a COPY: that ends with TCP's keepalive).
// Such limits are set for the transaction only, as others may share the session
// (pgbouncer).
constexpr const char* begin =
    "begin; set local idle_in_transaction_session_timeout = 9000; ";

// Looks for deferred constraints before it takes all back.
constexpr const char* take_back = "set constraints all immediate; rollback";

// Whether the code tells of the server's state: no connection, no resources,
// shutting down, no access, read-only.  A trigger may use the same codes, for
// example when it writes to another server.
bool is_about_server(std::string_view code)
{
    for (std::string_view prefix : {"08", "28", "3D", "53", "57P", "58"}) {
        if (code.starts_with(prefix)) {
            return true;
        }
    }
    return code == "25006";
}

// Whether it was refused for want of time, or because of what others did
// meanwhile.
bool is_about_time(std::string_view code)
{
    return code == "57014" || code == "55P03" || code.starts_with("40");
}

// Whether the server hung up with this error.
bool is_last_word(const PostgresResult& result)
{
    auto severity = error_field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity == "FATAL" || severity == "PANIC";
}

// Whether the sequence of `id` is behind the ids that are there: "Key (id)=(1)
// already exists.", in any language.
bool is_behind(const PostgresResult& result)
{
    std::string_view detail = error_field(result, PG_DIAG_MESSAGE_DETAIL);
    detail.remove_prefix(std::min(detail.find('('), detail.size()));
    return error_field(result, PG_DIAG_SQLSTATE) == "23505" &&
           detail.starts_with("(id)=(");
}

// The line ends stay: no JSON string reaches across one, so that a torn line
// cannot swallow the next.
std::string json_array(const std::vector<std::string_view>& lines)
{
    std::string array = "[";
    for (auto line : lines) {
        array += array.size() == 1 ? "" : ",";
        array += line;
    }
    return array + "]";
}

bool append_rows(std::string& rows, const std::vector<std::string_view>& lines,
                 const RecordColumns& columns)
{
    return std::all_of(lines.begin(), lines.end(), [&](auto line) {
        return append_row(rows, line, columns);
    });
}

}  // namespace

// Lines that may be there already are inserted in a way that looks, which is
// slower and may need more rights than we have.  Where an index refuses them,
// that is done only once one was refused.
LogPostgres::Outcome LogPostgres::attempt(const Lines& lines, bool rehearse)
{
    const auto& statements = schema_.statements();
    const bool may_be_there = found_ || statements.always_new ||
                              (sent_before_ && statements.take_turns);
    if (!may_be_there || !selects_ || rehearse ||
        statements.insert_new == statements.insert) {
        return insert_plain(lines, rehearse);
    }

    Outcome outcome = insert(lines, statements.insert_new, false);
    if (outcome.kind == Outcome::Kind::refused && outcome.code == "42501" &&
        lines.size() == 1) {
        outcome = insert_plain(lines, false);
        selects_ = outcome.kind != Outcome::Kind::done;
    } else if (lines.size() == 1 && is_there(outcome)) {
        outcome.kind = Outcome::Kind::done;
        outcome.is_new = false;
    }
    return outcome;
}

// Whether a line was refused because it is there already.
bool LogPostgres::is_there(const Outcome& outcome)
{
    return outcome.code == "23505" &&
           LogSchema::is_own_key(*connection_, outcome.schema,
                                 outcome.constraint);
}

// COPY is half the work for the server.
LogPostgres::Outcome LogPostgres::insert_plain(const Lines& lines,
                                               bool rehearse)
{
    const auto& statements = schema_.statements();
    Outcome outcome;
    std::string rows;
    if (copies_ && !statements.copy.empty() &&
        append_rows(rows, lines, statements.columns)) {
        outcome = copy(rows, rehearse);
        copies_ =
            outcome.kind != Outcome::Kind::refused ||
            !(outcome.code.starts_with("42") || outcome.code.starts_with("0A"));
    } else {
        outcome = insert(lines, statements.insert, rehearse);
    }

    if (!copies_ && outcome.kind == Outcome::Kind::refused && !rows.empty()) {
        outcome = insert(lines, statements.insert, rehearse);
    }
    if (rehearse || !is_there(outcome)) {
        return outcome;
    }

    // Some lines are there already; they are looked for, or found by halving.
    if (!std::exchange(found_, true)) {
        return attempt(lines, false);
    }
    if (lines.size() == 1) {
        outcome.kind = Outcome::Kind::done;
        outcome.is_new = false;
    }
    return outcome;
}

LogPostgres::Outcome LogPostgres::copy(const std::string& rows, bool rehearse)
{
    const auto& statement = schema_.statements().copy;
    if (!rehearse) {
        const auto sql = limits() + statement;
        return outcome_of(connection_->copy(sql, rows));
    }

    const auto sql = begin + limits() + statement;
    Outcome outcome = outcome_of(connection_->copy(sql, rows));
    if (outcome.kind == Outcome::Kind::done) {
        outcome = outcome_of(connection_->query(take_back));
    }
    if (outcome.kind != Outcome::Kind::done) {
        (void)connection_->query("rollback");
    }
    return outcome;
}

LogPostgres::Outcome LogPostgres::insert(const Lines& lines,
                                         const std::string& statement,
                                         bool rehearse)
{
    const auto& statements = schema_.statements();
    const bool turns =
        statements.take_turns && statement == statements.insert_new;
    PostgresResult result =
        connection_->query(begin + limits() + (turns ? lock_turns : ""));
    if (!succeeded(result)) {
        auto outcome = outcome_of(result);
        (void)connection_->query("rollback");
        return outcome;
    }

    const std::string array = json_array(lines);
    result = connection_->query(statement, &array);
    const bool is_new = !result || *PQcmdTuples(result.get()) != '0' ||
                        statement == statements.insert;
    if (succeeded(result)) {  // checks what was deferred
        result = connection_->query(rehearse ? take_back : "commit");
    }

    Outcome outcome = outcome_of(result);
    outcome.is_new = is_new;
    if (outcome.kind != Outcome::Kind::done) {
        (void)connection_->query("rollback");
    }
    return outcome;
}

LogPostgres::Outcome LogPostgres::outcome_of(const PostgresResult& result)
{
    Outcome outcome;
    if (succeeded(result)) {
        outcome.kind = Outcome::Kind::done;
        return outcome;
    }

    outcome.code = error_field(result, PG_DIAG_SQLSTATE);
    outcome.schema = error_field(result, PG_DIAG_SCHEMA_NAME);
    outcome.constraint = error_field(result, PG_DIAG_CONSTRAINT_NAME);
    outcome.why = connection_->why(result);
    outcome.is_lost = outcome.code.empty() || is_last_word(result);
    sent_before_ |= outcome.is_lost;
    if ((outcome.is_lost && stopping_()) || is_behind(result)) {
        outcome.kind = Outcome::Kind::down;
    } else if (outcome.code.empty()) {
        outcome.kind = Outcome::Kind::out_of_time;
    } else if (is_about_server(outcome.code)) {
        outcome.kind = Outcome::Kind::unable;
    } else {
        outcome.kind = is_about_time(outcome.code) ? Outcome::Kind::out_of_time
                                                   : Outcome::Kind::refused;
    }
    return outcome;
}

// The limit for a lock is shorter, so that the error names the lock.
std::string LogPostgres::limits() const
{
    return "set local statement_timeout = " + std::to_string(statement_ms_) +
           "; set local lock_timeout = " +
           std::to_string(statement_ms_ * 3 / 4) + "; ";
}

}  // namespace chatbot
