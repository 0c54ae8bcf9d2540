#include "openai/join.hpp"

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

// Members of a delta that continue what came before; all others replace it,
// unless they are empty.
bool grows(std::string_view name)
{
    constexpr std::string_view names[] = {
        "content",   "refusal", "reasoning_content",
        "reasoning", "text",    "thinking",
        "arguments", "data",    "transcript"};
    return std::find(std::begin(names), std::end(names), name) !=
           std::end(names);
}

// What cJSON made; it makes nothing where memory runs out.
Json own(cJSON* made)
{
    if (!made) {
        throw std::bad_alloc();
    }
    return Json(made);
}

Json copy_of(const cJSON* json)
{
    return own(cJSON_Duplicate(json, true));
}

// Sets a member, which takes the place of one of that name, and returns it.
cJSON* set(cJSON* object, const char* name, Json value)
{
    cJSON* old = cJSON_GetObjectItemCaseSensitive(object, name);
    if (old) {
        std::swap(old->string, value->string);
        cJSON_ReplaceItemViaPointer(object, old, value.get());
    } else if (!cJSON_AddItemToObject(object, name, value.get())) {
        throw std::bad_alloc();
    }
    return value.release();
}

cJSON* append(cJSON* array, Json value)
{
    cJSON_AddItemToArray(array, value.get());
    return value.release();
}

// For cJSON_ArrayForEach: what is no object has no members.
const cJSON* members(const cJSON* json)
{
    return cJSON_IsObject(json) ? json : nullptr;
}

// The member of the type that `make` makes; one of another type is replaced.
cJSON* find_or_add(cJSON* object, const char* name, cJSON* (*make)())
{
    Json made = own(make());
    cJSON* found = cJSON_GetObjectItemCaseSensitive(object, name);
    return found && found->type == made->type
               ? found
               : set(object, name, std::move(made));
}

double index_of(const cJSON* item)
{
    return number_member(item, "index").value_or(0);
}

// The last item of an array, or null; cJSON keeps it before the first one.
cJSON* last_of(const cJSON* array)
{
    return array->child ? array->child->prev : nullptr;
}

// The last element whose "index" is that of `item`, or null.  It is looked for
// from the end, as most items continue what was begun last.
cJSON* find_element(const cJSON* array, const cJSON* item)
{
    const auto index = index_of(item);
    cJSON* element = last_of(array);
    while (element && index_of(element) != index) {
        element = element == array->child ? nullptr : element->prev;
    }
    return element;
}

cJSON* add_element(cJSON* array, const cJSON* item)
{
    Json made = own(cJSON_CreateObject());
    set(made.get(), "index", own(cJSON_CreateNumber(index_of(item))));
    return append(array, std::move(made));
}

cJSON* find_or_add_element(cJSON* array, const cJSON* item)
{
    cJSON* element = find_element(array, item);
    return element ? element : add_element(array, item);
}

bool has_name(const cJSON* call)
{
    return !string_member(member(call, "function"), "name")
                .value_or("")
                .empty();
}

// Whether `item` is another call of a tool than `element`: Gemini and some
// gateways give all parallel calls the index 0.  The id alone does not tell, as
// some services make a new one for each part of a call.
bool begins_call(const cJSON* element, const cJSON* item)
{
    const auto id = string_member(item, "id").value_or("");
    return !id.empty() && id != string_member(element, "id").value_or("") &&
           has_name(item) && has_name(element);
}

// What follows a text is kept as its children, which cJSON frees as it does an
// array's, until settle() puts all of it together: so it is copied once only.
void grow(cJSON* text, const cJSON* more)
{
    if (*more->valuestring != '\0') {
        append(text, copy_of(more));
    }
}

void settle_text(cJSON* text)
{
    std::string whole = text->valuestring;
    while (cJSON* more = text->child) {
        whole += more->valuestring;
        cJSON_Delete(cJSON_DetachItemViaPointer(text, more));
    }
    if (!cJSON_SetValuestring(text, whole.c_str())) {
        throw std::bad_alloc();
    }
}

void settle(cJSON* json)
{
    if (cJSON_IsString(json) && json->child) {
        settle_text(json);
    }
    cJSON* item;
    cJSON_ArrayForEach(item, json)
    {
        settle(item);
    }
}

void merge(cJSON* into, const cJSON* delta);

// The last part of a content, if it is a text that `item` continues, or null.
cJSON* part_before(cJSON* parts, const cJSON* item)
{
    cJSON* const last = last_of(parts);
    const auto type = string_member(item, "type");
    const bool is_text = type == "text" || type == "thinking";
    return is_text && string_member(last, "type") == type ? last : nullptr;
}

void merge_item(cJSON* into, const cJSON* item)
{
    if (member(item, "index")) {
        cJSON* element = find_or_add_element(into, item);
        if (begins_call(element, item)) {
            element = add_element(into, item);
        }
        merge(element, item);
    } else if (cJSON* before = part_before(into, item)) {
        merge(before, item);
    } else {
        append(into, copy_of(item));
    }
}

void merge_text(cJSON* parts, const char* text)
{
    if (*text != '\0') {
        const Json part = own(cJSON_CreateObject());
        set(part.get(), "type", own(cJSON_CreateString("text")));
        set(part.get(), "text", own(cJSON_CreateString(text)));
        merge_item(parts, part.get());
    }
}

// A content may come as a string at first, and then in parts.
void merge_array(cJSON* into, const char* name, const cJSON* items)
{
    cJSON* before = cJSON_GetObjectItemCaseSensitive(into, name);
    if (cJSON_IsString(before)) {
        settle(before);
    }
    const auto text = std::string(string_member(into, name).value_or(""));
    cJSON* array = find_or_add(into, name, cJSON_CreateArray);
    merge_text(array, text.c_str());

    const cJSON* item;
    cJSON_ArrayForEach(item, items)
    {
        merge_item(array, item);
    }
}

// Adds a part of a message to what came before.
void merge(cJSON* into, const cJSON* delta)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, members(delta))
    {
        const char* name = item->string;
        cJSON* old = cJSON_GetObjectItemCaseSensitive(into, name);
        if (cJSON_IsObject(item)) {
            merge(find_or_add(into, name, cJSON_CreateObject), item);
        } else if (cJSON_IsArray(item)) {
            merge_array(into, name, item);
        } else if (cJSON_IsString(item) && cJSON_IsArray(old)) {
            merge_text(old, item->valuestring);
        } else if (cJSON_IsString(item) && cJSON_IsString(old) &&
                   (grows(name) || *item->valuestring == '\0')) {
            grow(old, item);
        } else if (!cJSON_IsNull(item) || !old) {
            set(into, name, copy_of(item));
        }
    }
}

// A choice of a chunk into a choice of the reply: its delta is the message's.
// Some services repeat the message so far besides it.
void merge_choice(cJSON* into, const cJSON* choice)
{
    const bool has_delta = member(choice, "delta");
    const cJSON* item;
    cJSON_ArrayForEach(item, members(choice))
    {
        const char* name = item->string;
        if (name == "message"sv && has_delta) {
            continue;
        }
        if (name == "delta"sv) {
            merge(find_or_add(into, "message", cJSON_CreateObject), item);
        } else if (name == "logprobs"sv && cJSON_IsObject(item)) {
            merge(find_or_add(into, name, cJSON_CreateObject), item);
        } else if (!cJSON_IsNull(item) || !member(into, name)) {
            set(into, name, copy_of(item));
        }
    }
}

void merge_chunk(cJSON* reply, const cJSON* chunk)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, members(chunk))
    {
        const char* name = item->string;
        if (name == "choices"sv) {
            const cJSON* choice;
            cJSON* choices = find_or_add(reply, name, cJSON_CreateArray);
            cJSON_ArrayForEach(choice, item)
            {
                merge_choice(find_or_add_element(choices, choice), choice);
            }
        } else if (!cJSON_IsNull(item) || !member(reply, name)) {
            set(reply, name, copy_of(item));
        }
    }
}

// The indices in deltas belong to the stream.
void finish_reply(cJSON* reply)
{
    set(reply, "object", own(cJSON_CreateString("chat.completion")));
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
        if (members(message) && !member(message, "content")) {
            set(message, "content", own(cJSON_CreateNull()));
        }
    }
}

}  // namespace

void ReplyJoiner::add(std::string_view chunk, std::string_view text)
{
    if (text.empty()) {
        end_run();
        merge(chunk);
        return;
    }

    const auto at = static_cast<std::size_t>(text.data() - chunk.data());
    const auto before = chunk.substr(0, at);
    const auto behind = chunk.substr(at + text.size());
    if (text_at_ != at || behind_ != behind || !run_.starts_with(before)) {
        end_run();
        run_ = before;
        behind_ = behind;
        text_at_ = at;
    }
    run_ += text;
}

void ReplyJoiner::end_run()
{
    if (text_at_ != 0) {
        merge(run_ + behind_);
        text_at_ = 0;
    }
}

void ReplyJoiner::merge(std::string_view chunk)
{
    merge_chunk(reply(), parse_foreign_json(chunk).get());
}

cJSON* ReplyJoiner::reply()
{
    if (!reply_) {
        reply_ = own(cJSON_CreateObject());
    }
    return reply_.get();
}

Json ReplyJoiner::finish()
{
    end_run();
    settle(reply());
    finish_reply(reply());
    return std::move(reply_);
}

}  // namespace chatbot
