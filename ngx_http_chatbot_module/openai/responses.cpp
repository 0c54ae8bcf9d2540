#include "openai/responses.hpp"

#include <limits>
#include <utility>

#include "openai/events.hpp"
#include "text/json.hpp"
#include "text/scanner.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

// The value of a member of an object, as written; empty if there is none.
std::string_view written_member(std::string_view object,
                                std::string_view wanted)
{
    JsonScanner json(object);
    std::string name;
    std::string_view value;
    json.enter_object();
    while (json.next_member(name)) {
        if (!json.take_value(value)) {
            return {};
        }
        if (name == wanted) {
            return value;
        }
    }
    return {};
}

std::string text_of(const cJSON* output)
{
    std::string text;
    const cJSON* item;
    cJSON_ArrayForEach(item, output)
    {
        const cJSON* part;
        cJSON_ArrayForEach(part, member(item, "content"))
        {
            text += string_member(part, "text").value_or("");
            text += string_member(part, "refusal").value_or("");
        }
    }
    return text;
}

void read_usage(const cJSON* usage, Answer& answer)
{
    constexpr double max = std::numeric_limits<std::int32_t>::max();

    take_number(answer.prompt_tokens, max, usage, "input_tokens");
    take_number(answer.completion_tokens, max, usage, "output_tokens");
    take_number(answer.cached_tokens, max,
                member(usage, "input_tokens_details"), "cached_tokens");
    take_number(answer.reasoning_tokens, max,
                member(usage, "output_tokens_details"), "reasoning_tokens");
}

}  // namespace

ResponseEvent read_response_event(std::string_view data)
{
    using End = ResponseEvent::End;

    const auto type = written_member(data, "type");
    if (type == "\"error\"" || type == "\"response.failed\"") {
        return {End::failed, written_member(data, "response")};
    }
    if (type == "\"response.completed\"" || type == "\"response.incomplete\"") {
        return {End::whole, written_member(data, "response")};
    }
    return {};
}

void append_relayed(std::string& events, std::string_view name,
                    std::string_view data)
{
    if (!name.empty()) {
        events.append("event: ").append(name).append("\n");
    }
    events += data_mark;
    append_on_one_line(events, data);
}

bool ends_in_failure(std::string_view events)
{
    auto line = events.substr(0, events.find_last_not_of('\n') + 1);
    line.remove_prefix(line.rfind('\n') + 1);  // the start, if there is none
    return take_prefix(line, data_mark) &&
           read_response_event(line).end == ResponseEvent::End::failed;
}

std::string completed_event(std::string_view reply)
{
    std::string data = R"({"type":"response.completed","sequence_number":0,)"
                       R"("response":)";
    std::string event;
    append_relayed(event, "response.completed", data.append(reply).append("}"));
    return event;
}

std::optional<Answer> read_response(std::string reply, ReplyError& error,
                                    std::string_view request)
{
    const Json json = parse_foreign_json(reply);
    if (auto found = find_error(json.get(), request)) {
        error = std::move(*found);
        return std::nullopt;
    }
    const cJSON* output = member(json.get(), "output");
    if (!cJSON_IsArray(output)) {
        error.reason =
            "a response without output: " + read_error(0, reply).reason;
        return std::nullopt;
    }

    Answer answer;
    answer.model = string_member(json.get(), "model").value_or("");
    take_number(answer.created, Answer::max_created, json.get(), "created_at");
    read_usage(member(json.get(), "usage"), answer);
    answer.text = text_of(output);
    if (answer.text.empty()) {
        answer.text = written_member(reply, "output");
    }
    answer.events = completed_event(reply);
    answer.reply = std::move(reply);
    return answer;
}

}  // namespace chatbot
