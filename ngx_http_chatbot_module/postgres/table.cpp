#include "postgres/table.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "postgres/connection.hpp"
#include "core/record.hpp"

namespace chatbot {
namespace {

// The server gives up before the client does, or else soon after: a transaction
// whose client is gone holds its locks no longer than this, be it busy or idle
// (but for one that waits for the rest of a COPY: that ends with TCP's
// keepalive).  Set for the transaction only, as others may share the session
// (pgbouncer).
constexpr const char* limit_statement = "set local statement_timeout = 9000; ";
constexpr const char* limit_pause =
    "set local idle_in_transaction_session_timeout = 9000; ";

// One at a time, of all workers and hosts, until the end of the transaction.
// The key is "chatbot" in ASCII.
constexpr const char* take_turns =
    "select pg_advisory_xact_lock(x'63686174626f74'::bigint); ";

// Of a row of pg_attribute.
constexpr const char* is_unique =
    "exists (select from pg_index where indrelid = attrelid and indnatts = 1"
    " and indkey[0] = attnum and indisunique and indisvalid and indimmediate"
    " and indpred is null)";

struct Column {
    const char* name;
    const char* type;
    bool added;  // the old service's table has it not
};

constexpr Column known_columns[] = {
    {"ip_address", "varchar(45) not null", false},
    {"request_text", "text not null", false},
    {"response_text", "text", false},
    {"status", "varchar(20) not null", false},
    {"timestamp", "timestamptz default current_timestamp", false},
    // Compared as bytes, which makes its index much faster.
    {"request_id", "text collate \"C\"", true},
    {"model", "text", true},
    {"cache_status", "text", true},
    {"http_status", "smallint", true},
    {"duration_ms", "integer", true},
    {"prompt_tokens", "integer", true},
    {"completion_tokens", "integer", true},
    {"first_byte_ms", "integer", true},
    {"cached_tokens", "integer", true},
    {"reasoning_tokens", "integer", true},
    {"attempts", "smallint", true},
    {"upstream", "text", true},
    {"upstream_request_id", "text", true},
    {"client_name", "text", true},
};

static_assert(std::size(known_columns) == std::size(record_columns));

bool is_known(std::string_view column)
{
    return std::any_of(
        std::begin(known_columns), std::end(known_columns),
        [&](const Column& known) { return column == known.name; });
}

// Data exceptions, broken constraints, limits exceeded.
bool is_about_data(std::string_view code)
{
    return code.starts_with("22") || code.starts_with("23") ||
           code.starts_with("54") || code == "21000";
}

// Whether the statement was refused for the data in it.  Not for what is no
// fault of the row and fails until the administrator mends it: a sequence that
// has come to its end or is behind the ids that are there, a column that
// somebody added and that wants a value, a partition that is missing.
bool is_refusal(const PostgresResult& result)
{
    std::string_view code = error_field(result, PG_DIAG_SQLSTATE);
    if (code == "2200H") {
        return false;
    }
    if (code == "23502") {
        return is_known(error_field(result, PG_DIAG_COLUMN_NAME));
    }
    if (code == "23505") {  // "Key (id)=(1) already exists.", in any language
        std::string_view detail = error_field(result, PG_DIAG_MESSAGE_DETAIL);
        detail.remove_prefix(std::min(detail.find('('), detail.size()));
        return !detail.starts_with("(id)=(");
    }
    if (code == "23514") {  // a missing partition is no constraint
        return !error_field(result, PG_DIAG_CONSTRAINT_NAME).empty();
    }
    return is_about_data(code);
}

// Whether DDL was refused for what the table is or who we are (42: no rights,
// a view; 23: ids are there twice; 0A: partitioned), so that asking again is of
// no use.
bool is_final(const PostgresResult& result)
{
    std::string_view code = error_field(result, PG_DIAG_SQLSTATE);
    return code.starts_with("42") || code.starts_with("23") ||
           code.starts_with("0A");
}

// Quotes a name with '"', or a string with '\''.
std::string enclosed(std::string_view text, char quote)
{
    std::string out(1, quote);
    for (char c : text) {
        out.append(c == quote ? 2 : 1, c);
    }
    return out + quote;
}

std::string quote_name(std::string_view name)
{
    return enclosed(name, '"');
}

std::string quoted_table(std::string_view table)
{
    auto dot = table.find('.');
    if (dot == std::string_view::npos) {
        return quote_name(table);
    }
    return quote_name(table.substr(0, dot)) + "." +
           quote_name(table.substr(dot + 1));
}

// Makes the index, unless the column is missing or others were first: it is
// looked for when it is our turn.  It has no name of ours, as the index of a
// table that was renamed may have that.
std::string make_unique(const std::string& table)
{
    return "do $chatbot$ begin if exists (select from pg_attribute"
           " where attrelid = to_regclass(" +
           enclosed(table, '\'') + ") and attname = 'request_id' and not " +
           is_unique + ") then create unique index on " + table +
           " (request_id); end if; end $chatbot$";
}

void append_item(std::string& list, const std::string& item)
{
    list += (list.empty() ? "" : ", ") + item;
}

// Takes the first line, "\n" included, off `lines`, which is not empty.
std::string_view next_line(std::string_view& lines)
{
    std::string_view line = lines.substr(0, lines.find('\n'));
    if (line.size() < lines.size()) {
        line = lines.substr(0, line.size() + 1);
    }
    lines.remove_prefix(line.size());
    return line;
}

// The line ends stay: no JSON string reaches across one, so that a torn line
// cannot swallow the next.
std::string json_array(std::string_view lines)
{
    std::string array = "[";
    while (!lines.empty()) {
        array += next_line(lines);
        if (!lines.empty()) {
            array += ',';
        }
    }
    return array + "]";
}

// Where a line starts near the middle of `lines`; 0 if there is only one.
std::size_t middle(std::string_view lines)
{
    auto newline = lines.find('\n', lines.size() / 2);
    if (newline == std::string_view::npos || newline + 1 == lines.size()) {
        newline = lines.substr(0, lines.size() / 2).rfind('\n');
    }
    return newline == std::string_view::npos ? 0 : newline + 1;
}

}  // namespace

LogPostgres::LogPostgres(std::string conninfo, std::string table,
                         Stopping stopping)
    : conninfo_(std::move(conninfo)),
      table_(quoted_table(table)),
      stopping_(std::move(stopping))
{
}

LogPostgres::~LogPostgres() = default;

bool LogPostgres::insert(std::string_view lines, std::string& rejected) noexcept
try {
    if (connect() && insert_new(lines)) {
        if (!failure_.empty()) {
            failure_.clear();
            tell(Notice::Level::notice, "is back");
        }
        hand_over_refused(lines, rejected);
        return true;
    }

    // Another server may answer next time, and the table be another.  Libpq
    // asks no host behind a silent one, so the next try starts with the next.
    first_host_ = connection_->timed_out() ? first_host_ + 1 : 0;
    connection_.reset();
    return false;
} catch (...) {  // no memory
    connection_.reset();
    return false;
}

std::vector<Notice> LogPostgres::take_notices()
{
    return std::exchange(notices_, {});
}

bool LogPostgres::connect()
{
    auto deadline = PostgresConnection::Clock::now() +
                    std::chrono::milliseconds(timeout_ms);
    if (connection_ && connection_->alive()) {
        connection_->set_deadline(deadline);
        return true;
    }

    connection_ = std::make_unique<PostgresConnection>(stopping_);
    connection_->set_deadline(deadline);
    if (!connection_->open(conninfo_, first_host_)) {
        return fail(connection_->why(nullptr));
    }
    return prepare();
}

bool LogPostgres::prepare()
{
    if (!look() || (exists_ && !is_log())) {
        return false;
    }

    std::string refusal;
    bool complete = unique_ && columns_.size() == std::size(known_columns);
    if (!complete && (!widen(refusal) || !look())) {
        return false;
    }

    if (!exists_) {
        return fail(refusal);
    }
    if (!is_log()) {  // one that had no column at all
        return false;
    }
    tell_limits(refusal);
    write_insert();
    return true;
}

// What the table has of what we know.
bool LogPostgres::look()
{
    static const std::string sql =
        std::string("select attname, ") + is_unique +
        ", (select relhasrules from pg_class where oid = attrelid)"
        " from pg_attribute where attrelid = to_regclass($1)"
        " and attnum > 0 and not attisdropped";

    PostgresResult result = connection_->query(sql, &table_);
    if (!succeeded(result)) {
        return fail(connection_->why(result));
    }

    columns_.clear();
    exists_ = PQntuples(result.get()) != 0;
    unique_ = has_rules_ = false;
    for (int row = 0; row < PQntuples(result.get()); row++) {
        std::string name = PQgetvalue(result.get(), row, 0);
        if (!is_known(name)) {
            continue;
        }
        if (name == "request_id") {
            unique_ = *PQgetvalue(result.get(), row, 1) == 't';
        }
        has_rules_ = *PQgetvalue(result.get(), row, 2) == 't';
        columns_.insert(std::move(name));
    }
    return true;
}

// A table that happens to have the name that was configured is not widened, nor
// given questions that it has no place for.
bool LogPostgres::is_log()
{
    return columns_.contains("request_text") ||
           fail("table " + table_ +
                " is no log of questions: it has no column request_text");
}

// Makes the table, or adds what it lacks.  Returns false if it is worth to try
// again; `refusal` says why something could not be done at all.
//
// The index of a large table may take longer than we wait: the server completes
// it nevertheless, which is why no statement_timeout is set yet.
bool LogPostgres::widen(std::string& refusal)
{
    std::string columns = "id serial primary key";
    std::string additions;
    for (const auto& c : known_columns) {
        append_item(c.added ? additions : columns,
                    (c.added ? "add column if not exists " : "") +
                        quote_name(c.name) + " " + c.type);
    }

    std::string steps[] = {
        exists_ ? ""
                : "create table if not exists " + table_ + " (" + columns + ")",
        "alter table " + table_ + " " + additions,
        unique_ ? "" : make_unique(table_),
    };

    for (const auto& step : steps) {
        if (step.empty()) {
            continue;
        }

        PostgresResult result = connection_->query(
            std::string("set local lock_timeout = 2000; ") + take_turns + step);
        if (succeeded(result)) {
            continue;
        }
        if (!is_final(result)) {
            return fail(connection_->why(result));
        }
        if (refusal.empty()) {
            refusal = connection_->why(result);
        }
    }
    return true;
}

// The types are the table's own.  Without a unique index, looking is what keeps
// a line from coming twice; insert_batch() then takes turns with the others.
void LogPostgres::write_insert()
{
    std::string list;
    for (const auto& name : columns_) {
        append_item(list, quote_name(name));
    }

    const std::string source =
        " from json_populate_recordset(null::" + table_ + ", $1::json) x";
    insert_ = "insert into " + table_ + " (" + list + ") select ";
    copy_.clear();

    if (unique_) {
        insert_ += list + source + " on conflict (request_id) do nothing";
    } else if (columns_.contains("request_id")) {
        insert_ += "distinct on (request_id) " + list + source +
                   " where not exists (select from " + table_ +
                   " y where y.request_id = x.request_id)";
    } else {
        insert_ += list + source;
    }

    // COPY knows triggers, but no rules.
    if (unique_ && !has_rules_ &&
        columns_.size() == std::size(record_columns)) {
        for (auto name : record_columns) {
            append_item(copy_, quote_name(name));
        }
        copy_ = limit_statement + ("copy " + table_) + " (" + copy_ +
                ") from stdin";
    }
}

void LogPostgres::tell_limits(const std::string& refusal)
{
    std::string lacking;
    for (const auto& c : known_columns) {
        if (!columns_.contains(c.name)) {
            append_item(lacking, c.name);
        }
    }
    if (!unique_) {
        append_item(lacking, "a unique index on request_id");
    }

    std::string limits =
        lacking.empty() ? ""
                        : "table " + table_ + " is used without " + lacking +
                              (refusal.empty() ? "" : ": " + refusal);
    if (limits != limits_ && !limits.empty()) {
        tell(Notice::Level::warn, limits);
    }
    limits_ = limits;
}

bool LogPostgres::run(const std::string& sql)
{
    PostgresResult result = connection_->query(sql);
    return succeeded(result) || fail(connection_->why(result));
}

// COPY is half the work for the server, but all or nothing: of lines that are
// there already, or are refused, it takes none.
LogPostgres::Outcome LogPostgres::copy_lines(std::string_view lines)
{
    if (copy_.empty()) {
        return Outcome::refused;
    }

    std::string rows;
    rows.reserve(lines.size());
    while (!lines.empty()) {
        if (!append_row(rows, next_line(lines), RecordColumns().set())) {
            return Outcome::refused;
        }
    }

    PostgresResult result = connection_->copy(copy_, rows);
    if (succeeded(result)) {
        return Outcome::done;
    }

    std::string_view code = error_field(result, PG_DIAG_SQLSTATE);
    if (is_about_data(code)) {
        return Outcome::refused;  // insert_lines() finds out of which line
    }
    if (code.starts_with("42") || code.starts_with("0A")) {
        copy_.clear();  // it is no way into this table
        return Outcome::refused;
    }
    fail(connection_->why(result));
    return Outcome::failed;
}

// Lines that PostgreSQL refuses are found by halving.  The good halves are
// committed at once: should something fail later, they come again and are
// known.
bool LogPostgres::insert_lines(std::string_view lines)
{
    if (lines.empty()) {
        return true;
    }

    Outcome outcome = insert_batch(lines);
    if (outcome != Outcome::refused) {
        return outcome == Outcome::done;
    }

    std::size_t half = middle(lines);
    if (half == 0) {
        refused_.emplace(lines);
        return true;
    }
    return insert_lines(lines.substr(0, half)) &&
           insert_lines(lines.substr(half));
}

LogPostgres::Outcome LogPostgres::insert_batch(std::string_view lines)
{
    if (!run(std::string("begin; ") + limit_statement + limit_pause +
             (unique_ ? "" : take_turns))) {
        return Outcome::failed;
    }

    const std::string array = json_array(lines);
    PostgresResult result = connection_->query(insert_, &array);
    if (succeeded(result)) {
        result = connection_->query("commit");  // checks what was deferred
    }
    if (succeeded(result)) {
        return Outcome::done;
    }

    if (!is_refusal(result)) {
        fail(connection_->why(result));
        return Outcome::failed;
    }
    refusal_ = connection_->why(result);
    return run("rollback") ? Outcome::refused : Outcome::failed;
}

// Inserts what was not refused in an earlier try.  After a failure some of it
// may be there already, which is nothing for COPY.
bool LogPostgres::insert_new(std::string_view lines)
{
    if (failure_.empty()) {
        Outcome outcome = copy_lines(lines);
        if (outcome != Outcome::refused) {
            return outcome == Outcome::done;
        }
    }
    if (refused_.empty()) {
        return insert_lines(lines);
    }

    std::string rest;
    while (!lines.empty()) {
        std::string_view line = next_line(lines);
        if (!refused_.contains(line)) {
            rest += line;
        }
    }
    return insert_lines(rest);
}

void LogPostgres::hand_over_refused(std::string_view lines,
                                    std::string& rejected)
{
    std::string refused;
    std::size_t n = 0;
    while (!refused_.empty() && !lines.empty()) {
        std::string_view line = next_line(lines);
        if (refused_.contains(line)) {
            refused += line;
            n++;
        }
    }
    refused_.clear();
    if (n == 0) {
        return;
    }

    if (refused.back() != '\n') {
        refused += '\n';
    }
    tell(Notice::Level::error,
         "records refused: " + std::to_string(n) + ", " + refusal_);
    rejected += refused;
}

// Returns false, for the caller to return.
bool LogPostgres::fail(const std::string& why)
{
    if (!stopping_() && why != failure_) {
        failure_ = why;
        tell(Notice::Level::error, why);
    }
    return false;
}

void LogPostgres::tell(Notice::Level level, const std::string& text)
{
    notices_.push_back(
        {level, "PostgreSQL (" + database_name(conninfo_) + "): " + text});
}

}  // namespace chatbot
