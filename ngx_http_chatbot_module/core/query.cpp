#include "core/query.hpp"

#include <utility>

#include "text/form.hpp"
#include "text/header.hpp"
#include "text/json.hpp"
#include "text/multipart.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::string_literals::operator""s;

constexpr std::string_view byte_order_mark = "\uFEFF";

// More than these would take too long to read into a tree ("make worst").
constexpr std::size_t max_body_values = 4000;

Problem problem(int status, std::string detail)
{
    return {.status = status, .detail = std::move(detail), .reason = {}};
}

bool is_json(std::string_view type)
{
    return type == "application/json" || type.ends_with("+json");
}

// Text in another charset than UTF-8 is refused.
Problem check_charset(std::string_view content_type)
{
    auto charset =
        lower_case(header_parameter(content_type, "charset").value_or("utf-8"));
    if (charset == "utf-8" || charset == "utf8") {
        return {};
    }
    return problem(415, "The charset must be UTF-8.");
}

Problem query_from_json(std::string_view body,
                        std::optional<std::string>& query)
{
    // RFC 8259, section 8.1: may be ignored.
    take_prefix(body, byte_order_mark);

    JsonFault fault;
    Json json = parse_json(body, fault, max_body_values);
    if (fault) {
        return problem(400, "The JSON body is refused: "s + fault.what +
                                " at byte " + std::to_string(fault.at) + ".");
    }
    if (!cJSON_IsObject(json.get())) {
        return problem(400, "The body must be a JSON object.");
    }

    const cJSON* item = member(json.get(), "query");
    if (!item || cJSON_IsNull(item)) {
        return {};
    }
    if (!cJSON_IsString(item)) {
        return problem(422, "The \"query\" member must be a string.");
    }

    query = item->valuestring;
    return {};
}

Problem query_from_form(std::string_view body,
                        std::optional<std::string>& query)
{
    if (auto found = form_member(body, "query")) {
        query = std::move(found);
    }
    return {};
}

// How a part is written.
Problem check_part(const Multipart::Part& part)
{
    auto encoding = header_word(part.transfer_encoding);
    if (!encoding.empty() && encoding != "7bit" && encoding != "8bit" &&
        encoding != "binary") {
        return problem(415,
                       "The Content-Transfer-Encoding of the field "
                       "\"query\" is not supported.");
    }
    return check_charset(part.content_type);
}

Problem query_from_multipart(std::string_view content_type,
                             std::string_view body,
                             std::optional<std::string>& query)
{
    std::optional<std::string_view> found;
    Multipart parts(body,
                    header_parameter(content_type, "boundary").value_or(""));
    for (Multipart::Part part; parts.next(part);) {
        if (part.name != "query") {
            continue;
        }
        if (auto wrong = check_part(part)) {
            return wrong;
        }
        found = part.content;
    }

    if (parts.fault()) {
        return problem(400, "The body is not valid multipart/form-data: "s +
                                parts.fault() + ".");
    }
    if (found) {
        query = std::string(*found);
    }
    return {};
}

}  // namespace

Problem check_body(std::size_t size, std::string_view content_encoding,
                   std::size_t query_max_size)
{
    auto max_size = max_body_size(query_max_size);
    if (size > max_size) {
        return problem(413, "The body is longer than " +
                                std::to_string(max_size) + " bytes.");
    }

    if (!content_encoding.empty() &&
        lower_case(content_encoding) != "identity") {
        return problem(415, "A body with a Content-Encoding is not supported.");
    }
    return {};
}

Problem query_from_body(std::string_view content_type, std::string_view body,
                        std::optional<std::string>& query)
{
    if (body.empty()) {
        return {};
    }

    auto type = header_word(content_type);
    bool json = is_json(type);
    bool multipart = type == "multipart/form-data";
    if (!json && !multipart && type != "application/x-www-form-urlencoded") {
        return problem(415,
                       "The body must be application/json, "
                       "application/x-www-form-urlencoded or "
                       "multipart/form-data.");
    }
    if (auto wrong = check_charset(content_type)) {
        return wrong;
    }

    if (json) {
        return query_from_json(body, query);
    }
    return multipart ? query_from_multipart(content_type, body, query)
                     : query_from_form(body, query);
}

Problem check_query(const std::optional<std::string>& query,
                    std::size_t max_size)
{
    if (!query) {
        return problem(422, "The \"query\" parameter is missing.");
    }
    if (query->size() > max_size) {
        return problem(413, "The \"query\" parameter is longer than " +
                                std::to_string(max_size) + " bytes.");
    }
    if (!is_utf8(*query)) {
        return problem(400, "The \"query\" parameter is not valid UTF-8.");
    }
    if (query->find('\0') != query->npos) {
        return problem(400, "The \"query\" parameter contains U+0000.");
    }
    if (trim(*query).empty()) {
        return problem(422, "The \"query\" parameter is blank.");
    }
    return {};
}

}  // namespace chatbot
