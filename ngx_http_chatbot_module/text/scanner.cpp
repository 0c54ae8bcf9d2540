#include "text/scanner.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "text/hex.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::string_view replacement = "\uFFFD";

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

std::size_t count_digits(std::string_view text, std::size_t at)
{
    auto end = at;
    while (end < text.size() && is_digit(text[end])) {
        ++end;
    }
    return end - at;
}

// The length of the number that `text` starts with, or 0.
std::size_t number_length(std::string_view text)
{
    std::size_t at = text.starts_with('-') ? 1 : 0;
    auto digits = count_digits(text, at);
    if (digits == 0 || (digits > 1 && text[at] == '0')) {
        return 0;
    }
    at += digits;

    if (at < text.size() && text[at] == '.') {
        digits = count_digits(text, ++at);
        if (digits == 0) {
            return 0;
        }
        at += digits;
    }

    if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
        ++at;
        if (at < text.size() && (text[at] == '+' || text[at] == '-')) {
            ++at;
        }
        digits = count_digits(text, at);
        return digits == 0 ? 0 : at + digits;
    }
    return at;
}

// Whether one of eight bytes may be a quote, a backslash or a control
// character: no such byte is missed.
// (https://graphics.stanford.edu/~seander/bithacks.html#HasLessInWord)
bool may_end_plain(std::uint64_t word)
{
    constexpr std::uint64_t ones = 0x0101010101010101;
    constexpr std::uint64_t highs = 0x8080808080808080;

    const auto has_less = [](std::uint64_t bytes, std::uint64_t limit) {
        return (bytes - ones * limit) & ~bytes & highs;
    };
    return (has_less(word, 0x20) | has_less(word ^ ones * '"', 1) |
            has_less(word ^ ones * '\\', 1)) != 0;
}

// Where the run of plain characters of a string ends: at a quote, a backslash,
// a control character, or the end of the text.
std::size_t plain_length(std::string_view text)
{
    std::size_t at = 0;
    std::uint64_t word;
    while (text.size() - at >= sizeof(word)) {
        std::memcpy(&word, text.data() + at, sizeof(word));
        if (may_end_plain(word)) {
            break;
        }
        at += sizeof(word);
    }
    while (at < text.size()) {
        auto c = static_cast<unsigned char>(text[at]);
        if (c == '"' || c == '\\' || c < 0x20) {
            break;
        }
        ++at;
    }
    return at;
}

// `character` is in the Basic Multilingual Plane or beyond, no surrogate.
void append_character(std::string& out, unsigned character)
{
    const auto rest = [&](int shift) {
        out += static_cast<char>(0x80 | (character >> shift & 0x3F));
    };

    if (character < 0x80) {
        out += static_cast<char>(character);
    } else if (character < 0x800) {
        out += static_cast<char>(0xC0 | character >> 6);
        rest(0);
    } else if (character < 0x10000) {
        out += static_cast<char>(0xE0 | character >> 12);
        rest(6);
        rest(0);
    } else {
        out += static_cast<char>(0xF0 | character >> 18);
        rest(12);
        rest(6);
        rest(0);
    }
}

}  // namespace

bool JsonScanner::fail()
{
    ok_ = false;
    rest_ = {};
    return false;
}

void JsonScanner::skip_space()
{
    std::size_t at = 0;
    while (at < rest_.size() && (rest_[at] == ' ' || rest_[at] == '\n' ||
                                 rest_[at] == '\r' || rest_[at] == '\t')) {
        ++at;
    }
    rest_.remove_prefix(at);
}

bool JsonScanner::at_end()
{
    skip_space();
    return ok_ && rest_.empty();
}

bool JsonScanner::take(char c)
{
    skip_space();
    if (!rest_.starts_with(c)) {
        return fail();
    }
    rest_.remove_prefix(1);
    return true;
}

bool JsonScanner::take_word(std::string_view word)
{
    return take_prefix(rest_, word) || fail();
}

bool JsonScanner::enter_object()
{
    first_ = true;
    return take('{');
}

bool JsonScanner::enter_array()
{
    first_ = true;
    return take('[');
}

bool JsonScanner::next_item(char end)
{
    skip_space();
    bool first = first_;
    first_ = false;
    if (rest_.starts_with(end)) {
        rest_.remove_prefix(1);
        return false;
    }
    return ok_ && (first || take(','));
}

bool JsonScanner::next_member(std::string_view& name)
{
    return next_item('}') && take_plain_string(name) && take(':');
}

bool JsonScanner::next_member(std::string& name)
{
    name.clear();
    return next_item('}') && take_string(name) && take(':');
}

bool JsonScanner::next_element()
{
    return next_item(']');
}

bool JsonScanner::take_null()
{
    skip_space();
    return take_prefix(rest_, "null");
}

bool JsonScanner::take_plain_string(std::string_view& out)
{
    if (!take('"')) {
        return false;
    }

    auto length = plain_length(rest_);
    if (length == rest_.size() || rest_[length] != '"') {
        return fail();
    }
    out = rest_.substr(0, length);
    rest_.remove_prefix(length + 1);
    return true;
}

bool JsonScanner::take_string(std::string& out)
{
    if (!take('"')) {
        return false;
    }

    for (;;) {
        auto length = plain_length(rest_);
        out.append(rest_, 0, length);
        rest_.remove_prefix(length);
        if (rest_.starts_with('"')) {
            rest_.remove_prefix(1);
            return true;
        }
        if (!rest_.starts_with('\\') || !append_escape(out)) {
            return fail();
        }
    }
}

bool JsonScanner::read_code_unit(unsigned& unit)
{
    if (rest_.size() < 6 || !rest_.starts_with("\\u")) {
        return false;
    }

    const int value = read_hex(rest_.substr(2), 4);
    unit = static_cast<unsigned>(value);
    return value >= 0;
}

// Takes the escape that comes next.
bool JsonScanner::append_escape(std::string& out)
{
    static constexpr std::string_view letters = "bfnrt\"\\/";
    static constexpr std::string_view meanings = "\b\f\n\r\t\"\\/";

    if (rest_.size() > 1) {
        auto letter = letters.find(rest_[1]);
        if (letter != letters.npos) {
            out += meanings[letter];
            rest_.remove_prefix(2);
            return true;
        }
    }

    unsigned unit;
    if (!read_code_unit(unit)) {
        return false;
    }
    rest_.remove_prefix(6);

    unsigned low;
    if (unit >= 0xD800 && unit < 0xDC00 && read_code_unit(low) &&
        low >= 0xDC00 && low < 0xE000) {
        rest_.remove_prefix(6);
        append_character(out, 0x10000 + ((unit - 0xD800) << 10) + low - 0xDC00);
    } else if (unit == 0 || (unit >= 0xD800 && unit < 0xE000)) {
        out += replacement;
    } else {
        append_character(out, unit);
    }
    return true;
}

bool JsonScanner::take_number(std::string_view& out)
{
    skip_space();
    auto length = number_length(rest_);
    if (length == 0) {
        return fail();
    }
    out = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return true;
}

bool JsonScanner::skip_string()
{
    if (!take('"')) {
        return false;
    }

    for (;;) {
        rest_.remove_prefix(plain_length(rest_));
        if (rest_.starts_with('"')) {
            rest_.remove_prefix(1);
            return true;
        }

        unsigned unit;
        if (rest_.size() > 1 && rest_[0] == '\\' &&
            std::string_view("bfnrt\"\\/").find(rest_[1]) != rest_.npos) {
            rest_.remove_prefix(2);
        } else if (read_code_unit(unit)) {
            rest_.remove_prefix(6);
        } else {
            return fail();
        }
    }
}

bool JsonScanner::take_value(std::string_view& out)
{
    skip_space();
    const auto before = rest_;
    if (!skip_value()) {
        return false;
    }
    out = before.substr(0, before.size() - rest_.size());
    return true;
}

char JsonScanner::peek()
{
    skip_space();
    return rest_.empty() ? '\0' : rest_[0];
}

bool JsonScanner::skip_value()
{
    return skip_value(max_depth);
}

bool JsonScanner::skip_value(int depth)
{
    skip_space();
    if (rest_.empty() || depth == 0) {
        return fail();
    }

    switch (rest_[0]) {
        case '{':
            enter_object();
            while (next_item('}') && skip_string() && take(':') &&
                   skip_value(depth - 1)) {
            }
            return ok_;
        case '[':
            enter_array();
            while (next_element() && skip_value(depth - 1)) {
            }
            return ok_;
        case '"':
            return skip_string();
        case 't':
            return take_word("true");
        case 'f':
            return take_word("false");
        case 'n':
            return take_word("null");
        default:
            std::string_view number;
            return take_number(number);
    }
}

}  // namespace chatbot
