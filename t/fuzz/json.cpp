// JSON of clients and servers (json.hpp), and JSON in the configuration.

#include "text/json.hpp"

#include "fuzz.hpp"
#include "openai/protocol.hpp"

using namespace chatbot;

namespace {

std::string as_json(std::string_view text)
{
    std::string out;
    append_json(out, text);
    return out;
}

std::string printed(const Json& json)
{
    std::unique_ptr<char, decltype(&cJSON_free)> text(
        cJSON_PrintUnformatted(json.get()), &cJSON_free);
    assert(text);
    return text.get();
}

// All strings in it are text, and read back what append_json() makes of them.
void check_strings(const cJSON* json)
{
    for (const char* string : {json->string, json->valuestring}) {
        if (string) {
            assert(is_text(string));
            assert(parse_json(as_json(string))->valuestring ==
                   std::string_view(string));
        }
    }

    const cJSON* item;
    cJSON_ArrayForEach(item, json)
    {
        check_strings(item);
    }
}

// What cJSON printed is JSON; only that it may be deeper than we read it.
void check_strict(const std::string& text)
{
    auto fault = check_json(text);
    assert(!fault || fault.what == std::string("more than 128 levels"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    std::string_view bytes(reinterpret_cast<const char*>(data), size);

    auto json = parse_json(bytes);  // throws if cJSON refuses what is JSON
    auto foreign = parse_foreign_json(bytes);
    if (json) {
        assert(is_text(bytes));
        assert(foreign && printed(foreign) == printed(json));
    }
    if (foreign) {
        check_strings(foreign.get());
        check_strict(printed(foreign));
    }
    assert(check_json(bytes).at <= size);

    auto text = to_utf8(bytes);
    assert(is_strict_json(as_json(text)));
    assert(parse_json(as_json(text))->valuestring == text);
    assert(!check_json(param_value(bytes).value_or("0")));
    return 0;
}
