#include "openai/error.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "openai/chunk.hpp"
#include "openai/error_text.hpp"
#include "openai/protocol.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

constexpr int bad_gateway = 502;

// The request that an error answers.
struct Asked {
    std::string model;
    std::vector<std::string> members;  // those that it can do without
};

Asked read_request(std::string_view request)
{
    Asked asked;
    Json json = parse_json(request);
    const cJSON* item;
    cJSON_ArrayForEach(item, json.get())
    {
        if (item->string == "model"sv) {
            asked.model = cJSON_IsString(item) ? item->valuestring : "";
        } else if (item->string && item->string != "messages"sv &&
                   item->string != "stream"sv) {
            asked.members.emplace_back(item->string);
        }
    }
    return asked;
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

std::string describe(const ErrorText& error)
{
    const auto& name = error.code.empty() ? error.type : error.code;
    if (name.empty() || error.message.empty()) {
        return loggable(name + error.message);
    }
    return loggable(name + ": " + error.message);
}

bool contains_any(std::string_view text,
                  std::initializer_list<std::string_view> words)
{
    return std::any_of(words.begin(), words.end(),
                       [=](auto word) { return text.find(word) != text.npos; });
}

// In small letters, words apart.
std::string plain(std::string_view text)
{
    auto out = fold(one_line(text, 1000));
    std::replace(out.begin(), out.end(), '_', ' ');
    return out;
}

// True for billing errors: a retry cannot succeed.
bool is_about_money(int status, const ErrorText& error)
{
    const auto named = [](std::string_view code) {
        return code == "insufficient_quota" ||
               code == "credit_balance_exhausted" ||
               code == "access_terminated" || code.starts_with("billing_") ||
               code.ends_with("_spend_limit_exceeded") ||
               code.ends_with("_usage_limit_exceeded");
    };
    if (status == 402 || named(error.code) || named(error.type)) {
        return true;
    }

    auto message = plain(error.message);
    return status != 404 && contains_any(message, {"credit", "balance"}) &&
           contains_any(message, {"insufficient", "too low", "not enough",
                                  "exhausted", "negative", "run out"});
}

// The status that the words of an error inside a 200 stand for.
int status_of_words(std::string_view text)
{
    static constexpr std::pair<std::string_view, int> statuses[] = {
        {"rate limit", 429},
        {"ratelimit", 429},
        {"rate exceeded", 429},
        {"limit exceeded", 429},
        {"limitexceeded", 429},
        {"limit reached", 429},
        {"too many requests", 429},
        {"resource exhausted", 429},
        {"quota", 429},
        {"throttl", 429},
        {"并发", 429},
        {"频率", 429},
        {"限流", 429},
        {"overloaded", 503},
        {"unavailable", 503},
        {"capacity", 503},
        {"busy", 503},
        {"try again", 503},
        {"繁忙", 503},
        {"timeout", 504},
        {"timed out", 504},
        {"deadline", 504},
        {"unauthorized", 401},
        {"authentication", 401},
        {"invalid api key", 401},
        {"login fail", 401},
        {"permission", 403},
        {"forbidden", 403},
        {"not found", 404},
        {"not exist", 404},
        {"unknown model", 404},
        {"invalid request", 400},
        {"bad request", 400},
        {"invalid argument", 400},
        {"invalid param", 400},
        {"unsupported", 400},
        {"content filter", 400},
        {"content policy", 400},
        {"moderation", 400},
        {"context length", 400},
    };

    auto words = plain(text);
    for (auto [part, status] : statuses) {
        if (words.find(part) != words.npos) {
            return status;
        }
    }
    return 0;
}

// The status that an error inside a 200 names or stands for, or 0.
int status_said(const ErrorText& error)
{
    if (error.status) {
        return error.status;
    }
    for (const auto* text : {&error.code, &error.type, &error.message}) {
        if (auto status = status_of_words(*text)) {
            return status;
        }
    }
    return 0;
}

int status_inside_success(const ErrorText& error)
{
    const int status = status_said(error);
    return status ? status : bad_gateway;
}

// Where a message names a member: in quotes, at the end behind a colon, or by a
// name that is no word; npos if it does not.
std::size_t find_name(std::string_view message, std::string_view name)
{
    constexpr auto quotes = "'\"`("sv;

    for (auto at = message.find(name); at != message.npos;
         at = message.find(name, at + 1)) {
        const auto before = message.substr(0, at);
        const auto after = message.substr(at + name.size());
        const bool ends = after.empty() || after == ".";
        const bool apart =
            ends || after[0] == ' ' || quotes.find(after[0]) != quotes.npos;
        if ((!before.empty() && quotes.find(before.back()) != quotes.npos &&
             !after.empty()) ||
            (before.ends_with(": ") && ends) ||
            (before.ends_with(' ') && apart && name.find('_') != name.npos)) {
            return at;
        }
    }
    return message.npos;
}

// The member of the request that the service does not take, if that is what
// the error is about.
std::string find_refused_member(int status, const ErrorText& error,
                                const std::vector<std::string>& members)
{
    if (status != 400 && status != 422) {
        return {};
    }

    auto said = plain(error.code + " " + error.type + " " + error.message);
    if (!contains_any(said, {"unsupported", "not supported", "not support",
                             "unrecognized", "unknown", "unexpected",
                             "not permitted", "not allowed", "forbidden"})) {
        return {};
    }

    auto param = error.param.substr(0, error.param.find_first_of(".["));
    for (const auto& name : members) {
        if (name == param) {
            return name;
        }
    }
    std::string first;
    auto first_at = std::string::npos;
    for (const auto& name : members) {
        auto at = find_name(error.message, name);
        if (param.empty() && at < first_at) {
            first_at = at;
            first = name;
        }
    }
    return first;
}

ReplyError interpret(int status, const ErrorText& error,
                     std::string_view request)
{
    // Only errors of the request are read for what they say of it.
    auto asked = status < 500 ? read_request(request) : Asked{};

    ReplyError result{.status = status,
                      .money = is_about_money(status, error),
                      .reason = describe(error),
                      .message = loggable(error.message),
                      .code = loggable(error.code),
                      .param = loggable(error.param)};
    result.model_missing =
        !result.money && is_missing_model(status, error, asked.model);
    if (result.model_missing) {
        result.code = "model_not_found";
        result.param = "model";
    } else if (!result.money) {
        result.refused_member =
            find_refused_member(status, error, asked.members);
        result.param =
            result.param.empty() ? result.refused_member : result.param;
    }
    return result;
}

// Some services have an "error" in each reply: null, 0, {"message": "",
// "code": 0}.
bool is_empty(const cJSON* error)
{
    const cJSON* item;
    cJSON_ArrayForEach(item, error)
    {
        if (!is_empty(item)) {
            return false;
        }
    }
    return !(cJSON_IsTrue(error) ||
             (cJSON_IsNumber(error) && error->valuedouble != 0) ||
             (cJSON_IsString(error) && *error->valuestring != '\0'));
}

// What a reply that cannot be used is: what it says, or the names of its
// members, as their values may be part of an answer.
std::string outline(const ErrorText& text, const cJSON* json)
{
    if (auto said = describe(text); !said.empty()) {
        return ": " + said;
    }
    if (!cJSON_IsObject(json)) {
        return "";
    }

    std::string names;
    const cJSON* item;
    cJSON_ArrayForEach(item, json)
    {
        names += std::string(names.empty() ? "" : ", ") + item->string;
    }
    return names.empty() ? "" : ", only " + loggable(names);
}

// An object that holds an error, or null.
const cJSON* holder_of_error(const cJSON* json)
{
    json = first_of(json);
    if (!is_empty(member(json, "error")) || failed_base(json) ||
        string_member(json, "object") == "error") {
        return json;
    }

    const cJSON* choice = first_choice(json);
    if (!is_empty(member(choice, "error"))) {
        return choice;
    }

    bool has_choices = cJSON_IsArray(member(json, "choices"));
    return !has_choices && read_error_text(json).status ? json : nullptr;
}

// A service that is asked for a stream may tell an error of any status as an
// event.
std::string_view data_of_event(std::string_view body)
{
    const auto at = form_of(body, nullptr) == ReplyForm::stream
                        ? body.find("data:")
                        : body.npos;
    if (at == body.npos) {
        return body;
    }
    body.remove_prefix(at + 5);
    return body.substr(0, body.find_first_of("\r\n"));
}

}  // namespace

ReplyError read_error(int status, std::string_view body,
                      std::string_view request)
{
    body = data_of_event(body);
    Json json = parse_foreign_json(body);
    auto text = read_error_text(json.get());
    if (!json && !body.starts_with('<')) {
        text.message = body;  // some say it in plain text
    }
    auto result = interpret(status, text, request);
    if (result.reason.empty()) {
        result.reason = loggable(body);
    }
    return result;
}

std::optional<ReplyError> find_error(const cJSON* json,
                                     std::string_view request)
{
    if (const cJSON* holder = holder_of_error(json)) {
        auto error = read_error_text(holder);
        return interpret(status_inside_success(error), error, request);
    }

    if (string_member(first_choice(json), "finish_reason") == "error") {
        return ReplyError{.status = bad_gateway,
                          .reason = "finish_reason \"error\""};
    }
    return std::nullopt;
}

ReplyError read_without_choices(const cJSON* json, std::string_view request)
{
    const auto text = read_error_text(json);
    if (const int status = status_said(text)) {
        return interpret(status, text, request);
    }

    ReplyError error;
    error.reason = "a reply without choices" + outline(text, json);
    return error;
}

ReplyError read_error_event(std::string_view data, std::string_view request)
{
    Json json = parse_foreign_json(data);
    if (auto error = find_error(json.get(), request)) {
        return *error;
    }

    auto text = read_error_text(json.get());
    if (!json) {
        text.message = data;
    }
    return interpret(status_inside_success(text), text, request);
}

std::string loggable(std::string_view text)
{
    static constexpr std::size_t max_size = 500;

    // A key that starts before the cut is masked before it is cut.
    return one_line(without_keys(one_line(text, 2 * max_size)), max_size);
}

}  // namespace chatbot
