#include "openai/events.hpp"

#include <algorithm>

#include "text/json.hpp"
#include "text/scanner.hpp"

namespace chatbot {
namespace {

// How a member is written.
void append_member(std::string& out, std::string_view name,
                   std::string_view value)
{
    out += out.empty() || out.back() == '{' ? "" : ",";
    append_json(out, name);
    out.append(":").append(value);
}

// Takes the calls of tools of a message, and numbers them as in a stream.
std::string take_calls(JsonScanner& json)
{
    std::string calls = "[";
    std::string name;
    std::string_view value;
    json.enter_array();
    for (int index = 0; json.next_element(); index++) {
        calls += index == 0 ? "{" : ",{";
        append_member(calls, "index", std::to_string(index));
        json.enter_object();
        while (json.next_member(name) && json.take_value(value)) {
            if (name != "index") {
                append_member(calls, name, value);
            }
        }
        calls += '}';
    }
    return calls + "]";
}

// Takes a message, as one delta.
std::string take_message(JsonScanner& json)
{
    std::string delta = "{";
    std::string name;
    std::string_view value;
    json.enter_object();
    while (json.next_member(name)) {
        if (name == "tool_calls" && json.peek() == '[') {
            append_member(delta, name, take_calls(json));
        } else if (json.take_value(value)) {
            append_member(delta, name, value);
        }
    }
    return delta + "}";
}

// Takes a choice.  Its events are all it says, then how it ended; `head` is
// what any chunk of the reply says besides.
void take_choice(JsonScanner& json, const std::string& head,
                 std::string& events)
{
    std::string all = head + R"(,"choices":[{)";
    std::string end = all;
    std::string_view finish_reason = "null";
    std::string name;
    std::string_view value;
    json.enter_object();
    while (json.next_member(name)) {
        if (name == "message" && json.peek() == '{') {
            append_member(all, "delta", take_message(json));
        } else if (name == "finish_reason") {
            json.take_value(finish_reason);
        } else if (json.take_value(value)) {
            append_member(all, name, value);
            if (name != "logprobs") {
                append_member(end, name, value);
            }
        }
    }
    if (!json.ok()) {
        return;
    }
    append_event(events, all.append(R"(,"finish_reason":null}]})"));
    append_member(end, "delta", "{}");
    append_member(end, "finish_reason", finish_reason);
    append_event(events, end.append("}]}"));
}

// False: the reply is not JSON by the letter, or not of the usual form.
bool split(std::string_view reply, std::string& events)
{
    std::string head = R"({"object":"chat.completion.chunk")";
    std::string_view choices = "[]";
    std::string_view usage;
    std::string name;
    std::string_view value;
    JsonScanner json(reply);
    json.enter_object();
    while (json.next_member(name) && json.take_value(value)) {
        if (name == "choices") {
            choices = value;
        } else if (name == "usage") {
            usage = value;
        } else if (name != "object") {
            append_member(head, name, value);
        }
    }

    JsonScanner each(choices);
    each.enter_array();
    while (each.next_element()) {
        take_choice(each, head, events);
    }
    if (usage.starts_with('{')) {
        append_event(events, head + R"(,"choices":[],"usage":)" +
                                 std::string(usage) + "}");
    }
    return json.at_end() && each.ok();
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
    events += event_end;
}

// Linear, and without a tree: replies may be large.
std::string split_reply(std::string_view reply)
{
    std::string events;
    if (!split(reply, events)) {
        events.clear();
        const Json json = parse_foreign_json(reply);
        (void)split(json ? print_json(json.get()) : "", events);
    }
    return events;
}

}  // namespace chatbot
