#include "text/header.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>

#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::string_view space = " \t";

std::string_view without_space(std::string_view text)
{
    auto start = std::min(text.find_first_not_of(space), text.size());
    return text.substr(start, text.find_last_not_of(space) + 1 - start);
}

// Takes what comes before any of the `ends`, and the white space around it.
std::string_view take_token(std::string_view& text, std::string_view ends)
{
    auto end = std::min(text.find_first_of(ends), text.size());
    auto token = without_space(text.substr(0, end));
    text.remove_prefix(end);
    return token;
}

// Takes a quoted string, of which nothing but the end may be missing.
std::string take_quoted(std::string_view& text)
{
    std::string out;
    std::size_t at = 1;
    for (; at < text.size() && text[at] != '"'; ++at) {
        at += text[at] == '\\' && at + 1 < text.size();
        out += text[at];
    }
    text.remove_prefix(std::min(at + 1, text.size()));
    return out;
}

std::string take_value(std::string_view& text)
{
    text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
    return text.starts_with('"') ? take_quoted(text)
                                 : std::string(take_token(text, ";"));
}

}  // namespace

std::string header_word(std::string_view value)
{
    return lower_case(without_space(value.substr(0, value.find(';'))));
}

std::optional<std::string> header_parameter(std::string_view value,
                                            std::string_view name)
{
    while (true) {
        auto semicolon = value.find(';');
        if (semicolon == value.npos) {
            return std::nullopt;
        }
        value.remove_prefix(semicolon + 1);

        auto found = take_token(value, ";=");
        if (!value.starts_with('=')) {
            continue;
        }
        value.remove_prefix(1);
        auto parameter = take_value(value);
        if (lower_case(found) == name) {
            return parameter;
        }
    }
}

double accepted_weight(std::string_view accept, std::string_view type)
{
    while (!accept.empty()) {
        const auto item = take_token(accept, ",");
        accept.remove_prefix(std::min<std::size_t>(1, accept.size()));
        if (header_word(item) == type) {
            const auto weight = header_parameter(item, "q").value_or("1");
            return std::strtod(weight.c_str(), nullptr);
        }
    }
    return 0;
}

}  // namespace chatbot
