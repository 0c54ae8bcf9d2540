#pragma once

#include <cjson/cJSON.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "text/strict_json.hpp"

namespace chatbot {

// JSON (RFC 8259), read with cJSON and written by appending to a string.
//
// Threads:  functions without state; call them anywhere.

struct JsonDeleter {
    void operator()(cJSON* json) const { cJSON_Delete(json); }
};

using Json = std::unique_ptr<cJSON, JsonDeleter>;

// Reads a JSON text that has no fault (check_json()); null if it has one.
[[nodiscard]] Json parse_json(std::string_view text, JsonFault& fault,
                              std::size_t max_values = any_number_of_values);
[[nodiscard]] Json parse_json(std::string_view text);

// Reads what a server sent, as cJSON does: U+0000, ill-formed UTF-8 and halves
// of surrogate pairs are replaced by U+FFFD, NaN and infinities by null.  Null
// if it cannot be read.
[[nodiscard]] Json parse_foreign_json(std::string_view text);

// The same, but halves of surrogate pairs are kept in strings, as three bytes
// each that are no UTF-8 (https://simonsapin.github.io/wtf-8/).  Null if there
// are none, or it cannot be read.
[[nodiscard]] Json parse_with_halves(std::string_view text);

// The shortest text of it; throws std::bad_alloc.
[[nodiscard]] std::string print_json(const cJSON* json);

// A member of an object; of several equal names the last counts, as in most
// readers.  Null if `object` is null, no object, or has no such member.
[[nodiscard]] const cJSON* member(const cJSON* object, const char* name);

// The value of a string, number member; nothing if it is of another type.
[[nodiscard]] std::optional<std::string_view> string_member(const cJSON* object,
                                                            const char* name);
[[nodiscard]] std::optional<double> number_member(const cJSON* object,
                                                  const char* name);

// Takes a member that is a number from 0 to `max`; any other leaves `number`
// as it is.
template <class Int>
void take_number(Int& number, double max, const cJSON* object, const char* name)
{
    auto found = number_member(object, name).value_or(-1);
    if (found >= 0 && found <= max) {
        number = static_cast<Int>(found);
    }
}

// Appends `text`, which must be UTF-8, as a JSON string with its quotes.
void append_json(std::string& out, std::string_view text);

// Takes a string that append_json() made off the front of `text` and appends
// what it means; characters that were escaped go through `append_escaped`, if
// it is given.  Returns false if there is no such string; what was appended is
// then of no use.
[[nodiscard]] bool take_json(std::string_view& text, std::string& out,
                             void (*append_escaped)(std::string& out,
                                                    char c) = nullptr);

}  // namespace chatbot
