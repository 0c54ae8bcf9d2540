// Records as lines of the journal (record.hpp).

#include "core/record.hpp"

#include <algorithm>

#include "fuzz.hpp"
#include "text/json.hpp"

using namespace chatbot;

namespace {

bool holds(const cJSON* json, const char* name, std::string_view text)
{
    return string_member(json, name).value_or("") == text;
}

bool holds(const cJSON* json, const char* name, int number)
{
    return number_member(json, name).value_or(-1) == number;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    FuzzedDataProvider input(data, size);
    Record record;
    record.ip_address = consume_text(input);
    record.request_text = consume_text(input);
    record.response_text = consume_text(input);
    record.request_id = consume_text(input);
    record.model = consume_text(input);
    record.status = input.PickValueInArray({"success", "cached", "error"});
    record.cache_status = input.PickValueInArray({"", "HIT", "MISS"});
    record.http_status = input.ConsumeIntegralInRange(0, 599);
    record.duration_ms = input.ConsumeIntegralInRange(0, INT32_MAX);
    record.prompt_tokens = input.ConsumeIntegralInRange(-1, INT32_MAX);
    record.completion_tokens = input.ConsumeIntegralInRange(-1, INT32_MAX);
    record.call.first_byte_ms = input.ConsumeIntegralInRange(-1, INT32_MAX);
    record.cached_tokens = input.ConsumeIntegralInRange(-1, INT32_MAX);
    record.reasoning_tokens = input.ConsumeIntegralInRange(-1, INT32_MAX);
    record.call.attempts = input.ConsumeIntegralInRange(-1, INT16_MAX);
    record.call.upstream = consume_text(input);
    record.call.upstream_request_id = consume_text(input);
    record.client_name = consume_text(input);
    record.timestamp_ms =  // until the year 9999
        input.ConsumeIntegralInRange<int64_t>(0, 253402300799999);

    std::string line;
    append_line(line, record);
    assert(line.find('\n') == line.size() - 1);

    std::string row;
    assert(append_row(row, line, RecordColumns().set()));
    assert(static_cast<size_t>(std::count(row.begin(), row.end(), '\t')) ==
           std::size(record_columns) - 1);
    assert(row.find('\n') == row.size() - 1);

    line.pop_back();
    assert(is_text(line) && is_strict_json(line));

    auto json = parse_json(line);
    assert(holds(json.get(), "ip_address", record.ip_address));
    assert(holds(json.get(), "request_text", record.request_text));
    assert(holds(json.get(), "response_text", record.response_text));
    assert(holds(json.get(), "request_id", record.request_id));
    assert(holds(json.get(), "model", record.model));
    assert(holds(json.get(), "status", record.status));
    assert(holds(json.get(), "cache_status", record.cache_status));
    assert(holds(json.get(), "http_status", record.http_status));
    assert(holds(json.get(), "duration_ms", record.duration_ms));
    assert(holds(json.get(), "prompt_tokens", record.prompt_tokens));
    assert(holds(json.get(), "completion_tokens", record.completion_tokens));
    assert(holds(json.get(), "first_byte_ms", record.call.first_byte_ms));
    assert(holds(json.get(), "cached_tokens", record.cached_tokens));
    assert(holds(json.get(), "reasoning_tokens", record.reasoning_tokens));
    assert(holds(json.get(), "attempts", record.call.attempts));
    assert(holds(json.get(), "upstream", record.call.upstream));
    assert(holds(json.get(), "upstream_request_id",
                 record.call.upstream_request_id));
    assert(holds(json.get(), "client_name", record.client_name));
    assert(string_member(json.get(), "timestamp")->size() ==
           std::string_view("2026-11-23T06:13:00.123Z").size());
    return 0;
}
