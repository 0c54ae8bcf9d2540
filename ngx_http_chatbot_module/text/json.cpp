#include "text/json.hpp"

#include <new>
#include <utility>

#include "text/hex.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

// Characters that JSON has short escapes for, and the letters of these.
constexpr std::string_view short_escaped = "\b\f\n\r\t\"\\";
constexpr std::string_view short_letters = "bfnrt\"\\";

// Finds, from the position `at` outside any escape on, an escape that stands
// for U+0000 or for half of a surrogate pair.
std::size_t find_bad_escape(std::string_view text, std::size_t at)
{
    while ((at = text.find('\\', at)) != text.npos) {
        auto escape = read_unicode_escape(text, at);
        if (escape.size > 0 && (escape.character == 0 || escape.is_half())) {
            return at;
        }
        at += escape.size > 0 ? escape.size : 2;
    }
    return text.npos;
}

// The name at the front of `text` of a number that JSON does not have; Python's
// json.dumps() writes these.
std::string_view no_number(std::string_view text)
{
    for (std::string_view name : {"NaN", "Infinity", "-Infinity"}) {
        if (text.starts_with(name)) {
            return name;
        }
    }
    return {};
}

// `text` with null for each such number outside of strings.
std::string replace_no_numbers(std::string_view text)
{
    std::string out;
    out.reserve(text.size());
    bool in_string = false;
    std::size_t at = 0;
    while (at < text.size()) {
        auto taken = in_string ? "" : no_number(text.substr(at));
        if (taken.empty()) {
            taken = text.substr(at, text[at] == '\\' ? 2 : 1);
            in_string ^= taken == "\"";
            out += taken;
        } else {
            out += "null";
        }
        at += taken.size();
    }
    return out;
}

// A copy, since cJSON reads beyond a text that has no U+0000 at its end
// (CVE-2023-53154), and finds out what is behind the value by it.
Json read_json(const std::string& text)
{
    return Json(cJSON_ParseWithOpts(text.c_str(), nullptr, true));
}

// Reads JSON whose escapes are good.
Json read_foreign(std::string text)
{
    Json json = read_json(text);
    if (!json) {
        text = replace_no_numbers(text);
        json = read_json(text);
    }
    if (!json && !check_json(to_utf8(text))) {
        throw std::bad_alloc();
    }
    return json;
}

// Half of a surrogate pair is written as if it were a character; U+0000 is
// replaced.
void append_bad_character(std::string& out, int character)
{
    if (character == 0) {
        out += "\\uFFFD";
        return;
    }
    for (int bits : {0xE0 | character >> 12, 0x80 | (character >> 6 & 0x3F),
                     0x80 | (character & 0x3F)}) {
        out += static_cast<char>(bits);
    }
}

// Reads an escape that append_json() makes, and moves `at` behind it.  Returns
// U+0000 if there is none.
char read_own_escape(std::string_view text, std::size_t& at)
{
    auto unicode = read_unicode_escape(text, at);
    if (unicode.size > 0) {
        at += unicode.size;
        return unicode.character < 0x20 ? static_cast<char>(unicode.character)
                                        : '\0';
    }

    auto letter = at + 1 < text.size() ? short_letters.find(text[at + 1])
                                       : short_letters.npos;
    at += 2;
    return letter == short_letters.npos ? '\0' : short_escaped[letter];
}

}  // namespace

Json parse_json(std::string_view text, JsonFault& fault, std::size_t max_values)
{
    fault = check_json(text, max_values);
    if (fault) {
        return nullptr;
    }

    Json json = read_json(std::string(text));
    if (!json) {
        throw std::bad_alloc();
    }
    return json;
}

Json parse_json(std::string_view text)
{
    JsonFault fault;
    return parse_json(text, fault);
}

Json parse_foreign_json(std::string_view text)
{
    std::string clean = to_utf8(text);
    std::size_t at = 0;
    while ((at = find_bad_escape(clean, at)) != clean.npos) {
        clean.replace(at, 6, "\\uFFFD");
    }
    return read_foreign(std::move(clean));
}

Json parse_with_halves(std::string_view text)
{
    if (find_bad_escape(text, 0) == text.npos) {
        return nullptr;
    }

    const std::string clean = to_utf8(text);
    std::string out;
    std::size_t plain = 0;
    auto at = find_bad_escape(clean, 0);
    while (at != clean.npos) {
        out.append(clean, plain, at - plain);
        append_bad_character(out, read_unicode_escape(clean, at).character);
        plain = at + 6;
        at = find_bad_escape(clean, plain);
    }
    out.append(clean, plain);
    return read_foreign(std::move(out));
}

std::string print_json(const cJSON* json)
{
    const std::unique_ptr<char, decltype(&cJSON_free)> text(
        cJSON_PrintUnformatted(json), cJSON_free);
    if (!text) {
        throw std::bad_alloc();
    }
    return text.get();
}

const cJSON* member(const cJSON* object, const char* name)
{
    if (!cJSON_IsObject(object)) {
        return nullptr;
    }

    const cJSON* found = nullptr;
    const cJSON* item;
    cJSON_ArrayForEach(item, object)
    {
        if (std::string_view(item->string) == name) {
            found = item;
        }
    }
    return found;
}

std::optional<std::string_view> string_member(const cJSON* object,
                                              const char* name)
{
    const cJSON* item = member(object, name);
    if (!cJSON_IsString(item)) {
        return std::nullopt;
    }
    return item->valuestring;
}

std::optional<double> number_member(const cJSON* object, const char* name)
{
    const cJSON* item = member(object, name);
    if (!cJSON_IsNumber(item)) {
        return std::nullopt;
    }
    return item->valuedouble;
}

void append_json(std::string& out, std::string_view text)
{
    out += '"';
    std::size_t plain = 0;  // where the bytes not yet appended start
    for (std::size_t i = 0; i < text.size(); ++i) {
        auto c = static_cast<unsigned char>(text[i]);
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }

        out.append(text, plain, i - plain);
        plain = i + 1;

        out += '\\';
        auto letter = short_escaped.find(text[i]);
        if (letter != short_escaped.npos) {
            out += short_letters[letter];
        } else {
            out += "u00";
            append_hex(out, c);
        }
    }
    out.append(text, plain);
    out += '"';
}

bool take_json(std::string_view& text, std::string& out,
               void (*append_escaped)(std::string&, char))
{
    if (!text.starts_with('"')) {
        return false;
    }

    std::size_t at = 1;
    auto quote = text.find('"', at);
    while (quote != text.npos) {
        auto run = text.substr(at, quote - at);
        auto backslash = run.find('\\');
        out.append(run, 0, backslash);
        if (backslash == run.npos) {
            text.remove_prefix(quote + 1);
            return true;
        }

        at += backslash;
        auto c = read_own_escape(text, at);
        if (c == '\0') {
            return false;
        }
        if (append_escaped) {
            append_escaped(out, c);
        } else {
            out += c;
        }
        if (at > quote) {
            quote = text.find('"', at);
        }
    }
    return false;
}

}  // namespace chatbot
