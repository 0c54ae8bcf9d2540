#pragma once

#include <bitset>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

#include "core/exchange.hpp"

namespace chatbot {

// One row of request_logs.
struct Record {
    std::string ip_address;
    std::string request_text;
    std::string response_text;
    const char* status = "error";   // "success", "cached", "error"
    std::int64_t timestamp_ms = 0;  // arrival, milliseconds since the epoch
    std::string request_id;
    std::string model;              // empty: null
    const char* cache_status = "";  // as $chatbot_cache_status; empty: null
    int http_status = 0;
    int duration_ms = 0;
    std::int32_t prompt_tokens = -1;      // -1: null
    std::int32_t completion_tokens = -1;  // -1: null
    std::int32_t cached_tokens = -1;      // of the prompt; -1: null
    std::int32_t reasoning_tokens = -1;   // of the completion; -1: null
    std::string client_name;              // as $chatbot_user; empty: null
    CallReport call;                      // its duration is not recorded
};

// Appends the record as one line of JSON, "\n" included, its members named as
// the table's columns, `timestamp` in ISO 8601, UTC; what is null is left out.
// The texts must be UTF-8 without U+0000.  Call it in any thread.
void append_line(std::string& out, const Record& record);

// The members of such a line, in the order in which they come.  Lines of
// earlier versions have fewer of them.
inline constexpr std::string_view record_columns[] = {
    "timestamp",     "ip_address",    "request_text",
    "response_text", "status",        "request_id",
    "model",         "cache_status",  "http_status",
    "duration_ms",   "prompt_tokens", "completion_tokens",
    "first_byte_ms", "cached_tokens", "reasoning_tokens",
    "attempts",      "upstream",      "upstream_request_id",
    "client_name"};

// Some of these columns, by their place in the list.
using RecordColumns = std::bitset<std::size(record_columns)>;

// Appends a line as a row of PostgreSQL's COPY in its text format, with the
// columns `wanted` in the order above.  Returns false if the line is not as
// append_line() writes it; what was appended is then of no use.
[[nodiscard]] bool append_row(std::string& out, std::string_view line,
                              const RecordColumns& wanted);

}  // namespace chatbot
