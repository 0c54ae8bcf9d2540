#include "core/api_request.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "text/digest.hpp"
#include "text/json.hpp"
#include "text/scanner.hpp"
#include "text/strict_json.hpp"

namespace chatbot {
namespace {

// More would take too long to read ("make worst").
constexpr std::size_t max_values = 20'000;
constexpr std::size_t max_members = 1'000;  // of the body itself

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

// What is written here can be read in one way only, from its end: a text is
// followed by its length.
void append_name(std::string& out, std::string_view name)
{
    out.append(name).append(":");
    out.append(std::to_string(name.size())).append(":");
}

bool append_string(std::string& out, JsonScanner& json)
{
    const auto start = out.size();
    if (!json.take_string(out)) {
        return false;
    }
    out.append("\"").append(std::to_string(out.size() - start));
    return true;
}

// A member in the text it was written to.
struct Place {
    std::size_t name = 0;  // where it starts
    std::size_t name_size = 0;
    std::size_t end = 0;
};

// Sorts the members that `out` has from `start` on by their names; of several
// equal names the last counts.
void sort_members(std::string& out, std::size_t start,
                  std::vector<Place>& places)
{
    const auto name_of = [&](const Place& place) {
        return std::string_view(out).substr(place.name, place.name_size);
    };
    const auto in_order = [&](const Place& a, const Place& b) {
        return name_of(a) < name_of(b);
    };
    if (std::adjacent_find(places.begin(), places.end(), [&](auto& a, auto& b) {
            return !in_order(a, b);
        }) == places.end()) {
        return;
    }

    std::stable_sort(places.begin(), places.end(), in_order);
    std::string sorted;
    sorted.reserve(out.size() - start);
    for (auto place = places.begin(); place != places.end(); ++place) {
        const auto next = place + 1;
        if (next == places.end() || name_of(*place) != name_of(*next)) {
            sorted.append(out, place->name, place->end - place->name);
        }
    }
    out.replace(start, out.npos, sorted);
}

// A large part is represented by its digest, so that no text is copied once for
// each level that it is nested in.
void shorten(std::string& out, std::size_t start)
{
    constexpr std::size_t large = 1024;

    if (out.size() - start > large) {
        const auto digest = sha256(std::string_view(out).substr(start));
        out.resize(start);
        out.append(digest.begin(), digest.end()).append("#");
    }
}

bool append_object(std::string& out, JsonScanner& json)
{
    const auto start = out.size();
    std::vector<Place> places;
    out += '{';
    std::string name;
    json.enter_object();
    while (json.next_member(name)) {
        places.push_back({out.size(), name.size()});
        append_name(out, name);
        if (!append_canonical(out, json)) {
            return false;
        }
        out += ',';
        places.back().end = out.size();
    }

    sort_members(out, start + 1, places);
    out += '}';
    shorten(out, start);
    return json.ok();
}

bool append_array(std::string& out, JsonScanner& json)
{
    const auto start = out.size();
    out += '[';
    json.enter_array();
    while (json.next_element()) {
        if (!append_canonical(out, json)) {
            return false;
        }
        out += ',';
    }
    out += ']';
    shorten(out, start);
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

// The members of a request, as written.  A member of a name that comes again
// has no value: the last one counts.
struct Member {
    std::string name;
    std::string_view value;
};

struct Members {
    std::vector<Member> written;  // in this order
    std::vector<Member*> sorted;  // by their names
};

void sort_members(Members& members)
{
    for (auto& member : members.written) {
        members.sorted.push_back(&member);
    }
    std::sort(members.sorted.begin(), members.sorted.end(),
              [](auto* a, auto* b) {
                  const auto order = a->name.compare(b->name);
                  return order != 0 ? order < 0 : a < b;
              });
    for (std::size_t i = 1; i < members.sorted.size(); ++i) {
        if (members.sorted[i - 1]->name == members.sorted[i]->name) {
            members.sorted[i - 1]->value = {};
        }
    }
}

bool read_members(std::string_view body, Members& members)
{
    JsonScanner json(body);
    std::string name;
    json.enter_object();
    while (members.written.size() <= max_members && json.next_member(name)) {
        std::string_view value;
        if (json.take_value(value)) {
            members.written.push_back({name, value});
        }
    }
    return json.ok();
}

std::string_view value_of(const Members& members, std::string_view name)
{
    for (const auto& member : members.written) {
        if (member.name == name && !member.value.empty()) {
            return member.value;
        }
    }
    return {};
}

// What goes upstream: all but what is ours.
void append_members(const Members& members, ApiCall& call)
{
    for (const auto& [name, value] : members.written) {
        if (is_one_of(name, {"model", "stream"}) || value.empty() ||
            (name == "stream_options" && call.path == ApiPath::completions)) {
            continue;
        }
        call.members += call.members.empty() ? "" : ",";
        append_json(call.members, name);
        call.members.append(":").append(value);
    }
}

// The members by their names.
std::string canonical_of(const Members& members)
{
    std::string canonical;
    for (const auto* member : members.sorted) {
        if (!member->value.empty() && is_key_member(member->name)) {
            JsonScanner json(member->value);
            append_name(canonical, member->name);
            (void)append_canonical(canonical, json);
            canonical += ',';
        }
    }
    return canonical;
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

    Members members;
    if (!read_members(body, members)) {
        return bad_request("The JSON body is nested too deeply.");
    }
    if (members.written.size() > max_members) {
        return bad_request("The JSON body has too many members.");
    }
    sort_members(members);

    const auto model = value_of(members, "model");
    if (!model.starts_with('"') || model == "\"\"") {
        return bad_request("You must provide a \"model\" parameter.", "model");
    }
    const bool responses = request.call.path == ApiPath::responses;
    const auto messages = value_of(members, responses ? "input" : "messages");
    if (!responses && !messages.starts_with('[')) {
        return bad_request("The \"messages\" parameter must be an array.",
                           "messages");
    }

    const auto stream = value_of(members, "stream");
    if (!stream.empty() && !is_one_of(stream, {"true", "false", "null"})) {
        return bad_request("The \"stream\" parameter must be a boolean.",
                           "stream");
    }

    JsonScanner(model).take_string(request.call.model);
    request.stream = stream == "true";
    request.include_usage = include_usage(value_of(members, "stream_options"));
    request.question =
        messages.starts_with('[') ? last_question(messages) : text_of(messages);
    append_members(members, request.call);
    request.canonical = canonical_of(members);
    return {};
}

}  // namespace chatbot
