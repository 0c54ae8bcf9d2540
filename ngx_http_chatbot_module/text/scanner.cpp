#include "text/scanner.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

#include "text/hex.hpp"
#include "text/plain_run.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr unsigned replacement = 0xFFFD;

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

// Writes a character, which is no surrogate, as UTF-8; returns its end.
char* write_character(char* to, unsigned character)
{
    const auto rest = [&](int shift) {
        *to++ = static_cast<char>(0x80 | (character >> shift & 0x3F));
    };

    if (character < 0x80) {
        *to++ = static_cast<char>(character);
    } else if (character < 0x800) {
        *to++ = static_cast<char>(0xC0 | character >> 6);
        rest(0);
    } else if (character < 0x10000) {
        *to++ = static_cast<char>(0xE0 | character >> 12);
        rest(6);
        rest(0);
    } else {
        *to++ = static_cast<char>(0xF0 | character >> 18);
        rest(12);
        rest(6);
        rest(0);
    }
    return to;
}

// What the letter behind a backslash stands for; U+0000 if it is no such
// letter.
char meaning_of(char letter)
{
    static constexpr auto meanings = [] {
        std::array<char, 256> table{};
        for (char c : {'"', '\\', '/'}) {
            table[static_cast<unsigned char>(c)] = c;
        }
        table['b'] = '\b';
        table['f'] = '\f';
        table['n'] = '\n';
        table['r'] = '\r';
        table['t'] = '\t';
        return table;
    }();
    return meanings[static_cast<unsigned char>(letter)];
}

// What a string means is gathered in pieces of this size.
constexpr std::size_t piece_size = 512;
constexpr std::size_t max_character = 4;

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

    char piece[piece_size];
    char* end = piece;
    while (!rest_.empty()) {
        if (end > piece + piece_size - max_character) {
            out.append(piece, end);
            end = piece;
        }
        if (rest_[0] == '"') {
            rest_.remove_prefix(1);
            out.append(piece, end);
            return true;
        }
        if (rest_[0] == '\\') {
            if (!write_escape(end)) {
                return fail();
            }
            continue;
        }

        const auto length = plain_length(rest_);
        if (length == 0) {
            break;
        }
        if (length <= static_cast<std::size_t>(piece + piece_size - end)) {
            end = std::copy_n(rest_.data(), length, end);
        } else {
            out.append(piece, end).append(rest_, 0, length);
            end = piece;
        }
        rest_.remove_prefix(length);
    }
    return fail();
}

bool JsonScanner::take_string(std::string& out, std::string_view& written)
{
    skip_space();
    const auto before = rest_;
    if (!take_string(out)) {
        return false;
    }
    const auto size = before.size() - rest_.size();
    written = before.substr(1, size - 2);  // without the quotes
    return true;
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

// Takes the escape that comes next, and writes what it means.
bool JsonScanner::write_escape(char*& to)
{
    if (rest_.size() > 1 && meaning_of(rest_[1])) {
        *to++ = meaning_of(rest_[1]);
        rest_.remove_prefix(2);
        return true;
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
        unit = 0x10000 + ((unit - 0xD800) << 10) + low - 0xDC00;
    } else if (unit == 0 || (unit >= 0xD800 && unit < 0xE000)) {
        unit = replacement;
    }
    to = write_character(to, unit);
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
        if (!rest_.starts_with('\\')) {
            rest_.remove_prefix(plain_length(rest_));
        }
        if (rest_.starts_with('"')) {
            rest_.remove_prefix(1);
            return true;
        }

        unsigned unit;
        if (rest_.size() > 1 && rest_[0] == '\\' && meaning_of(rest_[1])) {
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
