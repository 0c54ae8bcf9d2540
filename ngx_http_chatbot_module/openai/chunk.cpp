#include "openai/chunk.hpp"

#include <charconv>
#include <cstdint>

#include "openai/error_text.hpp"
#include "text/hex.hpp"
#include "text/json.hpp"
#include "text/scanner.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

// Each of these reads one level of the usual chunk, and stops at what is not
// usual.  Of several members of one name the last counts; where that matters,
// a second one is not usual.

bool scan_delta(JsonScanner& json, Chunk& chunk)
{
    bool had_content = false;
    std::string_view name;
    std::string_view value;
    if (!json.enter_object()) {
        return false;
    }
    while (json.next_member(name)) {
        if (name == "content") {
            if (had_content) {
                return false;
            }
            had_content = true;
            if (!json.take_null() &&
                !json.take_string(chunk.text, chunk.written)) {
                return false;
            }
        } else if (name == "refusal") {
            if (!json.take_null()) {
                return false;
            }
        } else if (!json.take_value(value)) {
            return false;
        } else if (name != "role" && value != "null" && value != "\"\"") {
            chunk.grows_otherwise = true;
        }
    }
    return json.ok();
}

bool scan_choice(JsonScanner& json, Chunk& chunk)
{
    bool had_delta = false;
    std::string_view name;
    std::string_view value;
    if (!json.enter_object()) {
        return false;
    }
    while (json.next_member(name)) {
        if (name == "delta") {
            if (had_delta || !scan_delta(json, chunk)) {
                return false;
            }
            had_delta = true;
        } else if (name == "index") {
            if (!json.take_number(value) || value != "0") {
                return false;
            }
        } else if (name == "finish_reason") {
            chunk.finish_reason.clear();
            if (!json.take_null()) {
                if (!json.take_plain_string(value) || value == "error") {
                    return false;
                }
                chunk.finish_reason = value;
            }
        } else if (name == "message") {
            return false;
        } else if (name == "logprobs") {
            if (!json.take_null()) {
                chunk.grows_otherwise = true;
                json.skip_value();
            }
        } else if (name == "error" ? !json.take_null() : !json.skip_value()) {
            return false;
        }
    }
    return json.ok();
}

bool scan_choices(JsonScanner& json, Chunk& chunk)
{
    if (!json.enter_array()) {
        return false;
    }
    if (json.next_element() &&
        (!scan_choice(json, chunk) || json.next_element())) {
        return false;
    }
    return json.ok();
}

// A number that is written in digits alone, up to `max`.
template <class Int>
bool scan_digits(JsonScanner& json, Int max, Int& number)
{
    std::string_view value;
    if (!json.take_number(value)) {
        return false;
    }

    Int read = -1;
    const auto end = value.data() + value.size();
    if (std::from_chars(value.data(), end, read).ptr != end || read < 0 ||
        read > max) {
        return false;
    }
    number = read;
    return true;
}

bool scan_tokens(JsonScanner& json, std::int32_t& tokens)
{
    return scan_digits(json, INT32_MAX, tokens);
}

// "prompt_tokens_details" and the like: one member of it is wanted.
bool scan_details(JsonScanner& json, std::string_view wanted,
                  std::int32_t& tokens)
{
    std::string_view name;
    if (tokens >= 0 || !json.enter_object()) {
        return false;
    }
    while (json.next_member(name)) {
        if (name == wanted ? !scan_tokens(json, tokens) : !json.skip_value()) {
            return false;
        }
    }
    return json.ok();
}

bool scan_usage(JsonScanner& json, Answer& head)
{
    std::string_view name;
    if (!json.enter_object()) {
        return false;
    }
    while (json.next_member(name)) {
        if (name == "prompt_tokens") {
            if (!scan_tokens(json, head.prompt_tokens)) {
                return false;
            }
        } else if (name == "completion_tokens") {
            if (!scan_tokens(json, head.completion_tokens)) {
                return false;
            }
        } else if (name == "prompt_tokens_details") {
            if (!scan_details(json, "cached_tokens", head.cached_tokens)) {
                return false;
            }
        } else if (name == "completion_tokens_details") {
            if (!scan_details(json, "reasoning_tokens",
                              head.reasoning_tokens)) {
                return false;
            }
        } else if (name == "prompt_cache_hit_tokens" ||
                   name == "reasoning_tokens" || !json.skip_value()) {
            return false;
        }
    }
    return json.ok();
}

bool scan_members(JsonScanner& json, Chunk& chunk)
{
    bool had_choices = false;
    bool had_usage = false;
    std::string_view name;
    std::string_view value;
    if (!json.enter_object()) {
        return false;
    }
    while (json.next_member(name)) {
        if (name == "choices") {
            if (had_choices || !scan_choices(json, chunk)) {
                return false;
            }
            had_choices = true;
        } else if (name == "model") {
            if (!json.take_plain_string(value)) {
                return false;
            }
            chunk.head.model = value;
        } else if (name == "created") {
            if (!scan_digits(json, Answer::max_created, chunk.head.created)) {
                return false;
            }
        } else if (name == "usage") {
            if (had_usage ||
                (!json.take_null() && !scan_usage(json, chunk.head))) {
                return false;
            }
            had_usage = true;
        } else if (name == "error" ? !json.take_null() : !json.skip_value()) {
            return false;
        }
    }
    return had_choices && json.at_end();
}

void read_usage(const cJSON* usage, Answer& answer)
{
    const auto take = [](std::int32_t& tokens, const cJSON* object,
                         const char* name) {
        take_number(tokens, INT32_MAX, object, name);
    };

    take(answer.prompt_tokens, usage, "prompt_tokens");
    take(answer.completion_tokens, usage, "completion_tokens");

    take(answer.cached_tokens, usage, "prompt_cache_hit_tokens");
    take(answer.cached_tokens, member(usage, "prompt_tokens_details"),
         "cached_tokens");
    take(answer.reasoning_tokens, usage, "reasoning_tokens");
    take(answer.reasoning_tokens, member(usage, "completion_tokens_details"),
         "reasoning_tokens");
}

// The text of a content, or of a part of one: not what the model thought.
std::string_view read_part(const cJSON* part)
{
    if (cJSON_IsString(part)) {
        return part->valuestring;
    }
    const auto type = string_member(part, "type").value_or("text");
    return type == "text" || type == "output_text"
               ? string_member(part, "text").value_or("")
               : "";
}

// Whether a delta has more than a text, as scan_delta() sees it.
bool has_more(const cJSON* delta)
{
    const cJSON* members = cJSON_IsObject(delta) ? delta : nullptr;
    const cJSON* item;
    cJSON_ArrayForEach(item, members)
    {
        const std::string_view name = item->string;
        const bool empty = cJSON_IsNull(item) ||
                           (cJSON_IsString(item) && *item->valuestring == '\0');
        if (name != "role" && name != "content" && name != "refusal" &&
            !empty) {
            return true;
        }
    }
    return false;
}

// The escape of half of a surrogate pair, from `first` to `last`, that
// parse_with_halves() made these three bytes of; or empty.
std::string half_in(std::string_view bytes, int first, int last)
{
    if (bytes[0] != '\xED') {
        return {};
    }

    const int half = 0xD000 | (bytes[1] & 0x3F) << 6 | (bytes[2] & 0x3F);
    if (half < first || half > last) {
        return {};
    }
    std::string escape = "\\u";
    append_hex(escape, static_cast<unsigned char>(half >> 8));
    append_hex(escape, static_cast<unsigned char>(half));
    return escape;
}

}  // namespace

void Chunk::clear()
{
    text.clear();
    written = {};
    grows_otherwise = false;
    low.clear();
    high.clear();
    refusal.clear();
    finish_reason.clear();
    head.model.clear();
    head.created = 0;
    head.prompt_tokens = head.completion_tokens = -1;
    head.cached_tokens = head.reasoning_tokens = -1;
}

bool scan_chunk(std::string_view data, Chunk& chunk)
{
    JsonScanner json(data);
    if (!scan_members(json, chunk) || !is_utf8(data)) {
        return false;
    }
    if (chunk.grows_otherwise) {
        chunk.written = {};
    }
    return true;
}

void read_chunk(const cJSON* json, Chunk& chunk)
{
    read_head(json, chunk.head);

    const cJSON* choice = first_choice(json);
    const cJSON* delta = member(choice, "delta");
    chunk.text = read_content(delta);
    chunk.refusal = string_member(delta, "refusal").value_or("");
    chunk.finish_reason = string_member(choice, "finish_reason").value_or("");
    chunk.grows_otherwise = has_more(delta);
}

void read_halves(std::string_view data, Chunk& chunk)
{
    const Json json = parse_with_halves(data);
    if (!json) {
        return;
    }

    const cJSON* delta = member(first_choice(json.get()), "delta");
    std::string text = read_content(delta);
    text += string_member(delta, "refusal").value_or("");
    // A half is as long as U+FFFD; what came as a message has another length.
    if (text.size() < 3 ||
        text.size() != chunk.text.size() + chunk.refusal.size()) {
        return;
    }
    chunk.low = half_in(text.substr(0, 3), 0xDC00, 0xDFFF);
    chunk.high = half_in(text.substr(text.size() - 3), 0xD800, 0xDBFF);
}

std::string read_whole_message(const cJSON* json)
{
    const cJSON* choice = first_choice(json);
    return member(choice, "delta") ? ""
                                   : read_content(member(choice, "message"));
}

const cJSON* first_choice(const cJSON* json)
{
    const cJSON* choice;
    cJSON_ArrayForEach(choice, member(json, "choices"))
    {
        if (number_member(choice, "index").value_or(0) == 0) {
            return choice;
        }
    }

    // Some count from 1.
    choice = first_of(member(json, "choices"));
    return member(choice, "message") ? choice : nullptr;
}

std::string read_content(const cJSON* message)
{
    const cJSON* content = member(message, "content");
    if (!cJSON_IsArray(content)) {
        return std::string(read_part(content));
    }

    std::string text;
    const cJSON* part;
    cJSON_ArrayForEach(part, content)
    {
        text += read_part(part);
    }
    return text;
}

void read_head(const cJSON* json, Answer& answer)
{
    answer.model = string_member(json, "model").value_or(answer.model);
    take_number(answer.created, Answer::max_created, json, "created");
    read_usage(member(json, "usage"), answer);
}

void merge_head(const Answer& head, Answer& answer)
{
    const auto take = [](std::int32_t& tokens, std::int32_t told) {
        tokens = told < 0 ? tokens : told;
    };

    if (!head.model.empty()) {
        answer.model = head.model;
    }
    answer.created = head.created > 0 ? head.created : answer.created;
    take(answer.prompt_tokens, head.prompt_tokens);
    take(answer.completion_tokens, head.completion_tokens);
    take(answer.cached_tokens, head.cached_tokens);
    take(answer.reasoning_tokens, head.reasoning_tokens);
}

}  // namespace chatbot
