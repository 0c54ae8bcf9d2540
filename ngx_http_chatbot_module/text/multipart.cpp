#include "text/multipart.hpp"

#include <algorithm>
#include <cstddef>

#include "text/header.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_boundary = 70;  // RFC 2046
constexpr std::string_view end_of_line = "\r\n";
constexpr std::string_view end_of_headers = "\r\n\r\n";

}  // namespace

Multipart::Multipart(std::string_view body, std::string_view boundary)
    : rest_(body),
      delimiter_("\r\n--")
{
    // Without control characters, so that each CR starts a delimiter or none:
    // this makes the search for it linear.
    bool valid = !boundary.empty() && boundary.size() <= max_boundary &&
                 std::ranges::all_of(
                     boundary, [](char c) { return c >= ' ' && c <= '~'; });
    if (valid) {
        delimiter_ += boundary;
    } else {
        fault_ = "it has no valid boundary";
    }
}

bool Multipart::next(Part& part)
{
    if (fault_ || (!begun_ && !find_first())) {
        return false;
    }
    if (rest_.starts_with("--") || !take_delimiter_line()) {
        return false;
    }

    auto end = rest_.find(delimiter_);
    if (end == rest_.npos) {
        return fail("the closing delimiter is missing");
    }
    auto whole = rest_.substr(0, end);
    rest_.remove_prefix(end + delimiter_.size());

    auto blank = whole.find(end_of_headers);
    if (blank == whole.npos) {
        return fail("a part has no blank line behind its headers");
    }
    part = {};
    part.content = whole.substr(blank + end_of_headers.size());
    return take_headers(whole.substr(0, blank), part);
}

bool Multipart::fail(const char* fault)
{
    fault_ = fault;
    return false;
}

bool Multipart::find_first()
{
    begun_ = true;
    auto bare = std::string_view(delimiter_).substr(end_of_line.size());
    if (take_prefix(rest_, bare)) {
        return true;
    }

    auto start = rest_.find(delimiter_);
    if (start == rest_.npos) {
        return fail("it does not contain its boundary");
    }
    rest_.remove_prefix(start + delimiter_.size());
    return true;
}

// Takes the rest of a line that a delimiter began.
bool Multipart::take_delimiter_line()
{
    rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size()));
    return take_prefix(rest_, end_of_line) ||
           fail("a delimiter is not followed by CRLF");
}

bool Multipart::take_headers(std::string_view headers, Part& part)
{
    while (!headers.empty()) {
        auto end = std::min(headers.find(end_of_line), headers.size());
        if (!take_header(headers.substr(0, end), part)) {
            return false;
        }
        headers.remove_prefix(
            std::min(end + end_of_line.size(), headers.size()));
    }
    return part.name || fail("a part has no name");
}

bool Multipart::take_header(std::string_view line, Part& part)
{
    auto colon = line.find(':');
    if (colon == line.npos || colon == 0 || line.find_first_of(" \t") < colon ||
        line.find_first_of("\r\n") != line.npos) {
        return fail("a part has an invalid header");
    }

    auto name = lower_case(line.substr(0, colon));
    auto value = line.substr(colon + 1);
    if (name == "content-type") {
        part.content_type = value;
    } else if (name == "content-transfer-encoding") {
        part.transfer_encoding = value;
    } else if (name == "content-disposition" &&
               header_word(value) == "form-data") {
        part.name = header_parameter(value, "name");
    }
    return true;
}

}  // namespace chatbot
