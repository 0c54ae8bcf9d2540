#include "openai/protocol.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "text/unicode.hpp"
#include "text/json.hpp"

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

// What an API says went wrong, as far as it says so.
struct ErrorText {
    std::string code;
    std::string type;
    std::string message;
};

void append_message(std::string& out, std::string_view role,
                    std::string_view text)
{
    out += "{\"role\":";
    append_json(out, role);
    out += ",\"content\":";
    append_json(out, text);
    out += '}';
}

std::string string_or_empty(const cJSON* object, const char* name)
{
    return std::string(string_member(object, name).value_or(""));
}

// Replaces what OpenAI repeats of a wrong key ("sk-proj-abc***xyz").
std::string without_keys(std::string_view text)
{
    static constexpr auto letters =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_*"sv;

    std::string out;
    for (std::size_t at = 0; at < text.size();) {
        auto end = std::min(text.find_first_not_of(letters, at), text.size());
        auto word = text.substr(at, end - at);
        bool is_key = word.starts_with("sk-") || word.find("***") != word.npos;
        out += is_key ? "***" : word;

        at = std::min(text.find_first_of(letters, end), text.size());
        out += text.substr(end, at - end);
    }
    return out;
}

// Makes a text of an upstream fit for the error log.  A key that starts before
// the cut is masked before it is cut.
std::string loggable(std::string_view text)
{
    static constexpr std::size_t max_size = 500;

    return one_line(without_keys(one_line(text, 2 * max_size)), max_size);
}

// The forms in use: {"error": {"message"...}} (OpenAI and most),
// {"error": "..."} (Ollama), {"message": ...} (older vLLM).
ErrorText read_error_text(const cJSON* json)
{
    const cJSON* error = member(json, "error");
    if (cJSON_IsString(error)) {
        return {.code = {}, .type = {}, .message = error->valuestring};
    }
    if (!cJSON_IsObject(error)) {
        error = json;
    }
    return {.code = string_or_empty(error, "code"),
            .type = string_or_empty(error, "type"),
            .message = string_or_empty(error, "message")};
}

std::string describe(const ErrorText& error)
{
    const auto& name = error.code.empty() ? error.type : error.code;
    if (name.empty() || error.message.empty()) {
        return loggable(name + error.message);
    }
    return loggable(name + ": " + error.message);
}

bool is_about_model(int status, const ErrorText& error)
{
    if (status < 400 || status > 499) {
        return false;
    }

    for (auto code : {"model_not_found", "model_deprecated",
                      "model_decommissioned", "ModelDeprecated"}) {
        if (error.code == code) {
            return true;
        }
    }

    auto message = fold(error.message);
    auto says = [&](auto words) { return message.find(words) != message.npos; };
    return (status == 404 || status == 410) && says("model") &&
           (says("not found") || says("not exist") || says("deprecated"));
}

// Whether asking again cannot help before somebody has paid.
bool is_about_money(std::string_view code)
{
    return code == "insufficient_quota" || code == "credit_balance_exhausted" ||
           code == "access_terminated" || code.starts_with("billing_") ||
           code.ends_with("_spend_limit_exceeded") ||
           code.ends_with("_usage_limit_exceeded");
}

Problem unusable(std::string reason)
{
    return {.status = 502,
            .detail = "The model gave no usable answer.",
            .reason = std::move(reason)};
}

// The first choice: we ask for one, and chatbot_param may ask for more.
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

// The text of a content: a string, or an array of parts.
std::string read_content(const cJSON* message)
{
    const cJSON* content = member(message, "content");
    if (!cJSON_IsArray(content)) {
        return string_or_empty(message, "content");
    }

    std::string text;
    const cJSON* part;
    cJSON_ArrayForEach(part, content)
    {
        text += string_member(part, "text").value_or("");
    }
    return text;
}

// Takes what replies and the events of a stream have in common; what is absent
// leaves `answer` as it is.
void read_head(const cJSON* json, Answer& answer)
{
    answer.model = string_member(json, "model").value_or(answer.model);
    take_number(answer.created, Answer::max_created, json, "created");

    const cJSON* usage = member(json, "usage");
    take_number(answer.prompt_tokens, INT32_MAX, usage, "prompt_tokens");
    take_number(answer.completion_tokens, INT32_MAX, usage,
                "completion_tokens");
}

// `answer` has all its text: whether it is one.
std::optional<Answer> conclude(Answer answer, std::string_view finish_reason,
                               bool refused, Problem& problem)
{
    answer.text = std::string(trim(answer.text));
    if (answer.text.empty()) {
        problem = unusable("a reply without text, finish_reason \"" +
                           loggable(finish_reason) + "\"");
        return std::nullopt;
    }

    answer.complete = finish_reason == "stop" && !refused;
    return answer;
}

}  // namespace

std::string request_body(const ModelSettings& settings, std::string_view model,
                         std::string_view question, bool stream)
{
    std::string body = "{\"model\":";
    append_json(body, model);

    body += ",\"messages\":[";
    if (!settings.system_prompt.empty()) {
        append_message(body, "system", settings.system_prompt);
        body += ',';
    }
    append_message(body, "user", question);
    body += ']';

    for (const auto& [name, json] : settings.params) {
        body += ',';
        append_json(body, name);
        body += ':';
        body += json;
    }

    if (stream) {
        body += ",\"stream\":true,\"stream_options\":{\"include_usage\":true}";
    }
    body += '}';
    return body;
}

std::string param_value(std::string_view text)
{
    if (auto json = is_utf8(text) ? parse_foreign_json(text) : nullptr) {
        // Printed anew, as cJSON also reads what is not quite JSON ("01").
        std::unique_ptr<char, decltype(&cJSON_free)> printed(
            cJSON_PrintUnformatted(json.get()), &cJSON_free);
        if (!printed) {
            throw std::bad_alloc();
        }
        return printed.get();
    }

    std::string value;
    append_json(value, to_utf8(text));
    return value;
}

std::optional<Answer> read_reply(std::string_view body, Problem& problem)
{
    Json json = parse_foreign_json(body);
    if (!json) {
        problem = unusable("a reply that is no JSON");
        return std::nullopt;
    }

    const cJSON* choice = first_choice(json.get());
    if (!choice) {
        auto error = describe(read_error_text(json.get()));
        problem = unusable("a reply without choices" +
                           (error.empty() ? error : ": " + error));
        return std::nullopt;
    }

    const cJSON* message = member(choice, "message");
    auto refusal = string_or_empty(message, "refusal");

    Answer answer;
    read_head(json.get(), answer);
    answer.text = read_content(message);
    if (trim(answer.text).empty()) {
        answer.text = refusal;
    }
    return conclude(std::move(answer), string_or_empty(choice, "finish_reason"),
                    !refusal.empty(), problem);
}

ReplyError read_error(int status, std::string_view body)
{
    Json json = parse_foreign_json(body);
    auto error = read_error_text(json.get());
    auto reason = describe(error);

    return {.model_missing = is_about_model(status, error),
            .money = is_about_money(error.code) || is_about_money(error.type),
            .reason = reason.empty() ? loggable(body) : reason};
}

bool StreamReader::feed(std::string_view bytes)
{
    // The whole answer in one event, each byte escaped as \u00XX, and its
    // frame.
    const std::size_t max_event = 6 * max_size_ + 64 * 1024;

    while (!bytes.empty() && !problem_ && !done_) {
        if (std::exchange(after_cr_, false) && bytes[0] == '\n') {
            bytes.remove_prefix(1);
            continue;
        }

        auto end = bytes.find_first_of("\r\n");
        line_.append(bytes.substr(0, end));
        if (line_.size() + data_.size() > max_event) {
            problem_ = unusable("an event of the stream is too large");
            break;
        }
        if (end == bytes.npos) {
            break;
        }

        after_cr_ = bytes[end] == '\r';
        bytes.remove_prefix(end + 1);
        take_line();
        line_.clear();
    }
    return !problem_;
}

std::optional<Answer> StreamReader::finish(Problem& problem)
{
    if (!problem_ && !whole()) {
        problem_ = unusable("the stream ended before the answer did");
    }
    if (problem_) {
        problem = problem_;
        return std::nullopt;
    }
    return conclude(std::move(answer_), finish_reason_, refused_, problem);
}

// An event is some lines "data:..." and an empty line; other fields and
// comments, which start with a colon, mean nothing here.
void StreamReader::take_line()
{
    static constexpr auto field = "data:"sv;

    if (line_.empty()) {
        take_event();
        data_.clear();
    } else if (line_.starts_with(field)) {
        data_.append(line_, field.size());
        data_ += '\n';
    }
}

void StreamReader::take_event()
{
    auto data = trim(data_);
    if (data.empty()) {
        return;
    }
    if (data == "[DONE]") {
        done_ = true;
        return;
    }

    Json json = parse_foreign_json(data);
    if (!json) {
        problem_ = unusable("an event of the stream is no JSON");
        return;
    }
    if (const cJSON* error = member(json.get(), "error");
        error && !cJSON_IsNull(error)) {
        problem_ = unusable("an error in the stream: " +
                            describe(read_error_text(json.get())));
        return;
    }

    read_head(json.get(), answer_);

    const cJSON* choice = first_choice(json.get());
    const cJSON* delta = member(choice, "delta");
    auto refusal = string_or_empty(delta, "refusal");
    refused_ = refused_ || !refusal.empty();

    take_text(read_content(delta));
    take_text(refusal);

    auto finish_reason = string_or_empty(choice, "finish_reason");
    if (!finish_reason.empty()) {
        finish_reason_ = finish_reason;
    }
}

void StreamReader::take_text(std::string_view text)
{
    auto solid = trim(text);
    if (answer_.text.empty()) {
        text.remove_prefix(
            static_cast<std::size_t>(solid.data() - text.data()));
    }

    if (solid.empty()) {
        blank_ += text;
    } else {
        auto end =
            static_cast<std::size_t>(solid.data() + solid.size() - text.data());
        blank_ += text.substr(0, end);
        answer_.text += blank_;
        blank_ = text.substr(end);
    }

    if (answer_.text.size() + blank_.size() > max_size_) {
        problem_ = unusable("the answer is too large");
    }
}

}  // namespace chatbot
