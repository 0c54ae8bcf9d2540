#include "postgres/schema.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <iterator>

#include "postgres/connection.hpp"

namespace chatbot {
namespace {

// After a refusal: the administrator may grant what is missing.  Not often, as
// a large table is read as a whole before an index is refused.
constexpr std::chrono::minutes widen_interval(10);

// After a refusal because of what others did at the time.
constexpr std::chrono::seconds busy_interval(10);

struct Column {
    const char* name;
    const char* type;
    bool added;  // the old service's table does not have it
    bool known;  // never null in a record: fit for a unique index
};

// In the order in which they are made.
constexpr Column known_columns[] = {
    {"ip_address", "varchar(45) not null", false, true},
    {"request_text", "text not null", false, true},
    {"response_text", "text", false, true},
    {"status", "varchar(20) not null", false, true},
    {"timestamp", "timestamptz default current_timestamp", false, true},
    // Compared as bytes, which makes its index much faster.
    {"request_id", "text collate \"C\"", true, true},
    {"model", "text", true, false},
    {"cache_status", "text", true, false},
    {"http_status", "smallint", true, true},
    {"duration_ms", "integer", true, true},
    {"prompt_tokens", "integer", true, false},
    {"completion_tokens", "integer", true, false},
    {"first_byte_ms", "integer", true, false},
    {"cached_tokens", "integer", true, false},
    {"reasoning_tokens", "integer", true, false},
    {"attempts", "smallint", true, false},
    {"upstream", "text", true, false},
    {"upstream_request_id", "text", true, false},
    {"client_name", "text", true, false},
};

static_assert(std::size(known_columns) == std::size(record_columns));

// Whether a column of this category of types (pg_type.typcategory) never takes
// what we write into it.
bool is_unfit(const Column& column, char category)
{
    const bool is_text = std::string_view(column.type).starts_with("text");
    const std::string_view unfit = is_text ? "ABCDGINRTV" : "ABCDEGIR";
    return column.added && unfit.find(category) != unfit.npos;
}

std::size_t column_index(std::string_view name)
{
    auto found =
        std::find(std::begin(record_columns), std::end(record_columns), name);
    return static_cast<std::size_t>(found - std::begin(record_columns));
}

std::string quoted_table(std::string_view table)
{
    auto dot = table.find('.');
    if (dot == std::string_view::npos) {
        return enclosed(table, '"');
    }
    return enclosed(table.substr(0, dot), '"') + "." +
           enclosed(table.substr(dot + 1), '"');
}

void append_item(std::string& list, const std::string& item)
{
    list += (list.empty() ? "" : ", ") + item;
}

// One row for each index that tells whether a line is there already: its
// columns, and whether it is unique.  Beside request_id it may have any columns
// of ours whose values are the same when a line is sent again.  "$1" is the
// table.
std::string keys_query(const std::string& table)
{
    std::string own;
    for (const auto& c : known_columns) {
        if (c.known) {
            append_item(own, enclosed(c.name, '\''));
        }
    }
    return "select string_agg(quote_ident(attname), ', ' order by place), "
           " indisunique and indimmediate and bool_and(attname in (" +
           own +
           ")), indexrelid"
           " from pg_index"
           " cross join unnest(indkey) with ordinality as k (attnum, place)"
           " join pg_attribute a"
           " on attrelid = indrelid and a.attnum = k.attnum"
           " where indrelid = to_regclass(" +
           table +
           ") and indisvalid"
           " and indpred is null and indexprs is null and place <= indnkeyatts"
           " group by indexrelid, indisunique, indimmediate"
           " having bool_or(attname = 'request_id' and"
           " (place = 1 or indisunique))";
}

// Makes an index unless others were first: they are looked for when it is our
// turn.  It has no name of ours, as the index of a table that was renamed may
// have that.
std::string create_index(const std::string& table, const std::string& columns,
                         bool unique)
{
    return "do $chatbot$ begin if not exists (select from (" +
           keys_query(enclosed(table, '\'')) + ") k (columns, is_key, id)" +
           (unique ? " where is_key" : "") + ") then create " +
           (unique ? "unique " : "") + "index on " + table + " (" + columns +
           "); end if; end $chatbot$";
}

}  // namespace

std::string enclosed(std::string_view text, char quote)
{
    std::string out(1, quote);
    for (char c : text) {
        out.append(c == quote ? 2 : 1, c);
    }
    return out + quote;
}

LogSchema::LogSchema(std::string_view table)
    : table_(quoted_table(table))
{
}

bool LogSchema::prepare(PostgresConnection& connection)
{
    error_.clear();
    if (!look(connection) || (exists_ && !is_log())) {
        return false;
    }

    if (!exists_ || (!is_complete() && Clock::now() >= widen_at_)) {
        refusal_.clear();
        busy_ = false;
        widen(connection);
        if (!error_.empty() || !look(connection)) {
            return false;
        }
    }
    if (!exists_) {
        return fail(refusal_);
    }
    if (!is_log()) {  // one that had no column at all
        return false;
    }

    describe_limits();
    write_statements();
    return true;
}

// What the table has of what we know.
bool LogSchema::look(PostgresConnection& connection)
{
    static const std::string sql =
        "select attname, relhasrules,"
        " has_table_privilege(attrelid, 'select') or"
        " has_column_privilege(attrelid, attnum, 'select'),"
        " typcategory, attgenerated <> '',"
        " format_type(atttypid, atttypmod) || case attcollation when 0 then ''"
        " else ' collate ' || attcollation::regcollation end"
        " from pg_attribute join pg_class c on c.oid = attrelid"
        " join pg_type t on t.oid = atttypid"
        " where attrelid = to_regclass($1) and attnum > 0"
        " and not attisdropped";

    PostgresResult result = connection.query(sql, &table_);
    if (!succeeded(result)) {
        return fail(connection.why(result));
    }

    columns_.reset();
    unfit_.reset();
    exists_ = PQntuples(result.get()) != 0;
    has_rules_ = may_select_ = false;
    for (int row = 0; row < PQntuples(result.get()); row++) {
        auto is = [&](int field) {
            return *PQgetvalue(result.get(), row, field) == 't';
        };
        std::string_view name = PQgetvalue(result.get(), row, 0);
        auto index = column_index(name);
        if (index == columns_.size()) {
            continue;
        }
        const char category = *PQgetvalue(result.get(), row, 3);
        const bool unfit = is(4) || is_unfit(known_columns[index], category);
        (unfit ? unfit_ : columns_).set(index);
        types_[index] = PQgetvalue(result.get(), row, 5);
        has_rules_ = is(1);
        may_select_ = may_select_ || (name == "request_id" && is(2));
    }
    return look_at_indexes(connection);
}

bool LogSchema::look_at_indexes(PostgresConnection& connection)
{
    static const std::string sql = keys_query("$1");
    PostgresResult result = connection.query(sql, &table_);
    if (!succeeded(result)) {
        return fail(connection.why(result));
    }

    key_.clear();
    indexed_ = !lacks_id() && PQntuples(result.get()) != 0;
    for (int row = 0; indexed_ && row < PQntuples(result.get()); row++) {
        std::string columns = PQgetvalue(result.get(), row, 0);
        bool is_key = *PQgetvalue(result.get(), row, 1) == 't';
        if (is_key && (key_.empty() || columns.size() < key_.size())) {
            key_ = columns;
        }
    }
    return true;
}

// A table that happens to have the name that was configured is not widened, nor
// given questions that it has no place for.
bool LogSchema::is_log()
{
    return columns_[column_index("request_text")] ||
           fail("table " + table_ +
                " is not a table for the log: it has no column request_text");
}

bool LogSchema::is_complete() const
{
    return (columns_ | unfit_).all() && (lacks_id() || !key_.empty());
}

// Whether there is no room for a request_id.
bool LogSchema::lacks_id() const
{
    return unfit_[column_index("request_id")];
}

// Makes the table, or adds what it lacks, as far as that is not refused.
void LogSchema::widen(PostgresConnection& connection)
{
    std::string columns = "id serial primary key";
    std::string additions;
    for (const auto& c : known_columns) {
        append_item(c.added ? additions : columns,
                    (c.added ? "add column if not exists " : "") +
                        enclosed(c.name, '"') + " " + c.type);
    }

    if (!exists_ && !change(connection, "create table if not exists " + table_ +
                                            " (" + columns + ")")) {
        return;
    }
    if (!(columns_ | unfit_).all()) {
        change(connection, "alter table " + table_ + " " + additions);
    }
    if (key_.empty() && !lacks_id() && error_.empty() && !busy_) {
        make_index(connection);
    }
    if (!refusal_.empty()) {
        widen_at_ = Clock::now() + (busy_ ? busy_interval : widen_interval);
    }
}

// The second is for tables that are partitioned or distributed by time.
void LogSchema::make_index(PostgresConnection& connection)
{
    const std::string before = refusal_;
    for (const auto& statement :
         {create_index(table_, "request_id", true),
          create_index(table_, "request_id, \"timestamp\"", true),
          create_index(table_, "request_id", false)}) {
        if (change(connection, statement)) {
            refusal_ = before;
            return;
        }
        if (busy_ || !error_.empty()) {
            return;
        }
    }
}

// Returns false if it was refused, or, with an error(), if the connection is of
// no use.
//
// The index of a large table may take longer than we wait: the server completes
// it nevertheless, which is why it has no time limit.
bool LogSchema::change(PostgresConnection& connection,
                       const std::string& statement)
{
    PostgresResult result =
        connection.query(std::string("set local lock_timeout = 2000;"
                                     " set local statement_timeout = 0; ") +
                         lock_turns + statement);
    if (succeeded(result)) {
        return true;
    }
    auto code = error_field(result, PG_DIAG_SQLSTATE);
    if (code.empty()) {
        return fail(connection.why(result));
    }
    busy_ = code.starts_with("40") || code.starts_with("55");
    if (refusal_.empty()) {
        refusal_ = connection.why(result);
    }
    return false;
}

// The types are the table's own.
void LogSchema::write_statements()
{
    std::string list;
    std::string typed;
    for (std::size_t i = 0; i < columns_.size(); i++) {
        if (columns_[i]) {
            const auto name = enclosed(record_columns[i], '"');
            append_item(list, name);
            append_item(typed, name + " " + types_[i]);
        }
    }

    const std::string into =
        "insert into " + table_ + " (" + list + ") select ";
    const std::string source =
        " from json_to_recordset($1::json) as x (" + typed + ")";
    auto& s = statements_;
    s = {};
    s.columns = columns_;
    s.insert = s.insert_new = into + list + source;

    if (may_select_ && !key_.empty()) {
        s.insert_new += " on conflict (" + key_ + ") do nothing";
    } else if (may_select_ && columns_[column_index("request_id")]) {
        s.take_turns = true;
        s.always_new = indexed_;
        s.insert_new = into + "distinct on (request_id) " + list + source +
                       " where not exists (select from " + table_ +
                       " y where y.request_id = x.request_id)";
    }

    if (!has_rules_) {  // COPY knows triggers, but no rules
        s.copy = "copy " + table_ + " (" + list + ") from stdin";
    }
}

void LogSchema::describe_limits()
{
    std::string lacking;
    for (const auto& c : known_columns) {
        const auto index = column_index(c.name);
        if (!columns_[index]) {
            append_item(
                lacking,
                std::string(c.name) +
                    (unfit_[index] ? " (another type, or generated)" : ""));
        }
    }
    if (key_.empty()) {
        append_item(lacking, "a unique index on request_id");
    }

    limits_ = lacking.empty()
                  ? ""
                  : "table " + table_ + " is used without " + lacking +
                        (refusal_.empty() ? "" : ": " + refusal_);
}

// The index of a partition has another name than the table's.
bool LogSchema::is_own_key(PostgresConnection& connection,
                           std::string_view schema, std::string_view constraint)
{
    std::string index = enclosed(schema, '"') + "." + enclosed(constraint, '"');
    static const std::string sql =
        "select from pg_index join pg_attribute"
        " on attrelid = indrelid and attnum = any (indkey)"
        " where indexrelid = to_regclass($1) and attname = 'request_id'";
    PostgresResult result = connection.query(sql, &index);
    return succeeded(result) && PQntuples(result.get()) == 1;
}

bool LogSchema::fail(const std::string& why)
{
    error_ = why;
    return false;
}

}  // namespace chatbot
