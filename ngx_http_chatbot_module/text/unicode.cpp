#include "text/unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace chatbot {
namespace {

const utf8proc_uint8_t* bytes(std::string_view text)
{
    return reinterpret_cast<const utf8proc_uint8_t*>(text.data());
}

bool is_ascii(char byte)
{
    return static_cast<unsigned char>(byte) < 0x80;
}

// Whether `byte` is in the middle of a character.
bool continues(char byte)
{
    return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// Reads the first character of a text that is not empty.  Returns its length
// in bytes, or 0 if the text starts with none.
std::size_t read_character(std::string_view text, utf8proc_int32_t& character)
{
    if (is_ascii(text[0])) {
        character = text[0];
        return 1;
    }

    auto size = static_cast<utf8proc_ssize_t>(text.size());
    auto length = utf8proc_iterate(bytes(text), size, &character);
    return length > 0 ? static_cast<std::size_t>(length) : 0;
}

// How many ASCII characters `text` starts with, less up to seven.
std::size_t skip_ascii(std::string_view text)
{
    std::size_t size = 0;
    std::uint64_t word = 0;
    for (; text.size() - size >= sizeof(word); size += sizeof(word)) {
        std::memcpy(&word, text.data() + size, sizeof(word));
        if (word & 0x8080808080808080) {
            break;
        }
    }
    return size;
}

bool is_white_space(utf8proc_int32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_control(utf8proc_int32_t c)
{
    return c < 0x20 || (c >= 0x7F && c <= 0x9F);
}

bool starts_with_space(std::string_view text)
{
    utf8proc_int32_t character;
    return read_character(text, character) > 0 && is_white_space(character);
}

std::size_t last_character(std::string_view text)
{
    std::size_t start = text.size() - 1;
    while (start > 0 && continues(text[start])) {
        --start;
    }
    return start;
}

// Characters, each with its canonical combining class in the highest byte.
using Characters = std::vector<std::uint32_t>;

constexpr unsigned class_shift = 24;

std::uint32_t class_of(std::uint32_t item)
{
    return item >> class_shift;
}

utf8proc_int32_t character_of(std::uint32_t item)
{
    return static_cast<utf8proc_int32_t>(item & ((1U << class_shift) - 1));
}

std::uint32_t with_class(utf8proc_int32_t character)
{
    std::uint32_t combining = utf8proc_get_property(character)->combining_class;
    return combining << class_shift | static_cast<std::uint32_t>(character);
}

// Whether utf8proc_decompose_char() leaves a character as it is, which most
// are: several times as fast as to ask it.
bool stays(utf8proc_int32_t character, int options)
{
    constexpr std::uint16_t nothing = UINT16_MAX;
    bool hangul = character >= 0xAC00 && character <= 0xD7A3;
    auto property = utf8proc_get_property(character);
    return !hangul && property->decomp_seqindex == nothing &&
           (options == 0 || property->casefold_seqindex == nothing);
}

// Appends the canonical decomposition of one character, with UTF8PROC_CASEFOLD
// that of the folded character.
void append_decomposed(Characters& out, utf8proc_int32_t character, int options)
{
    if (character < 0x80) {
        bool upper = character >= 'A' && character <= 'Z';
        out.push_back(static_cast<std::uint32_t>(
            upper && options ? character - 'A' + 'a' : character));
        return;
    }
    if (stays(character, options)) {
        out.push_back(with_class(character));
        return;
    }

    std::array<utf8proc_int32_t, 32> parts;  // Unicode has no more than 4
    auto size = utf8proc_decompose_char(
        character, parts.data(), parts.size(),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | options), nullptr);
    for (utf8proc_ssize_t i = 0; i < size; ++i) {
        out.push_back(with_class(parts[static_cast<std::size_t>(i)]));
    }
}

// Canonical ordering: each run of characters whose class is not 0 is sorted by
// class.  utf8proc_decompose() sorts by insertion, which is quadratic.
void order_marks(Characters& text)
{
    auto is_mark = [](auto item) { return class_of(item) != 0; };
    auto start = text.begin();
    while ((start = std::find_if(start, text.end(), is_mark)) != text.end()) {
        auto end = std::find_if_not(start, text.end(), is_mark);
        if (!std::ranges::is_sorted(start, end, {}, class_of)) {
            std::ranges::stable_sort(start, end, {}, class_of);
        }
        start = end;
    }
}

Characters decompose(std::string_view text)
{
    Characters out;
    out.reserve(text.size());
    while (!text.empty()) {
        utf8proc_int32_t character;
        text.remove_prefix(read_character(text, character));
        append_decomposed(out, character, 0);
    }
    order_marks(out);
    return out;
}

std::string encode(const Characters& text)
{
    std::string out;
    out.reserve(2 * text.size());
    for (auto item : text) {
        std::array<utf8proc_uint8_t, 4> encoded;
        auto size = utf8proc_encode_char(character_of(item), encoded.data());
        out.append(encoded.data(), encoded.data() + size);
    }
    return out;
}

}  // namespace

std::size_t utf8_prefix(std::string_view text)
{
    std::size_t size = 0;
    while ((size += skip_ascii(text.substr(size))) < text.size()) {
        utf8proc_int32_t character;
        auto length = read_character(text.substr(size), character);
        if (length == 0) {
            break;
        }
        size += length;
    }
    return size;
}

bool has_controls(std::string_view text)
{
    // Eight bytes at once; a borrow can only come from a byte that is found.
    constexpr std::uint64_t ones = 0x0101010101010101;
    std::uint64_t word = 0;
    for (; text.size() >= sizeof(word); text.remove_prefix(sizeof(word))) {
        std::memcpy(&word, text.data(), sizeof(word));
        if ((word - 0x20 * ones) & ~word & 0x80 * ones) {
            return true;
        }
    }
    return std::ranges::any_of(
        text, [](char c) { return static_cast<unsigned char>(c) < 0x20; });
}

bool is_utf8(std::string_view text)
{
    return utf8_prefix(text) == text.size();
}

std::string to_utf8(std::string_view text)
{
    static constexpr std::string_view replacement = "\xEF\xBF\xBD";
    std::string out;
    std::size_t good = 0;  // bytes seen, but not yet appended

    while (good < text.size()) {
        utf8proc_int32_t character;
        auto length = read_character(text.substr(good), character);
        if (length > 0 && character != 0) {
            good += length;
            continue;
        }

        out.append(text, 0, good).append(replacement);
        do {
            ++good;
        } while (good < text.size() && continues(text[good]));
        text.remove_prefix(std::exchange(good, 0));
    }
    return out.append(text);
}

std::string one_line(std::string_view text, std::size_t max_size)
{
    const std::string clean = to_utf8(text);
    std::string line;
    bool gap = false;  // before what comes next

    for (std::size_t at = 0; at < clean.size();) {
        utf8proc_int32_t c;
        auto character = std::string_view(clean).substr(at);
        character = character.substr(0, read_character(character, c));
        at += character.size();

        if (is_control(c) || is_white_space(c)) {
            gap = !line.empty();
            continue;
        }
        if (line.size() + gap + character.size() > max_size) {
            break;
        }
        line.append(std::exchange(gap, false), ' ').append(character);
    }
    return line;
}

std::string_view trim(std::string_view text)
{
    while (!text.empty() && starts_with_space(text)) {
        utf8proc_int32_t character;
        text.remove_prefix(read_character(text, character));
    }

    while (!text.empty()) {
        auto last = last_character(text);
        if (!starts_with_space(text.substr(last))) {
            break;
        }
        text = text.substr(0, last);
    }
    return text;
}

std::string lower_case(std::string_view text)
{
    std::string out(text);
    for (auto& c : out) {
        if (c >= 'A' && c <= 'Z') {
            c = static_cast<char>(c - 'A' + 'a');
        }
    }
    return out;
}

std::string fold(std::string_view text)
{
    auto rest = text.substr(skip_ascii(text));
    if (!std::ranges::all_of(rest, is_ascii)) {
        // Folding alone is not enough: it makes a letter of the combining
        // U+0345, which must have found its place among other marks before.
        Characters folded;
        folded.reserve(text.size());
        for (auto item : decompose(text)) {
            append_decomposed(folded, character_of(item), UTF8PROC_CASEFOLD);
        }
        order_marks(folded);
        return encode(folded);
    }

    return lower_case(text);
}

bool take_prefix(std::string_view& text, std::string_view prefix)
{
    if (!text.starts_with(prefix)) {
        return false;
    }

    text.remove_prefix(prefix.size());
    return true;
}

}  // namespace chatbot
