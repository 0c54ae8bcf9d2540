#include "core/api_request.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "text/json.hpp"
#include "text/scanner.hpp"
#include "text/strict_json.hpp"

namespace chatbot {
namespace {

// More would take too long to read ("make worst").
constexpr std::size_t max_values = 10'000;

Problem bad_request(std::string detail, const char* param = "")
{
    return {.status = 400,
            .detail = std::move(detail),
            .reason = {},
            .param = param};
}

bool is_one_of(std::string_view name,
               std::initializer_list<std::string_view> names)
{
    return std::find(names.begin(), names.end(), name) != names.end();
}

bool append_canonical(std::string& out, JsonScanner& json);

// A string without escapes is written as it is: most are long texts.
bool append_string(std::string& out, JsonScanner& json)
{
    std::string_view value;
    if (!json.take_value(value)) {
        return false;
    }
    if (value.find('\\') == value.npos) {
        out += value;
        return true;
    }

    std::string text;
    JsonScanner(value).take_string(text);
    append_json(out, text);
    return true;
}

// Members by their names; of several equal names the last counts.
bool append_object(std::string& out, JsonScanner& json)
{
    std::map<std::string, std::string> members;
    std::string name;
    json.enter_object();
    while (json.next_member(name)) {
        std::string value;
        if (!append_canonical(value, json)) {
            return false;
        }
        members[name] = std::move(value);
    }

    out += '{';
    for (const auto& [key, value] : members) {
        append_json(out, key);
        out.append(":").append(value).append(",");
    }
    out += '}';
    return json.ok();
}

bool append_array(std::string& out, JsonScanner& json)
{
    out += '[';
    json.enter_array();
    while (json.next_element()) {
        if (!append_canonical(out, json)) {
            return false;
        }
        out += ',';
    }
    out += ']';
    return json.ok();
}

// REQUIRES: the depth is bounded, see check_json().
bool append_canonical(std::string& out, JsonScanner& json)
{
    switch (json.peek()) {
        case '{':
            return append_object(out, json);
        case '[':
            return append_array(out, json);
        case '"':
            return append_string(out, json);
        default:
            std::string_view value;
            if (!json.take_value(value)) {
                return false;
            }
            out += value;
            return true;
    }
}

// A string, or an array of parts of which some have a text.
std::string text_of(std::string_view content)
{
    JsonScanner json(content);
    std::string text;
    if (json.peek() == '"') {
        json.take_string(text);
        return text;
    }
    if (json.peek() != '[') {
        return text;
    }

    json.enter_array();
    while (json.next_element()) {
        std::string name;
        if (json.peek() != '{') {
            json.skip_value();
            continue;
        }
        json.enter_object();
        while (json.next_member(name)) {
            name == "text" && json.peek() == '"' ? json.take_string(text)
                                                 : json.skip_value();
        }
    }
    return text;
}

std::string last_question(std::string_view messages)
{
    JsonScanner json(messages);
    std::string_view question;
    json.enter_array();
    while (json.next_element()) {
        std::string name;
        std::string role;
        std::string_view content;
        if (!json.enter_object()) {
            break;
        }
        while (json.next_member(name)) {
            name == "role" && json.peek() == '"' ? json.take_string(role)
            : name == "content"                  ? json.take_value(content)
                                                 : json.skip_value();
        }
        question = role == "user" ? content : question;
    }
    return text_of(question);
}

bool include_usage(std::string_view options)
{
    JsonScanner json(options);
    std::string name;
    bool include = false;
    if (json.peek() != '{') {
        return false;
    }
    json.enter_object();
    while (json.next_member(name)) {
        std::string_view value;
        json.take_value(value);
        include = name == "include_usage" ? value == "true" : include;
    }
    return include;
}

// What does not change the answer is no part of the key.
bool is_key_member(std::string_view name)
{
    return !is_one_of(name, {"model", "stream", "stream_options", "user",
                             "safety_identifier", "metadata"});
}

}  // namespace

Problem read_api_request(std::string_view body, ApiRequest& request)
{
    if (auto fault = check_json(body, max_values)) {
        return bad_request(
            "The JSON body is refused: " + std::string(fault.what) +
            " at byte " + std::to_string(fault.at) + ".");
    }

    JsonScanner json(body);
    if (json.peek() != '{') {
        return bad_request("The body must be a JSON object.");
    }

    std::map<std::string, std::string_view> members;
    std::string name;
    json.enter_object();
    while (json.next_member(name)) {
        std::string_view value;
        if (json.take_value(value)) {
            members[name] = value;
        }
    }
    if (!json.ok()) {
        return bad_request("The JSON body is nested too deeply.");
    }

    const auto model = members["model"];
    if (!model.starts_with('"') || model == "\"\"") {
        return bad_request("You must provide a \"model\" parameter.", "model");
    }
    const bool responses = request.call.path == ApiPath::responses;
    const auto messages = members[responses ? "input" : "messages"];
    if (!responses && !messages.starts_with('[')) {
        return bad_request("The \"messages\" parameter must be an array.",
                           "messages");
    }

    JsonScanner(model).take_string(request.call.model);
    request.stream = members["stream"] == "true";
    request.include_usage = include_usage(members["stream_options"]);
    request.question =
        messages.starts_with('[') ? last_question(messages) : text_of(messages);
    for (const auto& [key, value] : members) {
        if (is_one_of(key, {"model", "stream"}) || value.empty() ||
            (key == "stream_options" && !responses)) {
            continue;
        }
        std::string member;
        append_json(member, key);
        member.append(":");
        if (is_key_member(key)) {
            request.canonical += member;
            JsonScanner scanner(value);
            (void)append_canonical(request.canonical, scanner);
            request.canonical += ',';
        }
        auto& all = request.call.members;
        all += (all.empty() ? "" : ",") + member;
        all += value;
    }
    return {};
}

}  // namespace chatbot
