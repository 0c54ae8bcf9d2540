#include "postgres/retention.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "postgres/connection.hpp"
#include "postgres/schema.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds work_time(500);
constexpr milliseconds deadline(3000);

// A tenth of the time that rows are kept, in between these.
constexpr std::chrono::seconds min_interval(1);
constexpr std::chrono::steady_clock::duration retry_interval =
    std::chrono::seconds(5);
constexpr std::chrono::seconds max_interval(600);

constexpr int rows_per_step = 1000;

// Others wait behind a lock that is waited for, so not long.
constexpr const char* begin =
    "begin; set local lock_timeout = 200; set local statement_timeout = 1500; "
    "set local idle_in_transaction_session_timeout = 9000";

// Whether it is our turn, and whether the table is partitioned by time.  The
// key is "chatretn" in ASCII.
constexpr const char* look =
    "select pg_try_advisory_xact_lock(x'636861747265746e'::bigint),"
    " exists (select from pg_partitioned_table join pg_attribute"
    " on attrelid = partrelid and attnum = partattrs[0]"
    " where partrelid = to_regclass($1) and partstrat = 'r' and partnatts = 1"
    " and attname = 'timestamp'),"
    " to_regclass($1) is not null";

// The partitions of `parent`, by their bounds as PostgreSQL shows them.
constexpr const char* partitions =
    "(select c.oid::regclass as name, bound[1]::timestamptz as first,"
    " bound[2]::timestamptz as last from pg_inherits"
    " join pg_class c on c.oid = inhrelid,"
    " regexp_match(pg_get_expr(relpartbound, c.oid),"
    " $re$FROM \\('([^']+)'\\) TO \\('([^']+)'\\)$re$) as bound"
    " where inhparent = parent and bound is not null) p";

// Makes partitions until there is one for each moment of the next days, then
// drops those that are too old.
std::string tend_partitions(const std::string& table, const std::string& keep)
{
    return R"(do $chatbot$
declare
    parent regclass := to_regclass()" +
           enclosed(table, '\'') + R"();
    part record;
    width interval;
    upper timestamptz;
    name text;
begin
    select age(p.last, p.first), p.last into width, upper
        from )" +
           partitions + R"( order by p.last desc limit 1;
    for i in 1 .. 100 loop
        exit when upper is null
            or upper > now() + greatest(width, interval '3 days');
        select format('%I.%I', nspname, left(relname, 45) || '_' || to_char(
                upper, case when width < interval '1 day'
                then 'YYYYMMDD_HH24MI' else 'YYYYMMDD' end))
            into name
            from pg_class c join pg_namespace n on n.oid = relnamespace
            where c.oid = parent;
        execute format(
            'create table if not exists %s partition of %s for values from (%L)'
            ' to (%L)', name, parent, upper, upper + width);
        upper := upper + width;
    end loop;

    for part in select p.name from )" +
           partitions + R"(
        where p.last < now() - )" +
           keep + R"(
    loop
        execute format('drop table %s', part.name);
    end loop;
end $chatbot$)";
}

// Deletes some old rows.  The list of ctids makes it fast.  A ctid is unique
// within one heap only, and the table may have several (partitions, children,
// chunks), so the other conditions are needed too.
std::string delete_rows(const std::string& table, const std::string& keep)
{
    const std::string is_old = "\"timestamp\" < now() - " + keep;
    return "with old as materialized (select tableoid, ctid from " + table +
           " where " + is_old + " limit " + std::to_string(rows_per_step) +
           ") delete from " + table +
           " where ctid = any (array(select ctid from old))"
           " and (tableoid, ctid) in (select tableoid, ctid from old) and " +
           is_old;
}

}  // namespace

Retention::Retention(std::string table, std::int64_t keep_s)
    : table_(std::move(table)),
      keep_("make_interval(secs => " + std::to_string(keep_s) + ")"),
      interval_(std::clamp<Clock::duration>(std::chrono::seconds(keep_s / 10),
                                            min_interval, max_interval))
{
}

std::string Retention::work(PostgresConnection& connection)
{
    const auto until = Clock::now() + work_time;
    connection.set_deadline(Clock::now() + deadline);
    std::string error;
    while (step(connection, error)) {
        if (Clock::now() > until) {
            return error;  // there is more, which is_due()
        }
    }
    due_ = Clock::now() +
           (error.empty() ? interval_ : std::min(interval_, retry_interval));
    return error;
}

// Returns whether there may be more to do.
bool Retention::step(PostgresConnection& connection, std::string& error)
{
    PostgresResult result = connection.query(begin);
    bool more = false;
    if (succeeded(result)) {
        more = clean(connection, error);
        result = connection.query(error.empty() ? "commit" : "rollback");
    }
    if (!succeeded(result) && error.empty()) {
        error = connection.why(result);
    }
    return more && error.empty();
}

bool Retention::clean(PostgresConnection& connection, std::string& error)
{
    PostgresResult result = connection.query(look, &table_);
    auto is = [&](int field) {
        return *PQgetvalue(result.get(), 0, field) == 't';
    };
    if (!succeeded(result)) {
        error = connection.why(result);
        return false;
    }
    if (!is(0) || !is(2)) {
        return false;
    }

    const bool partitioned = is(1);
    result = connection.query(partitioned ? tend_partitions(table_, keep_)
                                          : delete_rows(table_, keep_));
    if (!succeeded(result)) {
        error = connection.why(result);
        return false;
    }
    return !partitioned && std::atoi(PQcmdTuples(result.get())) > 0;
}

}  // namespace chatbot
