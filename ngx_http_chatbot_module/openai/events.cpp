#include "openai/events.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "openai/chunk.hpp"
#include "openai/protocol.hpp"
#include "openai/responses.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

// Members of a delta that continue what came before; all others replace it.
bool grows(std::string_view name)
{
    constexpr std::string_view names[] = {
        "content", "refusal",  "reasoning_content", "reasoning",
        "text",    "thinking", "arguments",         "data"};
    return std::find(std::begin(names), std::end(names), name) !=
           std::end(names);
}

std::string print(const cJSON* json)
{
    char* text = cJSON_PrintUnformatted(json);
    std::string out = text ? text : "";
    cJSON_free(text);
    return out;
}

void set(cJSON* object, const char* name, cJSON* value)
{
    cJSON_DeleteItemFromObjectCaseSensitive(object, name);
    cJSON_AddItemToObject(object, name, value);
}

cJSON* find_or_add(cJSON* object, const char* name, cJSON* (*make)())
{
    cJSON* found = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!found || cJSON_IsNull(found)) {
        found = make();
        set(object, name, found);
    }
    return found;
}

// The element whose "index" is that of `item`, made if need be.
cJSON* element_of(cJSON* array, const cJSON* item)
{
    const auto index = number_member(item, "index").value_or(0);
    cJSON* element;
    cJSON_ArrayForEach(element, array)
    {
        if (number_member(element, "index").value_or(0) == index) {
            return element;
        }
    }
    element = cJSON_CreateObject();
    cJSON_AddNumberToObject(element, "index", index);
    cJSON_AddItemToArray(array, element);
    return element;
}

void merge(cJSON* into, const cJSON* delta);

void merge_array(cJSON* into, const cJSON* items)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, items)
    {
        if (member(item, "index")) {
            merge(element_of(into, item), item);
        } else {
            cJSON_AddItemToArray(into, cJSON_Duplicate(item, true));
        }
    }
}

// Adds a part of a message to what came before.
void merge(cJSON* into, const cJSON* delta)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, delta)
    {
        const char* name = item->string;
        const cJSON* old = cJSON_GetObjectItemCaseSensitive(into, name);
        if (cJSON_IsObject(item)) {
            merge(find_or_add(into, name, cJSON_CreateObject), item);
        } else if (cJSON_IsArray(item)) {
            merge_array(find_or_add(into, name, cJSON_CreateArray), item);
        } else if (cJSON_IsString(item) && cJSON_IsString(old) && grows(name)) {
            std::string text = old->valuestring;
            text += item->valuestring;
            set(into, name, cJSON_CreateString(text.c_str()));
        } else if (!cJSON_IsNull(item) || !old) {
            set(into, name, cJSON_Duplicate(item, true));
        }
    }
}

// A choice of a chunk into a choice of the reply: its delta is the message's.
void merge_choice(cJSON* into, const cJSON* choice)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, choice)
    {
        const char* name = item->string;
        if (name == "delta"sv) {
            merge(find_or_add(into, "message", cJSON_CreateObject), item);
        } else if (name == "logprobs"sv && cJSON_IsObject(item)) {
            merge(find_or_add(into, name, cJSON_CreateObject), item);
        } else if (!cJSON_IsNull(item) || !member(into, name)) {
            set(into, name, cJSON_Duplicate(item, true));
        }
    }
}

void merge_chunk(cJSON* reply, const cJSON* chunk)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, chunk)
    {
        const char* name = item->string;
        if (name == "choices"sv) {
            const cJSON* choice;
            cJSON* choices = find_or_add(reply, name, cJSON_CreateArray);
            cJSON_ArrayForEach(choice, item)
            {
                merge_choice(element_of(choices, choice), choice);
            }
        } else if (!cJSON_IsNull(item) || !member(reply, name)) {
            set(reply, name, cJSON_Duplicate(item, true));
        }
    }
}

// The indices in deltas belong to the stream.
void finish_reply(cJSON* reply)
{
    set(reply, "object", cJSON_CreateString("chat.completion"));
    const cJSON* choice;
    cJSON_ArrayForEach(choice, member(reply, "choices"))
    {
        cJSON* call;
        cJSON_ArrayForEach(call,
                           member(member(choice, "message"), "tool_calls"))
        {
            cJSON_DeleteItemFromObjectCaseSensitive(call, "index");
        }
        auto message = const_cast<cJSON*>(member(choice, "message"));
        if (message && !member(message, "content")) {
            cJSON_AddNullToObject(message, "content");
        }
    }
}

// A chunk with what a reply says besides its choices.
Json chunk_of(const cJSON* reply)
{
    Json chunk(cJSON_CreateObject());
    const cJSON* item;
    cJSON_ArrayForEach(item, reply)
    {
        if (item->string != "choices"sv && item->string != "usage"sv) {
            cJSON_AddItemToObject(chunk.get(), item->string,
                                  cJSON_Duplicate(item, true));
        }
    }
    set(chunk.get(), "object", cJSON_CreateString("chat.completion.chunk"));
    return chunk;
}

// The message as one delta; calls of tools are numbered.
cJSON* delta_of(const cJSON* message)
{
    cJSON* delta = cJSON_Duplicate(message, true);
    int index = 0;
    cJSON* call;
    cJSON_ArrayForEach(call,
                       cJSON_GetObjectItemCaseSensitive(delta, "tool_calls"))
    {
        set(call, "index", cJSON_CreateNumber(index++));
    }
    return delta ? delta : cJSON_CreateObject();
}

// The events of one choice: all it says, then how it ended.
void split_choice(std::string& events, const cJSON* reply, const cJSON* choice)
{
    for (const bool last : {false, true}) {
        cJSON* part = cJSON_Duplicate(choice, true);
        cJSON_DeleteItemFromObjectCaseSensitive(part, "message");
        set(part, "delta",
            last ? cJSON_CreateObject() : delta_of(member(choice, "message")));
        if (last) {
            cJSON_DeleteItemFromObjectCaseSensitive(part, "logprobs");
        } else {
            set(part, "finish_reason", cJSON_CreateNull());
        }

        Json chunk = chunk_of(reply);
        cJSON* choices = cJSON_AddArrayToObject(chunk.get(), "choices");
        cJSON_AddItemToArray(choices, part);
        append_event(events, print(chunk.get()));
    }
}

// Whether a choice came to an end, said by the service, that makes it worth
// keeping.
bool is_complete(const cJSON* choice)
{
    const auto end = string_member(choice, "finish_reason").value_or("");
    return end == "tool_calls" || (!end.empty() && is_natural_end(end));
}

}  // namespace

void append_event(std::string& events, std::string_view data)
{
    const bool usage = data.find("\"choices\":[]") != data.npos ||
                       data.find("\"choices\": []") != data.npos;
    events += usage ? usage_mark : data_mark;
    append_on_one_line(events, data);
}

void append_on_one_line(std::string& events, std::string_view json)
{
    const auto start = events.size();
    events += json;
    // Line breaks in JSON are white space.
    std::replace_if(
        events.begin() + static_cast<std::ptrdiff_t>(start), events.end(),
        [](char c) { return c == '\n' || c == '\r'; }, ' ');
    events += "\n\n";
}

std::string join_events(std::string_view events)
{
    Json reply(cJSON_CreateObject());
    while (!events.empty()) {
        const auto end = events.find("\n\n");
        auto event = events.substr(0, end);
        events.remove_prefix(end == events.npos ? events.size() : end + 2);
        if (take_prefix(event, data_mark) || take_prefix(event, usage_mark)) {
            Json chunk = parse_foreign_json(event);
            merge_chunk(reply.get(), chunk.get());
        }
    }
    finish_reply(reply.get());
    return print(reply.get());
}

std::string split_reply(std::string_view reply)
{
    std::string events;
    Json json = parse_foreign_json(reply);
    if (cJSON_IsArray(member(json.get(), "output"))) {
        return completed_event(reply);
    }
    const cJSON* choice;
    cJSON_ArrayForEach(choice, member(json.get(), "choices"))
    {
        split_choice(events, json.get(), choice);
    }

    const cJSON* usage = member(json.get(), "usage");
    if (cJSON_IsObject(usage)) {
        Json chunk = chunk_of(json.get());
        cJSON_AddArrayToObject(chunk.get(), "choices");
        cJSON_AddItemToObject(chunk.get(), "usage",
                              cJSON_Duplicate(usage, true));
        append_event(events, print(chunk.get()));
    }
    return events;
}

std::optional<Answer> read_api_reply(std::string reply, ReplyError& error,
                                     std::string_view request)
{
    const Json json = parse_reply(reply, error, request);
    if (!json) {
        return std::nullopt;
    }

    Answer answer;
    read_head(json.get(), answer);
    const cJSON* first = first_choice(json.get());
    const cJSON* message = member(first, "message");
    answer.text = read_content(message);
    if (const cJSON* calls = member(message, "tool_calls");
        answer.text.empty() && cJSON_IsArray(calls)) {
        answer.text = print(calls);
    }
    answer.finish_reason = string_member(first, "finish_reason").value_or("");

    answer.complete = !answer.text.empty();
    const cJSON* choice;
    cJSON_ArrayForEach(choice, member(json.get(), "choices"))
    {
        answer.complete = answer.complete && is_complete(choice);
    }
    answer.reply = std::move(reply);
    return answer;
}

std::string api_body(const ApiCall& call, bool stream, bool with_stream_options)
{
    std::string body = "{\"model\":";
    append_json(body, call.model);
    body.append(call.members.empty() ? "" : ",").append(call.members);
    if (stream) {
        body += R"(,"stream":true)";
        body += with_stream_options && call.path == ApiPath::completions
                    ? R"(,"stream_options":{"include_usage":true})"
                    : "";
    }
    body += '}';
    return body;
}

}  // namespace chatbot
