#include <atomic>
#include <thread>
#include <vector>

#include "postgres/log_fixture.hpp"

// What the log makes of the table that is there, or is not.

namespace chatbot {
namespace {

class LogSchemaTest : public LogPostgresTest {};

TEST_F(LogSchemaTest, TableIsMade)
{
    EXPECT_EQ(insert(line("a")), "+");

    EXPECT_EQ(rows("id, ip_address, request_text, response_text, status"),
              "1|192.0.2.1|Hi|Hello|success");
    EXPECT_EQ(rows("extract(epoch from timestamp), request_id, model"),
              "1795414380.123000|a|m");
    EXPECT_EQ(rows("cache_status, http_status, duration_ms, prompt_tokens,"
                   " completion_tokens"),
              "MISS|200|12|3|");
    EXPECT_EQ(sql("select collation_name from information_schema.columns where"
                  " table_schema = '" +
                  name_ + "' and column_name = 'request_id'"),
              "C");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogSchemaTest, OldTableIsWidenedAndKeepsItsRows)
{
    make_old_table();
    sql("insert into " + table() +
        " (ip_address, request_text, status) values ('::1', 'old', 'cached'),"
        " ('::1', 'older', 'cached')");

    EXPECT_EQ(insert(line("a") + line("b")), "+");
    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(rows("request_text, request_id"), "old| older| Hi|a Hi|b");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogSchemaTest, OldAndFreshTableAreTheSame)
{
    const std::string columns =
        "select string_agg(format('%s %s %s', column_name, data_type,"
        " is_nullable), ',' order by ordinal_position)"
        " from information_schema.columns where table_schema = '" +
        name_ + "'";

    EXPECT_EQ(insert(line("a")), "+");
    std::string fresh = sql(columns);

    sql("drop table " + table());
    make_old_table();
    log_ = make(conninfo_);
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(sql(columns), fresh);
}

TEST_F(LogSchemaTest, InsertIsRightEnough)
{
    EXPECT_EQ(insert(record("a")), "+");
    connect_with("insert");

    EXPECT_EQ(insert(record("b")), "+");
    EXPECT_EQ(insert(record("a") + record("c") + record("b") + record("d")),
              "+");
    auto bad = record("bad", "Hi", "a status that is too long");
    EXPECT_EQ(insert(record("e") + record("a") + bad + record("f"), "", true)
                  .substr(0, 20),
              "+" + bad.substr(0, 19));
    EXPECT_EQ(rows("request_id"), "a b c d e f");
    EXPECT_EQ(notices().find("denied"), std::string::npos);
}

TEST_F(LogSchemaTest, PartitionedTableIsGivenAnIndexThatFits)
{
    sql("create table " + table() +
        " (ip_address text, request_text text, response_text text, status text,"
        " timestamp timestamptz) partition by range (timestamp)");
    sql("create table " + table() + "_all partition of " + table() +
        " for values from ('2020-01-01') to ('2100-01-01')");

    EXPECT_EQ(insert(record("a") + record("b")), "+");
    EXPECT_EQ(insert(record("b") + record("c")), "+");
    EXPECT_EQ(
        sql("select string_agg(request_id, ' ' order by request_id) from " +
            table()),
        "a b c");
    EXPECT_EQ(notices(), "");

    connect_with("insert");
    EXPECT_EQ(insert(record("d") + record("b") + record("e")), "+");
    EXPECT_EQ(count(), "5");
}

// Any unique index that two copies of a line cannot both enter.
TEST_F(LogSchemaTest, IndexOfTheAdministratorWillDo)
{
    EXPECT_EQ(insert(record("a")), "+");
    for (std::string columns : {"status, request_id", "request_id, timestamp",
                                "timestamp, request_id, http_status"}) {
        sql("drop index " +
            sql("select indexrelid::regclass from pg_index where"
                " not indisprimary and indrelid = '" +
                table() + "'::regclass"));
        sql("create unique index on " + table() + " (" + columns + ")");
        log_ = make(conninfo_);
        EXPECT_EQ(insert(record("a") + record(columns)), "+");
        EXPECT_EQ(insert(record(columns)), "+");
        EXPECT_EQ(sql("select count(*) from pg_index where indrelid = '" +
                      table() + "'::regclass"),
                  "2");
    }
    EXPECT_EQ(count(), "4");
    EXPECT_EQ(notices(), "");
}

// Of null values there can be any number.
TEST_F(LogSchemaTest, IndexOfColumnsThatMayBeNullWillNotDo)
{
    make_old_table();
    sql("alter table " + table() +
        " add request_id text, add model text, add unique (request_id, model)");

    EXPECT_EQ(insert(record("a") + record("a")), "+");
    EXPECT_EQ(rows("request_id"), "a");
    EXPECT_EQ(unique_indexes(), "1");
}

TEST_F(LogSchemaTest, ColumnsThatAreThereAreCopied)
{
    sql("create table " + table() +
        " (request_id text unique, status text, request_text text)");
    connect_with("insert");

    EXPECT_EQ(insert(record("a", "hi")), "+");
    EXPECT_EQ(sql("select * from " + table()), "a|success|hi");
}

TEST_F(LogSchemaTest, TableOfSomebodyElseIsUsedAsItIs)
{
    make_old_table();
    connect_with("insert, select");

    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(rows("request_text, status"), "Hi|success");
    EXPECT_EQ(notices(), "W table \"" + name_ +
                             "\".\"request_logs\" is used without request_id,"
                             " model, cache_status, http_status, duration_ms,"
                             " prompt_tokens, completion_tokens, first_byte_ms,"
                             " cached_tokens, reasoning_tokens, attempts,"
                             " upstream, upstream_request_id, client_name,"
                             " a unique index"
                             " on request_id: must be owner of table"
                             " request_logs (42501)\n");

    sql("select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where usename = '" +
        name_ + "'");
    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(notices(), "") << "told once";
}

// Of the same name, but for other things.
TEST_F(LogSchemaTest, ColumnsOfOthersAreLeftAlone)
{
    make_old_table();
    sql("alter table " + table() +
        " add column model int, add column duration_ms date,"
        " add column upstream text generated always as ('x') stored,"
        " add column attempts text, add column client_name varchar(9)");
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(insert(line("a")), "+") << "each comes once";
    }
    EXPECT_EQ(rows("request_text, model, duration_ms, upstream, http_status"),
              "Hi|||x|200");
    EXPECT_EQ(notices(), "W table \"" + name_ +
                             "\".\"request_logs\" is used without model"
                             " (another type, or generated), duration_ms"
                             " (another type, or generated), upstream"
                             " (another type, or generated)\n");
}

TEST_F(LogSchemaTest, RequestIdsOfOthersAreLeftAlone)
{
    make_old_table();
    sql("alter table " + table() + " add column request_id bigserial unique");
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(rows("request_text, request_id, status"), "Hi|1|success");
    EXPECT_NE(notices().find("without request_id (another"), std::string::npos);
}

TEST_F(LogSchemaTest, TableThatIsNoLogIsLeftAlone)
{
    sql("create table " + table() + " (name text)");

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(notices(),
              "E table \"" + name_ +
                  "\".\"request_logs\" is not a table for the log: it"
                  " has no column request_text\n");
    EXPECT_EQ(sql("select string_agg(attname, ' ') from pg_attribute where"
                  " attnum > 0 and attrelid = '" +
                  table() + "'::regclass"),
              "name");

    sql("drop table " + table() + "; create table " + table() + " ()");
    EXPECT_EQ(insert(line("a")), "-");

    sql("drop table " + table());
    EXPECT_EQ(insert(line("a")), "+");
}

TEST_F(LogSchemaTest, WithoutUniqueIndexALineComesOnceNevertheless)
{
    make_old_table();
    sql("alter table " + table() + " add request_id text");
    connect_with("insert, select");

    std::string bad = line("bad", "a status that is too long");
    EXPECT_EQ(insert(line("a") + line("b") + bad + line("a"), "", true), "-");
    EXPECT_EQ(insert(lines_, line("c")), "+" + bad);
    EXPECT_EQ(insert(line("b") + line("c"), "", true), "+");
    EXPECT_EQ(rows("request_id"), "a b c");
}

TEST_F(LogSchemaTest, IdsThatAreThereTwiceAreNoObstacle)
{
    make_old_table();
    sql("alter table " + table() + " add request_id text");
    sql("insert into " + table() +
        " (ip_address, request_text, status, request_id) values"
        " ('::1', 'x', 'error', 'a'), ('::1', 'x', 'error', 'a')");

    EXPECT_EQ(insert(line("a") + line("b")), "+");
    EXPECT_EQ(rows("request_id, model"), "a| a| b|m");
    EXPECT_NE(notices().find("without a unique index"), std::string::npos);
}

TEST_F(LogSchemaTest, InsertAndSelectAreRightsEnough)
{
    EXPECT_EQ(insert(line("a")), "+");
    connect_with("insert, select");

    EXPECT_EQ(insert(line("a") + line("b")), "+");
    EXPECT_EQ(rows("request_id"), "a b");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogSchemaTest, TableThatWasDroppedIsMadeAgain)
{
    EXPECT_EQ(insert(line("a")), "+");
    sql("drop table " + table());

    EXPECT_EQ(insert(line("b")), "-");
    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(rows("request_id"), "b");
}

TEST_F(LogSchemaTest, TableThatWasArchivedKeepsItsIndexToItself)
{
    for (std::string archive : {"old", "older"}) {
        EXPECT_EQ(insert(line("a") + line("a")), "+");
        EXPECT_EQ(unique_indexes(), "1");
        sql("alter table " + table() + " rename to " + archive);
        EXPECT_EQ(insert(line("a")), "-");
    }

    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(unique_indexes(), "1");
}

TEST_F(LogSchemaTest, NamesMayHaveQuotes)
{
    log_ = std::make_unique<LogPostgres>(conninfo_, name_ + R"(.a'"b\c$$)",
                                         [] { return false; });

    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogSchemaTest, WorkersRaceForTheTable)
{
    constexpr int n = 8;
    std::atomic<int> done = 0;
    std::vector<std::thread> workers;
    for (int i = 0; i < n; i++) {
        workers.emplace_back([&, i] {
            auto log = make(conninfo_);
            std::string rejected;
            const std::string lines = line("all") + line(std::to_string(i));
            int left = 100;
            while (log->ship(lines, false, "", rejected) != Shipping::done &&
                   --left > 0) {
            }
            done += left > 0 && rejected.empty();
        });
    }
    for (auto& worker : workers) {
        worker.join();
    }

    EXPECT_EQ(done, n);
    EXPECT_EQ(count(), std::to_string(n + 1));
    EXPECT_EQ(unique_indexes(), "1");
}

}  // namespace
}  // namespace chatbot
