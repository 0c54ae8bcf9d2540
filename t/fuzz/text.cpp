// Text as Unicode sees it (unicode.hpp).

#include <utf8proc.h>

#include "fuzz.hpp"

using namespace chatbot;

namespace {

// `text` with another case, where Unicode has a simple one.  Left alone are
// letters that differ from their other case even when folded: the Turkish i's,
// and U+0345, which becomes a letter that marks behind it belong to.
std::string recase(std::string_view text, utf8proc_int32_t (*map)(int32_t))
{
    std::string out;
    while (!text.empty()) {
        auto bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
        auto size = static_cast<utf8proc_ssize_t>(text.size());
        utf8proc_int32_t c;
        auto length = utf8proc_iterate(bytes, size, &c);
        assert(length > 0);
        text.remove_prefix(static_cast<std::size_t>(length));

        utf8proc_uint8_t mapped[4];
        bool alone = c == 0x130 || c == 0x131 || c == 0x345;
        length = utf8proc_encode_char(alone ? c : map(c), mapped);
        out.append(mapped, mapped + length);
    }
    return out;
}

std::string composed(const std::string& text)
{
    auto bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.c_str());
    auto mapped = utf8proc_NFC(bytes);
    assert(mapped);
    std::string out(reinterpret_cast<char*>(mapped));
    std::free(mapped);
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    std::string_view bytes(reinterpret_cast<const char*>(data), size);

    auto text = to_utf8(bytes);
    assert(is_text(text));
    assert(to_utf8(text) == text);
    assert((text == bytes) == is_text(bytes));

    auto trimmed = trim(text);
    assert(trim(trimmed) == trimmed);
    assert(text.find(trimmed) != text.npos);
    assert(trim("\u3000 " + text + "\t\u2028") == trimmed);

    auto line = one_line(bytes, 20);
    assert(is_text(line) && line.size() <= 20);
    assert(trim(line) == line && one_line(line, 20) == line);
    assert(line.find_first_of("\x1b\n\x7F") == line.npos);

    auto folded = fold(text);
    assert(is_text(folded));
    assert(fold(folded) == folded);
    assert(fold(composed(text)) == folded);
    assert(fold(recase(text, utf8proc_toupper)) == folded);
    assert(fold(recase(text, utf8proc_tolower)) == folded);
    return 0;
}
