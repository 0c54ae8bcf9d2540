#pragma once

#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>

#include "core/record.hpp"
#include "postgres/table.hpp"

namespace chatbot {

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

    // Has each row that is inserted go through these statements of plpgsql.
    void make_trigger(const std::string& statements)
    {
        sql("create function " + name_ +
            ".spoil() returns trigger language plpgsql as $$ begin " +
            statements + " return new; end $$; create trigger spoil" +
            " before insert on " + table() + " for each row execute function " +
            name_ + ".spoil()");
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

    // What is to be logged, as letters of the levels and texts, without how
    // long it took.
    std::string notices()
    {
        std::string text;
        for (const auto& notice : log_->take_notices()) {
            text += "EWN"[static_cast<int>(notice.level)];
            auto start = notice.text.find(": ", notice.text.find(")"));
            auto what = notice.text.substr(start + 1);
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

inline std::string line(const std::string& id,
                        const std::string& status = "success",
                        const std::string& text = "Hi")
{
    return R"({"ip_address":"192.0.2.1","request_text":")" + text +
           R"(","response_text":"Hello","status":")" + status +
           R"(","timestamp":"2026-11-23T06:13:00.123Z","request_id":")" + id +
           R"(","model":"m","cache_status":"MISS","http_status":200,)" +
           R"("duration_ms":12,"prompt_tokens":3,"completion_tokens":null})" +
           "\n";
}

// As the journal has it: the way of most rows.
inline std::string record(const std::string& id, const std::string& text = "Hi",
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

inline std::string with_reason(const std::string& line,
                               const std::string& reason)
{
    return line.substr(0, line.size() - 2) + R"(,"refusal":")" + reason +
           "\"}\n";
}

}  // namespace chatbot
