#include "text/strict_json.hpp"

#include "text/hex.hpp"
#include "text/plain_run.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

// Reads one text from front to back.  Each member function takes what it is
// named for, and returns whether it was there; if not, fault() tells why.
class Scanner {
public:
    Scanner(std::string_view text, std::size_t max_values)
        : text_(text),
          values_left_(max_values)
    {
    }

    JsonFault scan()
    {
        if (value(0)) {
            skip_space();
            if (at_ < text_.size()) {
                fail("unexpected text after the value");
            }
        }
        return fault_;
    }

private:
    bool fail(const char* what)
    {
        fault_ = {what, at_};
        return false;
    }

    bool unexpected()
    {
        return fail(at_ < text_.size() ? "an unexpected character"
                                       : "an unexpected end");
    }

    // The next character; U+0000, which is nowhere allowed, at the end.
    char next() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool take(char c)
    {
        bool there = next() == c;
        at_ += there;
        return there;
    }

    void skip_space()
    {
        while (next() == ' ' || next() == '\n' || next() == '\r' ||
               next() == '\t') {
            ++at_;
        }
    }

    bool value(std::size_t depth)
    {
        skip_space();
        if (values_left_ == 0) {
            return fail("too many values");
        }
        --values_left_;

        switch (next()) {
            case '{':
            case '[':
                return container(depth);
            case '"':
                return string();
            case 't':
                return word("true");
            case 'f':
                return word("false");
            case 'n':
                return word("null");
            default:
                return number();
        }
    }

    bool container(std::size_t depth)
    {
        if (depth == max_json_depth) {
            return fail("more than 128 levels");
        }

        bool object = text_[at_++] == '{';
        char end = object ? '}' : ']';
        skip_space();
        if (take(end)) {
            return true;
        }
        do {
            if ((object && !name()) || !value(depth + 1)) {
                return false;
            }
            skip_space();
        } while (take(','));
        return take(end) || unexpected();
    }

    bool name()
    {
        skip_space();
        if (next() != '"') {
            return unexpected();
        }
        if (!string()) {
            return false;
        }
        skip_space();
        return take(':') || unexpected();
    }

    bool word(std::string_view expected)
    {
        if (text_.substr(at_, expected.size()) != expected) {
            return unexpected();
        }
        at_ += expected.size();
        return true;
    }

    bool string()
    {
        ++at_;
        while (at_ < text_.size()) {
            auto c = static_cast<unsigned char>(text_[at_]);
            if (c == '"') {
                ++at_;
                return true;
            }
            if (c < 0x20) {
                return fail("a control character in a string");
            }
            if (c != '\\') {
                at_ += plain_length(text_.substr(at_));
            } else if (!escape()) {
                return false;
            }
        }
        return fail("a string without an end");
    }

    bool escape()
    {
        static constexpr std::string_view letters = "\"\\/bfnrt";
        if (at_ + 1 < text_.size() &&
            letters.find(text_[at_ + 1]) != letters.npos) {
            at_ += 2;
            return true;
        }

        auto unicode = read_unicode_escape(text_, at_);
        if (unicode.size > 0) {
            if (unicode.character == 0) {
                return fail("the character U+0000");
            }
            if (unicode.is_half()) {
                return fail("half of a surrogate pair");
            }
            at_ += unicode.size;
            return true;
        }
        return fail("an invalid escape");
    }

    bool number()
    {
        auto start = at_;
        take('-');
        if (!take('0') && !digits()) {
            at_ = start;
            return unexpected();
        }
        if ((take('.') && !digits()) || !exponent() || is_digit(next())) {
            return fail("an invalid number");
        }
        if (at_ - start > max_json_number) {
            at_ = start;
            return fail("a number that is too long");
        }
        return true;
    }

    bool exponent()
    {
        if (!take('e') && !take('E')) {
            return true;
        }
        if (!take('+')) {
            take('-');
        }
        return digits();
    }

    bool digits()
    {
        auto start = at_;
        while (is_digit(next())) {
            ++at_;
        }
        return at_ > start;
    }

    std::string_view text_;
    std::size_t at_ = 0;
    std::size_t values_left_;
    JsonFault fault_;
};

}  // namespace

JsonFault check_json(std::string_view text, std::size_t max_values)
{
    auto utf8 = utf8_prefix(text);
    if (utf8 < text.size()) {
        return {"ill-formed UTF-8", utf8};
    }
    return Scanner(text, max_values).scan();
}

UnicodeEscape read_unicode_escape(std::string_view text, std::size_t at)
{
    auto code_unit = [=](std::size_t at) {
        bool there = at < text.size() && text.substr(at).starts_with("\\u");
        return there ? read_hex(text.substr(at + 2), 4) : -1;
    };

    int first = code_unit(at);
    if (first < 0) {
        return {};
    }
    if (first >= 0xD800 && first < 0xDC00) {
        int second = code_unit(at + 6);
        if (second >= 0xDC00 && second < 0xE000) {
            return {12, 0x10000 + ((first - 0xD800) << 10) + second - 0xDC00};
        }
    }
    return {6, first};
}

}  // namespace chatbot
