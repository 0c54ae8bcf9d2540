#include "openai/error_text.hpp"

#include <charconv>
#include <string_view>

namespace chatbot {
namespace {

using std::string_view_literals::operator""sv;

// The first of these members that is a string and not empty, or empty.
std::string string_of(const cJSON* object,
                      std::initializer_list<const char*> names)
{
    for (auto name : names) {
        const auto text = string_member(object, name).value_or("");
        if (!text.empty()) {
            return std::string(text);
        }
    }
    return {};
}

bool is_error_status(double status)
{
    return status >= 400 && status <= 599;
}

// The status that a member names, as a number or as digits in a string, or 0.
int status_member(const cJSON* object, const char* name)
{
    auto number = number_member(object, name).value_or(0);
    if (auto text = string_member(object, name)) {
        int value = 0;
        auto end = text->data() + text->size();
        if (std::from_chars(text->data(), end, value).ptr == end) {
            number = value;
        }
    }
    return is_error_status(number) ? static_cast<int>(number) : 0;
}

bool is_number(std::string_view text)
{
    return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

// {"type", "loc": ["body", NAME], "msg"}
ErrorText read_validation(const cJSON* fault)
{
    ErrorText error{.code = string_of(fault, {"type"}),
                    .message = string_of(fault, {"msg"})};
    const cJSON* part;
    cJSON_ArrayForEach(part, member(fault, "loc"))
    {
        if (cJSON_IsString(part) && part->valuestring != "body"sv &&
            error.param.empty()) {
            error.param = part->valuestring;
        }
    }
    return error;
}

ErrorText read_members(const cJSON* error)
{
    ErrorText text{.code = string_of(error, {"code", "error_code", "Code"}),
                   .type = string_of(error, {"type", "status", "__type"}),
                   .param = string_of(error, {"param"}),
                   .message = string_of(error, {"message", "error_msg", "msg",
                                                "status_msg", "Message"})};
    for (auto name : {"code", "status", "status_code", "http_status",
                      "http_code", "error_code"}) {
        text.status = text.status ? text.status : status_member(error, name);
    }
    if (is_number(text.code)) {
        text.code.clear();
    }
    return text;
}

// The value of "error", "errors" or "detail": an object, a string, a status.
ErrorText read_value(const cJSON* error, const cJSON* holder)
{
    if (cJSON_IsString(error)) {
        auto text = read_members(holder);
        text.message = error->valuestring;
        return text;
    }
    if (cJSON_IsNumber(error)) {
        auto text = read_members(holder);
        text.status = is_error_status(error->valuedouble)
                          ? static_cast<int>(error->valuedouble)
                          : text.status;
        return text;
    }
    if (member(error, "loc")) {
        return read_validation(error);
    }
    const auto own = read_members(error);
    return own.message.empty() ? read_error_text(error) : own;
}

}  // namespace

const cJSON* first_of(const cJSON* json)
{
    return cJSON_IsArray(json) ? json->child : json;
}

const cJSON* failed_base(const cJSON* json)
{
    const cJSON* base = member(json, "base_resp");
    return number_member(base, "status_code").value_or(0) != 0 ? base : nullptr;
}

ErrorText read_error_text(const cJSON* json)
{
    json = first_of(json);
    if (const cJSON* base = failed_base(json)) {
        return read_members(base);
    }
    if (const cJSON* response = member(json, "Response")) {
        return read_members(member(response, "Error"));
    }
    for (auto name : {"error", "errors", "detail"}) {
        const cJSON* value = first_of(member(json, name));
        if (value && !cJSON_IsNull(value) && !cJSON_IsBool(value)) {
            return read_value(value, json);
        }
    }
    return read_members(json);
}

}  // namespace chatbot
