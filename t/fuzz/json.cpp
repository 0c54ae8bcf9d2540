// JSON of clients and servers (json.hpp), and JSON in the configuration.

#include "text/json.hpp"

#include "fuzz.hpp"
#include "openai/protocol.hpp"
#include "strict_json.hpp"

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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    std::string_view bytes(reinterpret_cast<const char*>(data), size);

    auto json = parse_json(bytes);
    auto foreign = parse_foreign_json(bytes);
    if (json) {
        assert(is_text(bytes));
        assert(foreign && printed(foreign) == printed(json));
    }
    if (foreign) {
        check_strings(foreign.get());
        assert(parse_json(printed(foreign)));
    }
    // cJSON bounds depth and the length of numbers.
    if (size < 64 && StrictJson::is_valid(bytes) && is_text(bytes) &&
        bytes.find("\\u") == bytes.npos) {
        assert(json);
    }

    auto text = to_utf8(bytes);
    assert(StrictJson::is_valid(as_json(text)));
    assert(parse_json(as_json(text))->valuestring == text);
    assert(StrictJson::is_valid(param_value(bytes)));
    return 0;
}
