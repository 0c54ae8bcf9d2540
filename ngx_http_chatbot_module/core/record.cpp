#include "core/record.hpp"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <string_view>

#include "text/unicode.hpp"
#include "text/json.hpp"

namespace chatbot {
namespace {

constexpr int max_smallint = 32767;  // of PostgreSQL

// Appends at least `width` digits.
void append_digits(std::string& out, int number, std::size_t width = 1)
{
    char digits[16];
    auto end = std::to_chars(digits, digits + sizeof(digits), number).ptr;
    auto size = static_cast<std::size_t>(end - digits);

    out.append(size < width ? width - size : 0, '0');
    out.append(digits, size);
}

// Appends "2026-11-23T06:13:00.123Z".
void append_time(std::string& out, std::int64_t ms)
{
    using namespace std::chrono;

    sys_time<milliseconds> time{milliseconds(ms)};
    auto day = floor<days>(time);
    year_month_day date(day);
    hh_mm_ss clock(time - day);

    append_digits(out, int(date.year()), 4);
    out += '-';
    append_digits(out, int(unsigned(date.month())), 2);
    out += '-';
    append_digits(out, int(unsigned(date.day())), 2);
    out += 'T';
    append_digits(out, int(clock.hours().count()), 2);
    out += ':';
    append_digits(out, int(clock.minutes().count()), 2);
    out += ':';
    append_digits(out, int(clock.seconds().count()), 2);
    out += '.';
    append_digits(out, int(clock.subseconds().count()), 3);
    out += 'Z';
}

void append_name(std::string& out, std::string_view name)
{
    out += ",\"";
    out += name;
    out += "\":";
}

void append_text(std::string& out, std::string_view name, std::string_view text)
{
    append_name(out, name);
    append_json(out, text);
}

// Nothing if it is empty.
void append_known(std::string& out, std::string_view name,
                  std::string_view text)
{
    if (!text.empty()) {
        append_text(out, name, text);
    }
}

// Nothing if it is negative.
void append_known(std::string& out, std::string_view name, int number)
{
    if (number >= 0) {
        append_name(out, name);
        append_digits(out, number);
    }
}

// Takes ',"name":' off a line, or '{"name":' off its start.
bool take_name(std::string_view& line, std::string_view name)
{
    auto rest = line;
    rest.remove_prefix(line.starts_with(',') || line.starts_with('{'));
    for (auto part : {std::string_view("\""), name, std::string_view("\":")}) {
        if (!take_prefix(rest, part)) {
            return false;
        }
    }

    line = rest;
    return true;
}

// Appends a character as COPY's text format has it: with JSON's short escapes,
// but for the quote, which needs none.
void append_copied(std::string& out, char c)
{
    static constexpr std::string_view escaped = "\b\f\n\r\t\\";
    auto letter = escaped.find(c);
    if (letter == escaped.npos) {
        out += c;
        return;
    }

    out += '\\';
    out += "bfnrt\\"[letter];
}

bool take_value(std::string_view& line, std::string& out)
{
    if (line.starts_with('"')) {
        return take_json(line, out, append_copied);
    }

    auto size = std::min(line.find_first_not_of("0123456789"), line.size());
    out.append(line, 0, size);
    line.remove_prefix(size);
    return size > 0;
}

}  // namespace

void append_line(std::string& out, const Record& record)
{
    out += "{\"timestamp\":\"";
    append_time(out, record.timestamp_ms);
    out += '"';

    append_text(out, "ip_address", record.ip_address);
    append_text(out, "request_text", record.request_text);
    append_text(out, "response_text", record.response_text);
    append_text(out, "status", record.status);
    append_known(out, "request_id", record.request_id);
    append_known(out, "model", record.model);
    append_known(out, "cache_status", record.cache_status);
    append_known(out, "http_status", record.http_status);
    append_known(out, "duration_ms", record.duration_ms);
    append_known(out, "prompt_tokens", record.prompt_tokens);
    append_known(out, "completion_tokens", record.completion_tokens);
    append_known(out, "first_byte_ms", record.call.first_byte_ms);
    append_known(out, "cached_tokens", record.cached_tokens);
    append_known(out, "reasoning_tokens", record.reasoning_tokens);
    append_known(out, "attempts", std::min(record.call.attempts, max_smallint));
    append_known(out, "upstream", record.call.upstream);
    append_known(out, "upstream_request_id", record.call.upstream_request_id);
    append_known(out, "client_name", record.client_name);
    out += "}\n";
}

bool append_row(std::string& out, std::string_view line,
                const RecordColumns& wanted)
{
    for (std::size_t i = 0; i < std::size(record_columns); i++) {
        auto before = out.size();
        if (!take_name(line, record_columns[i])) {
            out += "\\N";
        } else if (!take_value(line, out)) {
            return false;
        }
        out += '\t';
        if (!wanted[i]) {
            out.resize(before);
        }
    }

    out.back() = '\n';
    return line == "}\n";
}

}  // namespace chatbot
