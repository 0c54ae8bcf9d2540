#include "openai/chunk.hpp"

#include <charconv>
#include <cstdint>

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
    if (!json.enter_object()) {
        return false;
    }
    while (json.next_member(name)) {
        if (name == "content") {
            if (had_content) {
                return false;
            }
            had_content = true;
            if (!json.take_null() && !json.take_string(chunk.text)) {
                return false;
            }
        } else if (name == "refusal") {
            if (!json.take_null()) {
                return false;
            }
        } else if (!json.skip_value()) {
            return false;
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

bool scan_created(JsonScanner& json, Answer& head)
{
    std::string_view value;
    if (!json.take_number(value)) {
        return false;
    }

    std::int64_t created = -1;
    auto end = value.data() + value.size();
    if (std::from_chars(value.data(), end, created).ptr != end || created < 0 ||
        created > Answer::max_created) {
        return false;
    }
    head.created = created;
    return true;
}

bool scan_members(JsonScanner& json, Chunk& chunk)
{
    bool had_choices = false;
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
            if (!scan_created(json, chunk.head)) {
                return false;
            }
        } else if (name == "usage" || name == "error" ? !json.take_null()
                                                      : !json.skip_value()) {
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

}  // namespace

void Chunk::clear()
{
    text.clear();
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
    return scan_members(json, chunk) && is_utf8(data);
}

void read_chunk(const cJSON* json, Chunk& chunk)
{
    read_head(json, chunk.head);

    const cJSON* choice = first_choice(json);
    const cJSON* delta = member(choice, "delta");
    chunk.text = read_content(delta);
    chunk.refusal = string_member(delta, "refusal").value_or("");
    chunk.finish_reason = string_member(choice, "finish_reason").value_or("");
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
    return nullptr;
}

std::string read_content(const cJSON* message)
{
    const cJSON* content = member(message, "content");
    if (!cJSON_IsArray(content)) {
        return std::string(string_member(message, "content").value_or(""));
    }

    std::string text;
    const cJSON* part;
    cJSON_ArrayForEach(part, content)
    {
        text += string_member(part, "text").value_or("");
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
