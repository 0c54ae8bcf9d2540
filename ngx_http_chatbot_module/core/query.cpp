#include "core/query.hpp"

#include <utility>

#include "text/form.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

Problem problem(int status, std::string detail)
{
    return {.status = status, .detail = std::move(detail), .reason = {}};
}

// The type of a Content-Type without its parameters, in lower case.
std::string media_type(std::string_view content_type)
{
    return fold(trim(content_type.substr(0, content_type.find(';'))));
}

bool is_json(std::string_view type)
{
    return type == "application/json" || type.ends_with("+json");
}

Problem query_from_json(std::string_view body,
                        std::optional<std::string>& query)
{
    Json json = parse_json(body);
    if (!json) {
        return problem(400, "The body is not valid JSON, or contains U+0000.");
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

}  // namespace

Problem query_from_body(std::string_view content_type, std::string_view body,
                        std::optional<std::string>& query)
{
    if (body.empty()) {
        return {};
    }

    auto type = is_utf8(content_type) ? media_type(content_type) : "";
    if (is_json(type)) {
        return query_from_json(body, query);
    }
    if (type != "application/x-www-form-urlencoded") {
        return problem(415,
                       "The body must be application/json or "
                       "application/x-www-form-urlencoded.");
    }

    if (auto found = form_member(body, "query")) {
        query = std::move(found);
    }
    return {};
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
