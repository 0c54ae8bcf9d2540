#include "postgres/table.hpp"

#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <thread>

#include "fake_server.hpp"
#include "core/record.hpp"

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

// Each test has a schema and a role of its own, in a real PostgreSQL.
class LogPostgresTest : public testing::Test {
protected:
    void SetUp() override
    {
        const char* conninfo = std::getenv("TEST_POSTGRES");
        if (!conninfo) {
            GTEST_SKIP() << "TEST_POSTGRES is not set";
        }

        conninfo_ = conninfo;
        admin_.reset(PQconnectdb(conninfo));
        ASSERT_EQ(PQstatus(admin_.get()), CONNECTION_OK)
            << PQerrorMessage(admin_.get());
        sql("set client_min_messages = warning; create schema " + name_);
        log_ = make(conninfo_);
    }

    void TearDown() override
    {
        log_.reset();
        if (admin_) {
            sql("drop schema " + name_ + " cascade");
            sql("drop role if exists " + name_);
        }
    }

    std::unique_ptr<LogPostgres> make(const std::string& conninfo)
    {
        return std::make_unique<LogPostgres>(
            conninfo, name_ + ".request_logs",
            [this] { return stopping_.load(); });
    }

    // Connects as a role that may do nothing but `rights` on the table.
    void connect_with(const std::string& rights)
    {
        sql("create role " + name_ + " login password 'secret'");
        sql("grant usage on schema " + name_ + " to " + name_);
        if (!rights.empty()) {
            sql("grant " + rights + " on " + table() + " to " + name_);
            sql("grant usage on all sequences in schema " + name_ + " to " +
                name_);
        }
        log_ = make(conninfo_ + " user=" + name_ + " password=secret");
    }

    std::string table() const { return name_ + ".request_logs"; }

    void make_old_table()
    {
        sql("create table " + table() +
            " (id serial primary key, ip_address varchar(45) not null,"
            " request_text text not null, response_text text,"
            " status varchar(20) not null,"
            " timestamp timestamptz default current_timestamp)");
    }

    // The rows of the last statement: "a|b c|d".
    std::string sql(const std::string& text)
    {
        std::unique_ptr<PGresult, decltype(&PQclear)> result(
            PQexec(admin_.get(), text.c_str()), PQclear);
        EXPECT_STREQ(PQresultErrorMessage(result.get()), "") << text;

        std::string rows;
        for (int row = 0; row < PQntuples(result.get()); row++) {
            rows += row ? " " : "";
            for (int i = 0; i < PQnfields(result.get()); i++) {
                rows += i ? "|" : "";
                rows += PQgetvalue(result.get(), row, i);
            }
        }
        return rows;
    }

    std::string rows(const std::string& columns)
    {
        return sql("select " + columns + " from " + table() + " order by id");
    }

    // How many there are on request_id.
    std::string unique_indexes()
    {
        return sql("select count(*) from pg_indexes where schemaname = '" +
                   name_ + "' and tablename = 'request_logs'" +
                   " and indexdef ~ 'UNIQUE.*\\(request_id\\)'");
    }

    std::string count() { return sql("select count(*) from " + table()); }

    // "+" if the lines were inserted, "-" if they are to come again, followed
    // by those that were rejected.
    std::string insert(const std::string& lines, const std::string& others = "",
                       bool sent_before = false)
    {
        if (lines != lines_) {
            lines_ = lines;
        }

        std::string rejected;
        auto shipping = Shipping::more;
        while (shipping == Shipping::more) {
            shipping = log_->ship(lines_, sent_before, others, rejected);
        }
        return (shipping == Shipping::done ? "+" : "-") + rejected;
    }

    // What is to be logged, as letters of the levels and texts.
    // What is to be logged, without how long it took.
    std::string notices()
    {
        std::string text;
        for (const auto& notice : log_->take_notices()) {
            text += "EWN"[static_cast<int>(notice.level)];
            auto start = notice.text.find("): ");
            auto what = notice.text.substr(start + 2);
            text += what.substr(0, what.find(" after ")) + "\n";
        }
        return text;
    }

    struct Finish {
        void operator()(PGconn* conn) const { PQfinish(conn); }
    };

    std::string lines_;
    std::string name_ = "chatbot_unit_" + std::to_string(getpid());
    std::string conninfo_;
    std::atomic<bool> stopping_ = false;
    std::unique_ptr<PGconn, Finish> admin_;
    std::unique_ptr<LogPostgres> log_;
};

std::string line(const std::string& id, const std::string& status = "success",
                 const std::string& text = "Hi")
{
    return R"({"ip_address":"192.0.2.1","request_text":")" + text +
           R"(","response_text":"Hello","status":")" + status +
           R"(","timestamp":"2026-11-23T06:13:00.123Z","request_id":")" + id +
           R"(","model":"m","cache_status":"MISS","http_status":200,)" +
           R"("duration_ms":12,"prompt_tokens":3,"completion_tokens":null})" +
           "\n";
}

TEST_F(LogPostgresTest, TableIsMade)
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

TEST_F(LogPostgresTest, OldTableIsWidenedAndKeepsItsRows)
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

TEST_F(LogPostgresTest, OldAndFreshTableAreTheSame)
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

TEST_F(LogPostgresTest, LinesThatComeAgainAreNotInsertedAgain)
{
    EXPECT_EQ(insert(line("a") + line("b") + line("a")), "+");
    EXPECT_EQ(insert(line("b") + line("c")), "+");

    EXPECT_EQ(rows("request_id"), "a b c");
}

TEST_F(LogPostgresTest, TextStaysAsItIs)
{
    EXPECT_EQ(insert(line("a", "success",
                          R"(\"'\\; -- $1 \u00e4 привет 🤖)")),
              "+");

    EXPECT_EQ(rows("request_text"), "\"'\\; -- $1 ä привет 🤖");
}

// As the journal has it: the way of most rows.
std::string record(const std::string& id, const std::string& text = "Hi",
                   const char* status = "success")
{
    Record record;
    record.ip_address = "2001:db8::1";
    record.request_text = text;
    record.response_text = text;
    record.status = status;
    record.timestamp_ms = 1795414380123;
    record.request_id = id;
    record.model = "gpt-6-luna";
    record.cache_status = "HIT";
    record.http_status = 200;
    record.duration_ms = 12;
    record.prompt_tokens = 3;

    std::string line;
    append_line(line, record);
    return line;
}

std::string with_reason(const std::string& line, const std::string& reason)
{
    return line.substr(0, line.size() - 2) + R"(,"refusal":")" + reason +
           "\"}\n";
}

TEST_F(LogPostgresTest, RecordsAreCopied)
{
    std::string all = "\\N \\. \xD0\xAF\xF0\x9F\xA4\x96";
    for (char c = 1; c > 0; c++) {
        all += c;
    }

    EXPECT_EQ(insert(record("a", all) + record("b", "\\.") + record("c", "")),
              "+");
    EXPECT_EQ(rows("request_id"), "a b c");
    EXPECT_EQ(sql("select request_text from " + table() +
                  " where request_id = 'a' and request_text = response_text"),
              all);
    EXPECT_EQ(rows("ip_address, extract(epoch from timestamp), status, model,"
                   " cache_status, http_status, duration_ms, prompt_tokens,"
                   " completion_tokens")
                  .substr(0, 52),
              "2001:db8::1|1795414380.123000|success|gpt-6-luna|HIT");
}

// They are new unless the other worker was ended between its COPY and the next.
TEST_F(LogPostgresTest, RecordsOfAnotherWorkerAreCopied)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("create function " + name_ +
        ".refuse() returns trigger language plpgsql as $$ begin"
        " if current_query() !~* '^set.*copy' then raise 'no copy'; end if;"
        " return new; end $$; create trigger refuse before insert on " +
        table() + " for each row execute function " + name_ + ".refuse()");
    EXPECT_EQ(insert(record("b") + record("c"), "", true), "+");
    EXPECT_EQ(rows("request_id"), "a b c");

    sql("drop trigger refuse on " + table());
    EXPECT_EQ(insert(record("c") + record("d") + record("a"), "", true), "+");
    EXPECT_EQ(rows("request_id"), "a b c d");
}

TEST_F(LogPostgresTest, WhatCannotBeCopiedIsInserted)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("create table " + name_ +
        ".how (query text);"
        "create function " +
        name_ +
        ".note() returns trigger language plpgsql"
        " as $$ begin insert into " +
        name_ +
        ".how"
        " values (substring(current_query() from '(copy|insert) '));"
        " return new; end $$;"
        "create trigger note before insert on " +
        table() + " for each row execute function " + name_ + ".note()");
    auto how = [&] {
        return sql("delete from " + name_ + ".how returning query");
    };

    EXPECT_EQ(insert(record("b")), "+");
    EXPECT_EQ(how(), "copy");

    EXPECT_EQ(insert(record("b") + record("c")), "+");
    EXPECT_EQ(how(), "insert insert");  // "b" to no effect
    EXPECT_EQ(insert(record("d") + line("e")), "+");
    EXPECT_EQ(how(), "insert insert");

    auto bad = record("bad", "Hi", "a status that is too long");
    EXPECT_EQ(insert(record("f") + bad + record("g")),
              "+" + with_reason(bad,
                                "value too long for type character"
                                " varying(20) (22001)"));
    EXPECT_EQ(rows("request_id"), "a b c d e f g");
    how();

    EXPECT_EQ(insert(record("h")), "+");
    EXPECT_EQ(how(), "copy");
    sql("create rule other as on insert to " + table() +
        " where new.request_id = 'none' do instead nothing");
    log_ = make(conninfo_);
    EXPECT_EQ(insert(record("i")), "+");
    EXPECT_EQ(how(), "insert");
}

TEST_F(LogPostgresTest, RowSecurityIsNoObstacle)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("alter table " + table() + " enable row level security");
    sql("create policy all_rows on " + table() + " using (true)");
    connect_with("select, insert");

    EXPECT_EQ(insert(record("b") + record("a")), "+");
    EXPECT_EQ(insert(record("c")), "+");
    EXPECT_EQ(rows("request_id"), "a b c");
}

TEST_F(LogPostgresTest, LineOfMegabytes)
{
    std::string large(5 * 1000 * 1000, 'x');

    EXPECT_EQ(insert(line("a", "success", large) + line("b")), "+");
    EXPECT_EQ(rows("length(request_text)"), "5000000 2");
}

TEST_F(LogPostgresTest, BadLineAmongGoodOnesIsRejected)
{
    std::string bad = line("bad", "a status that is too long");

    EXPECT_EQ(insert(line("a") + line("b") + bad + line("c")), "+" + bad);
    EXPECT_EQ(rows("request_id"), "a b c");
    EXPECT_EQ(notices(),
              "E records refused: 1, value too long for type character"
              " varying(20) (22001)\n");
}

TEST_F(LogPostgresTest, LinesThatAreNoRecordAreRejected)
{
    const std::string bad[] = {
        "{\"torn\": \"\n",
        "\": 1}\n",
        "1\n",
        "[]\n",
        "null\n",
        "{}\n",
        line("nul", "success", R"(\u0000)"),
        line("bytes", "success", "\xff"),
        std::string(100000, '[') + "\n",
    };

    std::string lines;
    std::string rejected;
    for (const auto& text : bad) {
        lines += text + line("a" + std::to_string(lines.size()));
        rejected += text;
    }
    lines += "{\"no end";
    rejected += "{\"no end\n";

    EXPECT_EQ(insert(lines, line("other")), "+" + rejected);
    EXPECT_EQ(count(), "9");
    EXPECT_EQ(insert("\n\n"), "+");
}

TEST_F(LogPostgresTest, ManyBadLinesAreRejected)
{
    std::string bad;
    for (int i = 0; i < 300; i++) {
        bad += line(std::to_string(i), "a status that is too long");
    }

    EXPECT_EQ(insert(bad), "-") << "it may be the table's fault";
    EXPECT_EQ(insert(bad), "-");
    EXPECT_EQ(count(), "0");
    EXPECT_EQ(notices(),
              "E value too long for type character varying(20)"
              " (22001)\n");

    std::string shipped;
    while ((shipped = insert(bad, line("other"))) == "-") {
    }
    EXPECT_EQ(shipped, "+" + bad);
    EXPECT_EQ(count(), "0") << "the other one was taken back";
}

// A column that is too narrow for most of what comes.
TEST_F(LogPostgresTest, FaultOfTheTableRejectsNothing)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("alter table " + table() + " alter model type varchar(5) using null");
    std::string lines;
    for (int i = 0; i < 100; i++) {
        lines += record(std::to_string(i));
    }

    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(insert(lines, lines), "-");
    }
    sql("alter table " + table() + " alter model type text");
    EXPECT_EQ(insert(lines, lines), "+");
    EXPECT_EQ(count(), "101");
}

// A line that was inserted before tells that the table is well.
TEST_F(LogPostgresTest, BadLineIsRejectedAlone)
{
    EXPECT_EQ(insert(record("a")), "+");

    auto bad = record("b", "Hi", "a status that is too long");
    EXPECT_EQ(insert(bad).substr(0, 10), "+" + bad.substr(0, 9));
    EXPECT_EQ(rows("request_id"), "a");
    EXPECT_EQ(insert(record("rehearsal-a")), "+");
    EXPECT_EQ(rows("request_id"), "a rehearsal-a");
}

// The line that was inserted before is short, and most others are not.
TEST_F(LogPostgresTest, FaultOfMostRowsRejectsAFew)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("alter table " + table() + " alter request_text type varchar(5)");
    std::string lines;
    for (int i = 0; i < 100; i++) {
        lines += record(std::to_string(i), "longer than that");
    }

    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(insert(lines), "-");
    }
    sql("alter table " + table() + " alter request_text type text");
    auto shipped = insert(lines);
    EXPECT_EQ(shipped.substr(0, 1), "+");
    EXPECT_LE(std::count(shipped.begin(), shipped.end(), '\n'), 8);
}

// What a trigger does to rows whose text is "evil".
class LogPostgresTriggerTest : public LogPostgresTest,
                               public testing::WithParamInterface<const char*> {
};

TEST_P(LogPostgresTriggerTest, RefusedRowHoldsUpNoOther)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("create function " + name_ +
        ".refuse() returns trigger language plpgsql"
        " as $$ declare x integer; begin if new.request_text = 'evil' then " +
        GetParam() +
        " end if; return new; end $$; create trigger refuse"
        " before insert on " +
        table() + " for each row execute function " + name_ + ".refuse()");

    std::string lines;
    for (int i = 0; i < 200; i++) {
        lines += record(std::to_string(i), i % 50 == 7 ? "evil" : "good");
    }
    auto shipped = insert(lines);
    for (int i = 0; i < 100 && shipped == "-"; i++) {
        shipped = insert(lines);
    }
    EXPECT_EQ(shipped.substr(0, 1), "+");
    EXPECT_EQ(std::count(shipped.begin(), shipped.end(), '\n'), 4);
    EXPECT_EQ(count(), "197");
}

INSTANTIATE_TEST_SUITE_P(
    All, LogPostgresTriggerTest,
    testing::Values(
        "raise exception 'not this one';", "assert false;",
        "select 1 into strict x where false;", "raise using errcode = '42501';",
        "raise using errcode = '0A000';", "raise using errcode = '57014';",
        "raise using errcode = 'ZZ999';", "raise using errcode = '08006';",
        "raise using errcode = '25006';", "raise using errcode = '28000';",
        "raise using errcode = '53100';", "raise using errcode = '57P01';",
        "raise using errcode = '58030';",
        "perform pg_terminate_backend(pg_backend_pid());",
        "raise using errcode = '23505', constraint = 'own';", "perform 1 / 0;",
        "execute 'nonsense';"));

TEST_F(LogPostgresTest, SlowRowHoldsUpNoOther)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("create function " + name_ +
        ".wait() returns trigger language plpgsql as $$ begin"
        " if new.request_text = 'evil' then perform pg_sleep(60); end if;"
        " return new; end $$; create trigger wait before insert on " +
        table() + " for each row execute function " + name_ + ".wait()");

    auto shipped = insert(record("b") + record("c", "evil") + record("d"));
    EXPECT_EQ(shipped.substr(0, 1), "+");
    EXPECT_NE(shipped.find("57014"), std::string::npos);
    EXPECT_EQ(rows("request_id"), "a b d");
}

TEST_F(LogPostgresTest, RowSecurityRefusesRows)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("alter table " + table() + " enable row level security");
    sql("create policy some_rows on " + table() +
        " for insert with check (request_text <> 'evil')");
    connect_with("insert");

    auto shipped = insert(record("b") + record("c", "evil") + record("d"));
    EXPECT_EQ(shipped.substr(0, 1), "+");
    EXPECT_NE(shipped.find("42501"), std::string::npos);
    EXPECT_EQ(rows("request_id"), "a b d");
}

TEST_F(LogPostgresTest, InsertIsRightEnough)
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

TEST_F(LogPostgresTest, SlowTableIsGivenFewRowsAtOnce)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("create function " + name_ +
        ".wait() returns trigger language plpgsql as $$ begin"
        " perform pg_sleep(0.02); return new; end $$;"
        " create trigger wait before insert on " +
        table() + " for each row execute function " + name_ + ".wait()");

    std::string lines;
    for (int i = 0; i < 150; i++) {
        lines += record(std::to_string(i));
    }
    EXPECT_EQ(log_->batch_size(lines), lines.size());
    EXPECT_EQ(insert(lines), "+");
    EXPECT_EQ(count(), "151");
}

TEST_F(LogPostgresTest, NoticesDoNotQuoteTheData)
{
    sql("create table " + table() +
        " (id serial, request_text integer, request_id text unique)");

    EXPECT_EQ(insert(line("a", "success", "private")), "-");
    EXPECT_EQ(notices().find("private"), std::string::npos);
}

// Rejecting is for what is wrong with a record.
TEST_F(LogPostgresTest, WhatFailsForAllRowsIsNoReasonToReject)
{
    EXPECT_EQ(insert(line("a")), "+");

    sql("select setval('" + table() + "_id_seq', 2147483647)");
    EXPECT_EQ(insert(line("b")), "-");
    sql("select setval('" + table() + "_id_seq', 1)");
    EXPECT_EQ(insert(line("b")), "+");

    sql("alter table " + table() + " add tenant text default '' not null");
    sql("alter table " + table() + " alter tenant drop default");
    EXPECT_EQ(insert(line("c")), "-");
    sql("alter table " + table() + " alter tenant set default ''");
    EXPECT_EQ(insert(line("c")), "+");

    // The sequence is behind, as after a restore.
    sql("select setval('" + table() + "_id_seq', 1, false)");
    EXPECT_EQ(insert(line("d")), "-");
    sql("select setval('" + table() + "_id_seq', 100)");
    EXPECT_EQ(insert(line("d")), "+");

    EXPECT_EQ(rows("request_id"), "a b c d");
}

TEST_F(LogPostgresTest, MissingPartitionIsWaitedFor)
{
    sql("create table " + table() +
        " (id serial, ip_address text, request_text text, status text,"
        " timestamp timestamptz) partition by range (timestamp)");
    EXPECT_EQ(insert(line("a")), "-");

    sql("create table " + table() + "_2026 partition of " + table() +
        " for values from ('2026-01-01') to ('2027-01-01')");
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(rows("request_id"), "a");
}

TEST_F(LogPostgresTest, PartitionedTableIsGivenAnIndexThatFits)
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
TEST_F(LogPostgresTest, IndexOfTheAdministratorWillDo)
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
TEST_F(LogPostgresTest, IndexOfColumnsThatMayBeNullWillNotDo)
{
    make_old_table();
    sql("alter table " + table() +
        " add request_id text, add model text, add unique (request_id, model)");

    EXPECT_EQ(insert(record("a") + record("a")), "+");
    EXPECT_EQ(rows("request_id"), "a");
    EXPECT_EQ(unique_indexes(), "1");
}

TEST_F(LogPostgresTest, ColumnsThatAreThereAreCopied)
{
    sql("create table " + table() +
        " (request_id text unique, status text, request_text text)");
    connect_with("insert");

    EXPECT_EQ(insert(record("a", "hi")), "+");
    EXPECT_EQ(sql("select * from " + table()), "a|success|hi");
}

TEST_F(LogPostgresTest, ConstraintsOfTheAdministratorReject)
{
    EXPECT_EQ(insert(line("a")), "+");
    sql("alter table " + table() + " add check (status <> 'odd')");
    sql("create unique index on " + table() + " (request_text, status)");

    std::string bad = line("b", "odd") + line("c");
    EXPECT_EQ(insert(bad + line("d", "cached")), "-") << "of c it is not known";
    EXPECT_EQ(insert(lines_, line("x", "new")), "+" + bad);
    EXPECT_EQ(rows("request_id"), "a d");

    sql("alter table " + table() +
        " add unique (status) deferrable initially deferred");
    bad = line("e", "cached", "new");
    EXPECT_EQ(insert(bad + line("f", "error")), "+" + bad);
    EXPECT_EQ(rows("request_id"), "a d f");
}

TEST_F(LogPostgresTest, TableOfSomebodyElseIsUsedAsItIs)
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

TEST_F(LogPostgresTest, TableThatIsNoLogIsLeftAlone)
{
    sql("create table " + table() + " (name text)");

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(notices(), "E table \"" + name_ +
                             "\".\"request_logs\" is no log of questions: it"
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

TEST_F(LogPostgresTest, WithoutUniqueIndexALineComesOnceNevertheless)
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

TEST_F(LogPostgresTest, IdsThatAreThereTwiceAreNoObstacle)
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

TEST_F(LogPostgresTest, InsertAndSelectAreRightsEnough)
{
    EXPECT_EQ(insert(line("a")), "+");
    connect_with("insert, select");

    EXPECT_EQ(insert(line("a") + line("b")), "+");
    EXPECT_EQ(rows("request_id"), "a b");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogPostgresTest, MissingRightsAreToldOnceAndWaitedFor)
{
    connect_with("");

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(notices(),
              "E permission denied for schema " + name_ + " (42501)\n");

    sql("grant create on schema " + name_ + " to " + name_);
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "N is back\n");
    sql("drop owned by " + name_);
}

TEST_F(LogPostgresTest, ConnectionThatWasCutIsReplaced)
{
    EXPECT_EQ(insert(line("a")), "+");
    sql("select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where application_name = 'ngx_http_chatbot_module'");

    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(rows("request_id"), "a b");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogPostgresTest, TableThatWasDroppedIsMadeAgain)
{
    EXPECT_EQ(insert(line("a")), "+");
    sql("drop table " + table());

    EXPECT_EQ(insert(line("b")), "-");
    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(rows("request_id"), "b");
}

TEST_F(LogPostgresTest, TableThatWasArchivedKeepsItsIndexToItself)
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

TEST_F(LogPostgresTest, NamesMayHaveQuotes)
{
    log_ = std::make_unique<LogPostgres>(conninfo_, name_ + R"(.a'"b\c$$)",
                                         [] { return false; });

    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "");
}

TEST_F(LogPostgresTest, LockedTableIsWaitedFor)
{
    make_old_table();
    sql("begin; lock table " + table());

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_NE(notices().find("E canceling statement due to lock timeout"
                             " (55P03)\n"),
              std::string::npos);

    sql("commit");
    EXPECT_EQ(insert(line("a")), "+");
    EXPECT_EQ(notices(), "N is back\n");
}

TEST_F(LogPostgresTest, ReadOnlyServerIsWaitedFor)
{
    EXPECT_EQ(insert(line("a")), "+");
    connect_with("insert, select");
    sql("alter role " + name_ + " set default_transaction_read_only = on");

    EXPECT_EQ(insert(line("b")), "-");
    EXPECT_EQ(insert(line("b")), "-");
    EXPECT_EQ(notices(),
              "E cannot execute INSERT in a read-only transaction (25006)\n");

    sql("alter role " + name_ + " reset default_transaction_read_only");
    EXPECT_EQ(insert(line("b")), "+");
    EXPECT_EQ(notices(), "N is back\n");
}

TEST_F(LogPostgresTest, WorkersRaceForTheTable)
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

TEST_F(LogPostgresTest, ServerThatIsNotThereIsToldOnce)
{
    log_ = make("host=/nonexistent user=me password=secret dbname=logs");

    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_EQ(insert(line("a")), "-");

    std::string told = notices();
    EXPECT_EQ(told.substr(0, 2), "E ");
    EXPECT_EQ(told.find('\n'), told.size() - 1);
    EXPECT_EQ(told.find("secret"), std::string::npos);
}

// A server that lets everybody in, and says this to whatever it is asked.
class FakePostgresTest : public LogPostgresTest {
protected:
    std::string insert_told(std::string_view reply)
    {
        FakeServer server([&](Peer& peer, int) {
            peer.receive();
            peer.send("R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"sv);
            peer.receive();
            peer.send(reply);
            peer.left();
        });
        log_ = make("host=127.0.0.1 port=" + std::to_string(server.port()) +
                    " user=me sslmode=disable gssencmode=disable");
        std::string inserted = insert(line("a"));
        return inserted + notices();
    }
};

TEST_F(FakePostgresTest, CopyIsAFailure)
{
    for (auto reply : {"G\0\0\0\x07\0\0\0"sv, "H\0\0\0\x07\0\0\0"sv,
                       "W\0\0\0\x07\0\0\0"sv}) {
        EXPECT_EQ(insert_told(reply), "-E answers nonsense\n");
    }
}

TEST_F(FakePostgresTest, ControlCharactersAreNotTold)
{
    EXPECT_EQ(insert_told("E\0\0\0\x1CSFATAL\0C57P03\0Mno\x1b[1m!\0\0"
                          "Z\0\0\0\x05I"sv),
              "-E no [1m! (57P03)\n");
}

// A server that takes connections and never says a word.
TEST_F(LogPostgresTest, StoppingEndsTheWaitForASilentServer)
{
    char dir[] = "/tmp/chatbot-XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::string path = std::string(dir) + "/.s.PGSQL.5432";
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);

    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT_EQ(
        bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)),
        0);
    ASSERT_EQ(listen(listener, 1), 0);

    std::thread stopper([&] {
        int peer = accept(listener, nullptr, nullptr);
        stopping_ = true;
        char byte;
        while (recv(peer, &byte, 1, 0) > 0) {  // until it hangs up
        }
        close(peer);
    });

    auto start = std::chrono::steady_clock::now();
    log_ = make(std::string("host=") + dir + " port=5432 user=me dbname=logs");
    EXPECT_EQ(insert(line("a")), "-");
    EXPECT_LT(std::chrono::steady_clock::now() - start,
              std::chrono::seconds(5));
    EXPECT_EQ(notices(), "");

    stopper.join();
    close(listener);
    unlink(path.c_str());
    rmdir(dir);
}

}  // namespace
}  // namespace chatbot
