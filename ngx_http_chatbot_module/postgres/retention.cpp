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
    "set local idle_in_transaction_session_timeout = 9000; ";

// Whether no other worker is at this table, of all hosts.  The first half of
// the key is "chat" in ASCII.
std::string take_turn(const std::string& table)
{
    return "select pg_try_advisory_xact_lock(x'63686174'::int, to_regclass(" +
           enclosed(table, '\'') + ")::oid::int)";
}

// Whether the table is partitioned by range of "timestamp".
std::string look(const std::string& table)
{
    return "select exists (select from pg_partitioned_table join pg_attribute"
           " on attrelid = partrelid and attnum = partattrs[0]"
           " where partrelid = to_regclass(" +
           enclosed(table, '\'') +
           ") and partstrat = 'r' and partnatts = 1 and attname = "
           "'timestamp')";
}

// The partitions by their bounds, as PostgreSQL shows them; DEFAULT has null as
// bounds.  A partition is closed if it has a lower bound, and a later one
// follows: only these are dropped.
std::string partitions(const std::string& table)
{
    return R"((
    select c.oid::regclass as name, first, last,
        coalesce(isfinite(first) and last < max(last) over (), false) as closed
    from pg_inherits join pg_class c on c.oid = inhrelid
    cross join regexp_match(pg_get_expr(relpartbound, c.oid),
        $re$FROM \('?([^')]+)'?\) TO \('?([^')]+)'?\)$re$) as bound
    cross join lateral (select
        case bound[1] when 'MINVALUE' then '-infinity' else bound[1]
            end::timestamptz as first,
        case bound[2] when 'MAXVALUE' then 'infinity' else bound[2]
            end::timestamptz as last) as times
    where inhparent = to_regclass()" +
           enclosed(table, '\'') + ")) p";
}

// Makes partitions until there is one for each moment of the next days, as long
// as the last one.  If one cannot be made, those before it stay; the next call
// fails.
//
// Days and months are those of the zone in which the last one begins and ends
// at midnight: UTC or the session's.  If that is neither, a change to or from
// summer time may have made the last one an hour shorter or longer.
std::string make_partitions(const std::string& table)
{
    return R"(do $chatbot$
declare
    parent regclass := to_regclass()" +
           enclosed(table, '\'') + R"();
    lower timestamptz;
    upper timestamptz;
    span interval;
    width interval;
    days interval;
    name text;
begin
    select p.first, p.last into lower, upper
        from )" +
           partitions(table) + R"( order by p.last desc nulls last limit 1;
    if (isfinite(lower) and isfinite(upper)) is not true then
        return;
    end if;

    span := upper - lower;
    if span < interval '23 hours' or date_trunc('day', lower, 'UTC') = lower
        and date_trunc('day', upper, 'UTC') = upper
    then
        set local timezone to 'UTC';
    end if;

    width := age(upper, lower);
    days := date_trunc('day', justify_hours(span + interval '1 hour'));
    if span < interval '23 hours' then
        width := span;
    elsif width = date_trunc('day', width) then
        null;
    elsif days between interval '28 days' and interval '31 days' then
        width := interval '1 month';
    else
        width := days;
    end if;

    for i in 1 .. 100 loop
        exit when upper > now() + greatest(width, interval '3 days');
        select format('%I.%I', nspname, left(relname, 45) || '_' || to_char(
                upper, case when width < interval '1 day'
                then 'YYYYMMDD_HH24MI' else 'YYYYMMDD' end))
            into name
            from pg_class c join pg_namespace n on n.oid = relnamespace
            where c.oid = parent;
        begin
            execute format('create table if not exists %s partition of %s'
                ' for values from (%L) to (%L)',
                name, parent, upper, upper + width);
        exception when others then
            if i = 1 then
                raise;
            end if;
            exit;
        end;
        upper := upper + width;
    end loop;
end $chatbot$)";
}

std::string drop_partitions(const std::string& table, const std::string& keep)
{
    return R"(do $chatbot$
declare
    part record;
begin
    for part in select p.name from )" +
           partitions(table) + R"(
        where p.closed and p.last < now() - )" +
           keep + R"( order by p.last limit 100
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
    bool more = false;
    for (const auto& table : tend_partitions(connection, error)) {
        bool deleted;
        do {
            auto result = run(connection, delete_rows(table, keep_), error);
            deleted = std::atoi(PQcmdTuples(result.get())) > 0;
        } while (deleted && Clock::now() <= until);
        more = more || deleted;
    }

    if (more && error.empty()) {
        return error;  // is_due() at once
    }
    due_ = Clock::now() +
           (error.empty() ? interval_ : std::min(interval_, retry_interval));
    return error;
}

// Makes and drops partitions, if the table has any.  Returns the tables of
// which rows are to be deleted.
std::vector<std::string> Retention::tend_partitions(
    PostgresConnection& connection, std::string& error) const
{
    PostgresResult result = run(connection, look(table_), error);
    if (!result) {
        return {};
    }
    if (*PQgetvalue(result.get(), 0, 0) != 't') {
        return {table_};
    }

    // Each of these is done even if those before it fail.
    run(connection, make_partitions(table_), error);
    run(connection, drop_partitions(table_, keep_), error);
    result =
        run(connection,
            "select p.name from " + partitions(table_) + " where not p.closed",
            error);

    std::vector<std::string> tables;
    for (int row = 0; row < PQntuples(result.get()); row++) {
        tables.emplace_back(PQgetvalue(result.get(), row, 0));
    }
    return tables;
}

// Runs the statement in a transaction of its own.  Returns null if it failed,
// with the reason in `error` unless there is an earlier one, and null without
// an error if another worker is at this table.
PostgresResult Retention::run(PostgresConnection& connection,
                              const std::string& statement,
                              std::string& error) const
{
    PostgresResult result = connection.query(begin + take_turn(table_));
    const bool ours =
        succeeded(result) && *PQgetvalue(result.get(), 0, 0) == 't';
    if (ours) {
        result = connection.query(statement);
    }

    std::string why = succeeded(result) ? "" : connection.why(result);
    PostgresResult end = connection.query(why.empty() ? "commit" : "rollback");
    if (why.empty() && !succeeded(end)) {
        why = connection.why(end);
    }

    if (error.empty()) {
        error = why;
    }
    return ours && why.empty() ? std::move(result) : nullptr;
}

}  // namespace chatbot
