#include "text/json.hpp"

#include "text/hex.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

// Characters that JSON has short escapes for, and the letters of these.
constexpr std::string_view short_escaped = "\b\f\n\r\t\"\\";
constexpr std::string_view short_letters = "bfnrt\"\\";

// The code unit of the escape \uXXXX that starts at `at`, or -1.
int code_unit(std::string_view text, std::size_t at)
{
    return text.substr(at, 2) == "\\u" ? read_hex(text.substr(at + 2), 4) : -1;
}

bool is_high_surrogate(int unit)
{
    return unit >= 0xD800 && unit < 0xDC00;
}
bool is_low_surrogate(int unit)
{
    return unit >= 0xDC00 && unit < 0xE000;
}

// Finds, from the position `at` outside any escape on, an escape that stands
// for U+0000 or for half a surrogate pair.
std::size_t find_bad_escape(std::string_view text, std::size_t at)
{
    while ((at = text.find('\\', at)) != text.npos) {
        auto unit = code_unit(text, at);
        if (unit == 0 || is_low_surrogate(unit)) {
            return at;
        }

        at += unit < 0 ? 2 : 6;
        if (is_high_surrogate(unit)) {
            if (!is_low_surrogate(code_unit(text, at))) {
                return at - 6;
            }
            at += 6;
        }
    }
    return text.npos;
}

// Reads an escape that append_json() makes, and moves `at` behind it.  Returns
// U+0000 if there is none.
char read_own_escape(std::string_view text, std::size_t& at)
{
    auto unit = code_unit(text, at);
    if (unit >= 0) {
        at += 6;
        return unit < 0x20 ? static_cast<char>(unit) : '\0';
    }

    auto letter = at + 1 < text.size() ? short_letters.find(text[at + 1])
                                       : short_letters.npos;
    at += 2;
    return letter == short_letters.npos ? '\0' : short_escaped[letter];
}

}  // namespace

Json parse_json(std::string_view text)
{
    if (!is_utf8(text) || text.find('\0') != text.npos ||
        find_bad_escape(text, 0) != text.npos) {
        return nullptr;
    }

    // A copy, since cJSON reads beyond a text that has no U+0000 at its end
    // (CVE-2023-53154), and finds out what is behind the value by it.
    return Json(cJSON_ParseWithOpts(std::string(text).c_str(), nullptr, true));
}

Json parse_foreign_json(std::string_view text)
{
    std::string clean = to_utf8(text);
    std::size_t at = 0;
    while ((at = find_bad_escape(clean, at)) != clean.npos) {
        clean.replace(at, 6, "\\uFFFD");
    }
    return parse_json(clean);
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
