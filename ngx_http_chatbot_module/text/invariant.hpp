#pragma once

#include <string>

namespace chatbot {

// Assertions that stay in the product.
//
//     if (!invariant(n <= reserved_, "more is released than was reserved")) {
//         n = reserved_;  // and it goes on safely
//     }
//
// Where one does not hold, a test ends with the text: a unit test, a fuzzer and
// everything built with a sanitizer.  In production the violation is counted
// and remembered; the event loop logs it (take_violation()), and the code goes
// on with the safest value.
//
// Threads:  all functions may be called on any thread.

// A place in the sources.  (clang 14 has no std::source_location.)
struct SourcePlace {
    const char* file;
    unsigned line;
    const char* function;
};

// Returns `holds`.  `what` is a literal that says what is wrong.
bool invariant(bool holds, const char* what,
               SourcePlace where = {__builtin_FILE(), __builtin_LINE(),
                                    __builtin_FUNCTION()}) noexcept;

// The text of a violation that was not taken yet, empty if there is none.  Each
// place in the sources is handed out once, however often it is violated.
[[nodiscard]] std::string take_violation();

// All violations so far.
[[nodiscard]] unsigned long violations() noexcept;

// Makes invariant() abort, for tests whose objects are those of production.
void abort_on_violation(bool aborts) noexcept;

// What follows is not for callers.

void note_violation(const char* what, const SourcePlace& where) noexcept;

inline bool invariant(bool holds, const char* what, SourcePlace where) noexcept
{
    if (!holds) [[unlikely]] {
        note_violation(what, where);
    }
    return holds;
}

}  // namespace chatbot
