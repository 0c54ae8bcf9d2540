#include <algorithm>

#include "postgres/log_fixture.hpp"

// Records that PostgreSQL refuses, and those beside them.

namespace chatbot {
namespace {

class LogRefusalTest : public LogPostgresTest {
protected:
    // Of three more rows, that whose text is "evil" is refused with this code.
    void expect_evil_refused(const char* code)
    {
        auto shipped = insert(record("b") + record("c", "evil") + record("d"));
        EXPECT_EQ(shipped.substr(0, 1), "+");
        EXPECT_NE(shipped.find(code), std::string::npos);
        EXPECT_EQ(rows("request_id"), "a b d");
    }
};

TEST_F(LogRefusalTest, BadLineAmongGoodOnesIsRejected)
{
    std::string bad = line("bad", "a status that is too long");

    EXPECT_EQ(insert(line("a") + line("b") + bad + line("c")), "+" + bad);
    EXPECT_EQ(rows("request_id"), "a b c");
    EXPECT_EQ(notices(),
              "E records refused: 1, value too long for type character"
              " varying(20) (22001)\n");
}

TEST_F(LogRefusalTest, LinesThatAreNoRecordAreRejected)
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

TEST_F(LogRefusalTest, ManyBadLinesAreRejected)
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
TEST_F(LogRefusalTest, FaultOfTheTableRejectsNothing)
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
TEST_F(LogRefusalTest, BadLineIsRejectedAlone)
{
    EXPECT_EQ(insert(record("a")), "+");

    auto bad = record("b", "Hi", "a status that is too long");
    EXPECT_EQ(insert(bad).substr(0, 10), "+" + bad.substr(0, 9));
    EXPECT_EQ(rows("request_id"), "a");
    EXPECT_EQ(insert(record("rehearsal-a")), "+");
    EXPECT_EQ(rows("request_id"), "a rehearsal-a");
}

// The line that was inserted before is short, and most others are not.
TEST_F(LogRefusalTest, FaultOfMostRowsRejectsAFew)
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
    make_trigger("declare x integer; begin if new.request_text = 'evil' then " +
                 std::string(GetParam()) + " end if; end;");

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

TEST_F(LogRefusalTest, SlowRowHoldsUpNoOther)
{
    EXPECT_EQ(insert(record("a")), "+");
    make_trigger(
        "if new.request_text = 'evil' then perform pg_sleep(60); end if;");

    expect_evil_refused("57014");
}

TEST_F(LogRefusalTest, RowSecurityRefusesRows)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("alter table " + table() + " enable row level security");
    sql("create policy some_rows on " + table() +
        " for insert with check (request_text <> 'evil')");
    connect_with("insert");

    expect_evil_refused("42501");
}

TEST_F(LogRefusalTest, SlowTableIsGivenFewRowsAtOnce)
{
    EXPECT_EQ(insert(record("a")), "+");
    make_trigger("perform pg_sleep(0.02);");

    std::string lines;
    for (int i = 0; i < 150; i++) {
        lines += record(std::to_string(i));
    }
    EXPECT_EQ(log_->batch_size(lines), lines.size());
    EXPECT_EQ(insert(lines), "+");
    EXPECT_EQ(count(), "151");
}

TEST_F(LogRefusalTest, NoticesDoNotQuoteTheData)
{
    sql("create table " + table() +
        " (id serial, request_text integer, request_id text unique)");

    EXPECT_EQ(insert(line("a", "success", "private")), "-");
    EXPECT_EQ(notices().find("private"), std::string::npos);
}

// Rejecting is for what is wrong with a record.
TEST_F(LogRefusalTest, WhatFailsForAllRowsIsNoReasonToReject)
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

TEST_F(LogRefusalTest, MissingPartitionIsWaitedFor)
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

TEST_F(LogRefusalTest, ConstraintsOfTheAdministratorReject)
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

}  // namespace
}  // namespace chatbot
