#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <cassert>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/strict_json.hpp"
#include "text/unicode.hpp"

// What the fuzzers have in common.  Each is one function,
// LLVMFuzzerTestOneInput (https://llvm.org/docs/LibFuzzer.html), which states
// with assert() what must hold whatever the bytes are.

namespace chatbot {

// Text as it may stand in our data: UTF-8 without U+0000.
inline bool is_text(std::string_view text)
{
    return is_utf8(text) && text.find('\0') == text.npos;
}

// Whether PostgreSQL would read it.
inline bool is_strict_json(std::string_view text)
{
    return !check_json(text);
}

inline std::string consume_text(FuzzedDataProvider& input)
{
    return to_utf8(input.ConsumeRandomLengthString());
}

// The same bytes in pieces of these sizes, and what remains.
inline std::vector<std::string_view> cut(std::string_view bytes,
                                         const std::vector<uint8_t>& sizes)
{
    std::vector<std::string_view> pieces;
    for (auto size : sizes) {
        pieces.push_back(bytes.substr(0, size));
        bytes.remove_prefix(pieces.back().size());
    }
    pieces.push_back(bytes);
    return pieces;
}

// A directory that is there as long as the fuzzer runs.
class Directory {
public:
    Directory()
    {
        auto name = std::filesystem::temp_directory_path() / "fuzz-XXXXXX";
        path_ = name.native();
        if (!mkdtemp(path_.data())) {
            std::abort();
        }
    }
    ~Directory() { std::filesystem::remove_all(path_); }

    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const char* name) const { return path_ + "/" + name; }

private:
    std::string path_;
};

}  // namespace chatbot
