#include "redis/value.hpp"

#include <charconv>
#include <cstdint>
#include <utility>

#include "text/unicode.hpp"
#include "text/json.hpp"

namespace chatbot {
namespace {

// Takes a number that is not negative off the front of `text`.
template <class Int>
bool take_digits(std::string_view& text, Int& number)
{
    if (text.size() > 1 && text[0] == '0' && text[1] >= '0' && text[1] <= '9') {
        return false;  // no number of JSON
    }

    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
    return error == std::errc() && number >= 0;
}

// Tokens as the model told them: -1 is "not told".
void append_tokens(std::string& out, const char* name, std::int32_t tokens)
{
    out += name;
    out += tokens < 0 ? "null" : std::to_string(tokens);
}

bool take_tokens(std::string_view& text, std::string_view name,
                 std::int32_t& tokens)
{
    return take_prefix(text, name) &&
           (take_prefix(text, "null") || take_digits(text, tokens));
}

// Reads what write_cache_value() wrote: several times as fast as a parser that
// takes any JSON, and most of what there is to do for a hit.
std::optional<Answer> read_own_value(std::string_view value)
{
    Answer answer;
    const bool own =
        is_utf8(value) && !has_controls(value) &&
        take_prefix(value, "{\"response\":") && take_json(value, answer.text) &&
        take_prefix(value, ",\"model\":") && take_json(value, answer.model) &&
        take_prefix(value, ",\"created\":") &&
        take_digits(value, answer.created) &&
        answer.created <= Answer::max_created &&
        take_tokens(value, ",\"prompt_tokens\":", answer.prompt_tokens) &&
        take_tokens(value,
                    ",\"completion_tokens\":", answer.completion_tokens) &&
        (!take_prefix(value, ",\"reply\":") ||
         take_json(value, answer.reply)) &&
        value == "}";
    return own ? std::optional(std::move(answer)) : std::nullopt;
}

// Reads any JSON.  Without a response in it the text is empty.
Answer read_any_value(std::string_view value)
{
    const Json json = parse_json(value);

    Answer answer;
    answer.text = string_member(json.get(), "response").value_or("");
    answer.model = string_member(json.get(), "model").value_or("");
    answer.reply = string_member(json.get(), "reply").value_or("");
    take_number(answer.created, Answer::max_created, json.get(), "created");
    take_number(answer.prompt_tokens, INT32_MAX, json.get(), "prompt_tokens");
    take_number(answer.completion_tokens, INT32_MAX, json.get(),
                "completion_tokens");
    return answer;
}

}  // namespace

std::string write_cache_value(const Answer& answer)
{
    std::string out = "{\"response\":";
    append_json(out, answer.text);
    out += ",\"model\":";
    append_json(out, answer.model);
    out += ",\"created\":" + std::to_string(answer.created);
    append_tokens(out, ",\"prompt_tokens\":", answer.prompt_tokens);
    append_tokens(out, ",\"completion_tokens\":", answer.completion_tokens);
    if (!answer.reply.empty()) {
        out += ",\"reply\":";
        append_json(out, answer.reply);
    }
    out += '}';
    return out;
}

std::optional<Answer> read_cache_value(std::string_view value)
{
    auto answer = read_own_value(value);
    if (!answer) {
        answer = read_any_value(value);
    }
    if (trim(answer->text).empty()) {
        return {};
    }

    answer->complete = true;  // no other is kept
    return answer;
}

}  // namespace chatbot
