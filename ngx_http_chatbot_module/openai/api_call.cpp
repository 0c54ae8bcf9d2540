#include "openai/api_call.hpp"

#include <utility>

#include "openai/chunk.hpp"
#include "openai/events.hpp"
#include "openai/protocol.hpp"

namespace chatbot {
namespace {

// Whether a choice came to an end, said by the service, that makes it worth
// keeping.
bool is_complete(const cJSON* choice)
{
    const auto end = string_member(choice, "finish_reason").value_or("");
    return end == "tool_calls" || (!end.empty() && is_natural_end(end));
}

Answer read_choices(const cJSON* json)
{
    Answer answer;
    read_head(json, answer);
    const cJSON* first = first_choice(json);
    const cJSON* message = member(first, "message");
    answer.text = read_content(message);
    if (const cJSON* calls = member(message, "tool_calls");
        answer.text.empty() && cJSON_IsArray(calls)) {
        answer.text = print_json(calls);
    }
    answer.finish_reason = string_member(first, "finish_reason").value_or("");

    answer.complete = !answer.text.empty();
    const cJSON* choice;
    cJSON_ArrayForEach(choice, member(json, "choices"))
    {
        answer.complete = answer.complete && is_complete(choice);
    }
    return answer;
}

}  // namespace

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

std::optional<Answer> read_api_reply(std::string reply, ReplyError& error,
                                     std::string_view request)
{
    const Json json = parse_reply(reply, error, request);
    if (!json) {
        return std::nullopt;
    }

    auto answer = read_choices(json.get());
    answer.events = split_reply(reply);
    answer.reply = std::move(reply);
    return answer;
}

std::optional<Answer> read_joined_reply(Json reply, ReplyError& error,
                                        std::string_view request)
{
    const Json json = check_reply(std::move(reply), error, request);
    if (!json) {
        return std::nullopt;
    }

    auto answer = read_choices(json.get());
    answer.reply = print_json(json.get());
    return answer;
}

}  // namespace chatbot
