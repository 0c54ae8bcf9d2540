#include "openai/protocol.hpp"

#include <algorithm>
#include <utility>

#include "openai/chunk.hpp"
#include "text/digest.hpp"
#include "text/json.hpp"
#include "text/strict_json.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

void append_message(std::string& out, std::string_view role,
                    std::string_view text)
{
    out += "{\"role\":";
    append_json(out, role);
    out += ",\"content\":";
    append_json(out, text);
    out += '}';
}

void append_member(std::string& out, std::string_view name,
                   std::string_view json,
                   const std::vector<std::string>& left_out)
{
    if (std::find(left_out.begin(), left_out.end(), name) != left_out.end()) {
        return;
    }
    out += ',';
    append_json(out, name);
    out += ':';
    out += json;
}

// Whether a parameter is sent to the model: one that is for this model comes
// before one that is for all.
bool is_for(const ModelParam& param, std::string_view model,
            const std::vector<ModelParam>& all)
{
    if (!param.model.empty()) {
        return param.model == model;
    }
    return std::none_of(all.begin(), all.end(), [&](const auto& other) {
        return other.name == param.name && other.model == model;
    });
}

// Whether a base URL is OpenAI's own.
bool is_openai(std::string_view url)
{
    url.remove_prefix(std::min(url.find("//"), url.size()));
    const auto host = lower_case(url.substr(0, url.find_first_of(":/?", 2)));
    return host == "//api.openai.com";
}

bool is_one_of(std::string_view word,
               std::initializer_list<std::string_view> words)
{
    return std::find(words.begin(), words.end(), word) != words.end();
}

// nginx reads "\n" in a quoted parameter as a line feed, which JSON wants to be
// escaped within its strings.
std::string with_controls_escaped(std::string_view text)
{
    std::string out;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        in_string ^= text[i] == '"' && (i == 0 || text[i - 1] != '\\');
        if (in_string && static_cast<unsigned char>(text[i]) < 0x20) {
            std::string escaped;
            append_json(escaped, text.substr(i, 1));
            out += escaped.substr(1, escaped.size() - 2);
        } else {
            out += text[i];
        }
    }
    return out;
}

// Whether a text that is no JSON was meant to be: {a: 1}, 01, True.
bool looks_like_json(std::string_view text)
{
    static constexpr std::string_view digits = "0123456789";

    if (text.empty()) {
        return false;
    }
    const bool number =
        text.find_first_not_of("+-.eE0123456789") == text.npos &&
        text.find_first_of(digits) != text.npos && text[0] != 'e' &&
        text[0] != 'E';
    return number || text[0] == '{' || text[0] == '[' || text[0] == '"' ||
           is_one_of(lower_case(text), {"true", "false", "null"});
}

// Why a reply that is no JSON is of no use.  What is meant to be JSON may be
// part of an answer, which does not belong into a log.
std::string unreadable(std::string_view body)
{
    const auto text = loggable(body);
    if (text.empty()) {
        return "an empty reply";
    }
    const bool is_other = text[0] != '{' && text[0] != '[';
    return "a reply that is no JSON" + (is_other ? ": " + text : "");
}

bool is_stream_type(const char* type)
{
    return type && lower_case(type).starts_with("text/event-stream");
}

}  // namespace

std::string request_body(const ModelSettings& settings, std::string_view model,
                         const std::vector<Message>& history,
                         std::string_view question, bool stream,
                         const std::vector<std::string>& left_out,
                         std::string_view url, std::string_view identifier)
{
    std::string body = "{\"model\":";
    append_json(body, model);

    body += ",\"messages\":[";
    if (!settings.system_prompt.empty()) {
        append_message(body, "system", settings.system_prompt);
        body += ',';
    }
    for (const auto& message : history) {
        append_message(body, message.role, message.content);
        body += ',';
    }
    append_message(body, "user", question);
    body += ']';

    for (const auto& param : settings.params) {
        if (is_for(param, model, settings.params)) {
            append_member(body, param.name, param.json, left_out);
            identifier = param.name == "safety_identifier" ? "" : identifier;
        }
    }
    if (!identifier.empty()) {
        std::string json;
        append_json(json, identifier);
        append_member(body, "safety_identifier", json, left_out);
    }

    if (stream) {
        append_member(body, "stream", "true", {});
        // OpenAI adds random bytes to each event, unless it is told not to.
        append_member(body, "stream_options",
                      is_openai(url.empty() ? settings.url : url)
                          ? R"({"include_usage":true,)"
                            R"("include_obfuscation":false})"
                          : R"({"include_usage":true})",
                      left_out);
    }
    body += '}';
    return body;
}

std::string safety_identifier(const ModelSettings& settings,
                              const ModelServer& server,
                              std::string_view client)
{
    if (client.empty() ||
        !(settings.identify_to_all || is_openai(server.url))) {
        return {};
    }
    return hex(hmac(server.api_key, client));
}

std::string larger_than(std::size_t answer_max_size)
{
    return "larger than \"chatbot_answer_max_size\" allows (" +
           std::to_string(answer_max_size) + " bytes)";
}

std::optional<std::string> param_value(std::string_view text)
{
    auto trimmed = is_utf8(text) ? trim(text) : text;
    if (auto json = with_controls_escaped(trimmed); !check_json(json)) {
        return json;
    }
    if (looks_like_json(trimmed)) {
        return std::nullopt;
    }

    std::string value;
    append_json(value, to_utf8(text));
    return value;
}

ReplyForm form_of(std::string_view start, const char* type)
{
    static constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

    if (!take_prefix(start, byte_order_mark) &&
        byte_order_mark.starts_with(start)) {
        return ReplyForm::unknown;
    }
    start.remove_prefix(
        std::min(start.find_first_not_of(" \t\r\n"), start.size()));

    for (std::string_view field : {":", "data:", "event:", "id:", "retry:"}) {
        if (start.starts_with(field)) {
            return ReplyForm::stream;
        }
        if (field.starts_with(start)) {
            return ReplyForm::unknown;
        }
    }
    if (start[0] == '{' || start[0] == '[') {
        return ReplyForm::whole;
    }
    return is_stream_type(type) ? ReplyForm::stream : ReplyForm::whole;
}

Json check_reply(Json json, ReplyError& error, std::string_view request)
{
    if (auto found = find_error(json.get(), request)) {
        error = std::move(*found);
        return nullptr;
    }
    if (!first_choice(json.get())) {
        error = read_without_choices(json.get(), request);
        return nullptr;
    }
    return json;
}

Json parse_reply(std::string_view body, ReplyError& error,
                 std::string_view request)
{
    Json json = parse_foreign_json(body);
    if (!json) {
        error.reason = unreadable(body);
        return nullptr;
    }
    return check_reply(std::move(json), error, request);
}

std::optional<Answer> read_reply(std::string_view body, ReplyError& error,
                                 std::string_view request)
{
    const Json json = parse_reply(body, error, request);
    if (!json) {
        return std::nullopt;
    }

    const cJSON* choice = first_choice(json.get());
    const cJSON* message = member(choice, "message");
    auto refusal = string_member(message, "refusal").value_or("");

    Answer answer;
    read_head(json.get(), answer);
    answer.text = read_content(message);
    if (trim(answer.text).empty()) {
        answer.text = refusal;
    }
    return conclude(
        std::move(answer),
        {.finish_reason = string_member(choice, "finish_reason").value_or(""),
         .refused = !refusal.empty()},
        error);
}

std::optional<Answer> conclude(Answer answer, const Ending& ending,
                               ReplyError& error)
{
    answer.text = std::string(trim(answer.text));
    if (answer.text.empty()) {
        error.reason = "a reply without text, finish_reason \"" +
                       loggable(ending.finish_reason) + "\"";
        return std::nullopt;
    }

    answer.finish_reason = ending.finish_reason;
    answer.complete = is_natural_end(ending.finish_reason) && !ending.refused &&
                      !ending.unsure;
    return answer;
}

bool is_natural_end(std::string_view finish_reason)
{
    return is_one_of(
        lower_case(finish_reason),
        {"", "stop", "eos", "eos_token", "eos_found", "eosfound", "end_turn",
         "stop_sequence", "complete", "completed", "finished", "end_of_text",
         "endoftext", "finish_reason_stop"});
}

bool is_known_end(std::string_view finish_reason)
{
    return is_natural_end(finish_reason) ||
           is_one_of(lower_case(finish_reason),
                     {"length", "max_tokens", "null", "model_length",
                      "content_filter", "tool_calls", "function_call",
                      "tool_use", "safety", "recitation", "refusal",
                      "insufficient_system_resource"});
}

}  // namespace chatbot
