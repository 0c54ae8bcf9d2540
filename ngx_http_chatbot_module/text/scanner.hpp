#pragma once

#include <string>
#include <string_view>

namespace chatbot {

// Reads JSON front to back, by the letter of RFC 8259, without building a tree.
//
// Once something is not as expected, ok() is false for good and every function
// returns false; so a caller may read on, and look at ok() at the end.
//
// Threads:  nothing is shared; use each object in one thread at a time.
// Memory:   none of its own; `text` outlives the scanner.
class JsonScanner {
public:
    explicit JsonScanner(std::string_view text)
        : rest_(text)
    {
    }

    [[nodiscard]] bool ok() const { return ok_; }

    // Whether nothing but white space is left.
    [[nodiscard]] bool at_end();

    // An object: enter_object(), then each value after next_member() returned
    // true.  The first form does not support a name with an escape.
    bool enter_object();
    bool next_member(std::string_view& name);
    bool next_member(std::string& name);

    // An array: enter_array(), then each value after next_element() returned
    // true.
    bool enter_array();
    bool next_element();

    // Takes "null" if it comes next.
    bool take_null();

    // A string without escapes.
    bool take_plain_string(std::string_view& out);

    // Any string; what it means is appended.  U+0000 and half a surrogate pair
    // become U+FFFD.  The second form tells how it is written, too.
    bool take_string(std::string& out);
    bool take_string(std::string& out, std::string_view& written);

    // A number, as it is written.
    bool take_number(std::string_view& out);

    // Any value, to a depth of 64.
    bool skip_value();

    // The same, and how it is written.
    bool take_value(std::string_view& out);

    // How the value starts that comes next: '{', '[', '"' and so on; 0: there
    // is none.
    [[nodiscard]] char peek();

private:
    static constexpr int max_depth = 64;

    bool fail();
    void skip_space();
    bool take(char c);
    bool take_word(std::string_view word);
    bool next_item(char end);
    bool skip_string();
    bool skip_value(int depth);
    bool write_escape(char*& to);
    bool read_code_unit(unsigned& unit);

    std::string_view rest_;
    bool first_ = false;  // the item to come is the first of its container
    bool ok_ = true;
};

}  // namespace chatbot
