#include "postgres/log_fixture.hpp"

// How records become rows.

namespace chatbot {
namespace {

class LogInsertTest : public LogPostgresTest {};

TEST_F(LogInsertTest, LinesThatComeAgainAreNotInsertedAgain)
{
    EXPECT_EQ(insert(line("a") + line("b") + line("a")), "+");
    EXPECT_EQ(insert(line("b") + line("c")), "+");

    EXPECT_EQ(rows("request_id"), "a b c");
}

TEST_F(LogInsertTest, TextStaysAsItIs)
{
    EXPECT_EQ(insert(line("a", "success",
                          R"(\"'\\; -- $1 \u00e4 привет 🤖)")),
              "+");

    EXPECT_EQ(rows("request_text"), "\"'\\; -- $1 ä привет 🤖");
}

TEST_F(LogInsertTest, RecordsAreCopied)
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
TEST_F(LogInsertTest, RecordsOfAnotherWorkerAreCopied)
{
    EXPECT_EQ(insert(record("a")), "+");
    make_trigger(
        "if current_query() !~* '^set.*copy' then raise 'no copy'; end if;");
    EXPECT_EQ(insert(record("b") + record("c"), "", true), "+");
    EXPECT_EQ(rows("request_id"), "a b c");

    sql("drop trigger spoil on " + table());
    EXPECT_EQ(insert(record("c") + record("d") + record("a"), "", true), "+");
    EXPECT_EQ(rows("request_id"), "a b c d");
}

TEST_F(LogInsertTest, WhatCannotBeCopiedIsInserted)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("create table " + name_ + ".how (query text)");
    make_trigger("insert into " + name_ +
                 ".how values"
                 " (substring(current_query() from '(copy|insert) '));");
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

TEST_F(LogInsertTest, RowSecurityIsNoObstacle)
{
    EXPECT_EQ(insert(record("a")), "+");
    sql("alter table " + table() + " enable row level security");
    sql("create policy all_rows on " + table() + " using (true)");
    connect_with("select, insert");

    EXPECT_EQ(insert(record("b") + record("a")), "+");
    EXPECT_EQ(insert(record("c")), "+");
    EXPECT_EQ(rows("request_id"), "a b c");
}

TEST_F(LogInsertTest, LineOfMegabytes)
{
    std::string large(5 * 1000 * 1000, 'x');

    EXPECT_EQ(insert(line("a", "success", large) + line("b")), "+");
    EXPECT_EQ(rows("length(request_text)"), "5000000 2");
}

}  // namespace
}  // namespace chatbot
