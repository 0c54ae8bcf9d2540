#include "text/form.hpp"

#include <algorithm>
#include <cstddef>

#include "text/hex.hpp"

namespace chatbot {
namespace {

// Takes one decoded byte off the front of a text that is not empty.
char take_decoded(std::string_view& text)
{
    int byte = read_escape(text);
    char first = text[0] == '+' ? ' ' : text[0];
    text.remove_prefix(byte < 0 ? 1 : 3);
    return byte < 0 ? first : static_cast<char>(byte);
}

// Whether decode_form(text) is `name`.
bool decodes_to(std::string_view text, std::string_view name)
{
    while (!text.empty() && !name.empty()) {
        if (take_decoded(text) != name[0]) {
            return false;
        }
        name.remove_prefix(1);
    }
    return text.empty() && name.empty();
}

}  // namespace

int read_escape(std::string_view text)
{
    return text.starts_with('%') ? read_hex(text.substr(1), 2) : -1;
}

std::string decode_form(std::string_view text)
{
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        out += take_decoded(text);
    }
    return out;
}

std::string encode_controls(std::string_view text)
{
    std::string encoded;
    for (char c : text) {
        auto byte = static_cast<unsigned char>(c);
        if (byte >= ' ' && byte != 0x7F && byte != '%') {
            encoded += c;
            continue;
        }
        encoded += '%';
        append_hex(encoded, byte, 'A');
    }
    return encoded;
}

std::optional<std::string> form_member(std::string_view form,
                                       std::string_view name)
{
    std::optional<std::string_view> found;
    for (std::size_t at = 0; at <= form.size();) {
        auto end = std::min(form.find('&', at), form.size());
        auto pair = form.substr(at, end - at);
        at = end + 1;

        auto equals = std::min(pair.find('='), pair.size());
        if (!pair.empty() && decodes_to(pair.substr(0, equals), name)) {
            found = pair.substr(std::min(equals + 1, pair.size()));
        }
    }

    if (!found) {
        return std::nullopt;
    }
    return decode_form(*found);
}

}  // namespace chatbot
