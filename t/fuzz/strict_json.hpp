#pragma once

#include <string_view>

namespace chatbot {

// Reads JSON by the letter of RFC 8259, as PostgreSQL does and cJSON does not.
// Knows no white space, since we write none.
class StrictJson {
public:
    static bool is_valid(std::string_view text)
    {
        StrictJson json(text);
        return json.value() && json.rest_.empty();
    }

private:
    explicit StrictJson(std::string_view text)
        : rest_(text)
    {
    }

    bool take(std::string_view word)
    {
        if (!rest_.starts_with(word)) {
            return false;
        }
        rest_.remove_prefix(word.size());
        return true;
    }

    bool take_one_of(std::string_view letters)
    {
        if (rest_.empty() || letters.find(rest_[0]) == letters.npos) {
            return false;
        }
        rest_.remove_prefix(1);
        return true;
    }

    bool value()
    {
        if (take("{")) {
            return items("}",
                         [this] { return string() && take(":") && value(); });
        }
        if (take("[")) {
            return items("]", [this] { return value(); });
        }
        if (rest_.starts_with('"')) {
            return string();
        }
        return take("true") || take("false") || take("null") || number();
    }

    template <class Item>
    bool items(std::string_view end, Item item)
    {
        if (take(end)) {
            return true;
        }
        do {
            if (!item()) {
                return false;
            }
        } while (take(","));
        return take(end);
    }

    bool string()
    {
        if (!take("\"")) {
            return false;
        }
        while (!take("\"")) {
            if (rest_.empty() || static_cast<unsigned char>(rest_[0]) < 0x20 ||
                (take("\\") ? !escape() : !any())) {
                return false;
            }
        }
        return true;
    }

    bool any()
    {
        rest_.remove_prefix(1);
        return true;
    }

    bool escape()
    {
        if (!take("u")) {
            return take_one_of("\"\\/bfnrt");
        }
        for (int i = 0; i < 4; ++i) {
            if (!take_one_of("0123456789abcdefABCDEF")) {
                return false;
            }
        }
        return true;
    }

    bool number()
    {
        take("-");
        if (!take("0") && !digits()) {
            return false;
        }
        if (take(".") && !digits()) {
            return false;
        }
        if (take_one_of("eE")) {
            take_one_of("+-");
            return digits();
        }
        return true;
    }

    bool digits()
    {
        bool some = false;
        while (take_one_of("0123456789")) {
            some = true;
        }
        return some;
    }

    std::string_view rest_;
};

}  // namespace chatbot
