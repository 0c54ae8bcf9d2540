#include "core/record.hpp"

#include <gtest/gtest.h>

#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

std::string line(const Record& record)
{
    std::string out;
    append_line(out, record);
    return out;
}

TEST(RecordTest, Everything)
{
    Record record;
    record.ip_address = "2001:db8::1";
    record.request_text = "What is \"1\\1\"?\n";
    record.response_text = "что";
    record.status = "success";
    record.timestamp_ms = 1795414380123;
    record.request_id = "0af1";
    record.model = "gpt";
    record.cache_status = "MISS";
    record.http_status = 200;
    record.duration_ms = 1234567;
    record.prompt_tokens = 0;
    record.completion_tokens = 2147483647;
    record.call.first_byte_ms = 12;
    record.cached_tokens = 0;
    record.reasoning_tokens = 64;
    record.call.attempts = 70000;
    record.call.upstream = "east";
    record.call.upstream_request_id = "req_1";
    record.client_name = "shop";

    EXPECT_EQ(line(record),
              R"({"timestamp":"2026-11-23T06:13:00.123Z",)"
              R"("ip_address":"2001:db8::1",)"
              R"("request_text":"What is \"1\\1\"?\n","response_text":"что",)"
              R"("status":"success","request_id":"0af1","model":"gpt",)"
              R"("cache_status":"MISS","http_status":200,)"
              R"("duration_ms":1234567,"prompt_tokens":0,)"
              R"("completion_tokens":2147483647,"first_byte_ms":12,)"
              R"("cached_tokens":0,"reasoning_tokens":64,"attempts":32767,)"
              R"("upstream":"east","upstream_request_id":"req_1",)"
              R"("client_name":"shop"})"
              "\n");
}

TEST(RecordTest, NullsAreLeftOut)
{
    EXPECT_EQ(line(Record()),
              R"({"timestamp":"1970-01-01T00:00:00.000Z","ip_address":"",)"
              R"("request_text":"","response_text":"","status":"error",)"
              R"("http_status":0,"duration_ms":0})"
              "\n");
}

TEST(RecordTest, OneLineEach)
{
    Record record;
    for (char c = 1; c < 0x7F; ++c) {
        record.request_text += c;
    }

    std::string out = line(record);
    EXPECT_EQ(out.find('\n'), out.size() - 1);
    EXPECT_EQ(
        string_member(parse_json(out).get(), "request_text").value_or("none"),
        record.request_text);

    append_line(out, record);
    EXPECT_EQ(out, line(record) + line(record));
}

std::string row(const std::string& line,
                const RecordColumns& wanted = RecordColumns().set())
{
    std::string out;
    return append_row(out, line, wanted) ? out : "none";
}

TEST(RecordTest, Rows)
{
    Record record;
    record.ip_address = "::1";
    record.request_text = "\\N\t\"\n\x01";
    record.http_status = 200;

    EXPECT_EQ(
        row(line(record)),
        "1970-01-01T00:00:00.000Z\t::1\t\\\\N\\t\"\\n\x01\t\terror\t"
        "\\N\t\\N\t\\N\t200\t0\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N"
        "\n");
}

TEST(RecordTest, RowsOfSomeColumns)
{
    Record record;
    record.request_text = "q";
    record.http_status = 200;
    record.client_name = "me";

    EXPECT_EQ(row(line(record), RecordColumns(1 << 2 | 1 << 4)), "q\terror\n");
    EXPECT_EQ(row(line(record), RecordColumns(1 << 18 | 1 << 8 | 1 << 6)),
              "\\N\t200\tme\n");
}

// Lines of version 0.1.0 end with completion_tokens.
TEST(RecordTest, RowsOfLinesWithFewerMembers)
{
    EXPECT_EQ(row("{\"timestamp\":\"t\",\"ip_address\":\"::1\","
                  "\"request_text\":\"q\",\"response_text\":\"a\","
                  "\"status\":\"success\",\"http_status\":200,"
                  "\"duration_ms\":1,\"completion_tokens\":7}\n",
                  RecordColumns(0x1FF << 10)),
              "\\N\t7\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\t\\N\n");
}

TEST(RecordTest, OtherLinesAreNoRows)
{
    auto good = line(Record());
    for (std::size_t size = 0; size < good.size(); ++size) {
        EXPECT_EQ(row(good.substr(0, size)), "none");
    }
    EXPECT_EQ(row(good + good), "none");

    Record record;
    record.request_text = std::string(1, '\0');
    EXPECT_EQ(row(line(record)), "none");
    EXPECT_EQ(row("{\"timestamp\":null}\n"), "none");
    EXPECT_EQ(row("{\"ip_address\":\"\",\"timestamp\":\"\"}\n"), "none");
}

TEST(RecordTest, Timestamps)
{
    auto time = [](std::int64_t ms) {
        Record record;
        record.timestamp_ms = ms;
        return line(record).substr(14, 24);
    };
    EXPECT_EQ(time(951782399999), "2000-02-28T23:59:59.999Z");
    EXPECT_EQ(time(951782400000), "2000-02-29T00:00:00.000Z");
    EXPECT_EQ(time(4102444800007), "2100-01-01T00:00:00.007Z");
}

}  // namespace
}  // namespace chatbot
