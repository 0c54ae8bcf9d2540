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

Problem wrong_stream()
{
    return problem(422, "The \"stream\" parameter must be 1, 0 or \"text\".");
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

Problem message_from_json(const cJSON* item, Message& message)
{
    auto role = string_member(item, "role");
    auto content = string_member(item, "content");
    if (role != "user" && role != "assistant") {
        return problem(422,
                       "The role of each of the \"messages\" must be \"user\" "
                       "or \"assistant\".");
    }
    if (!content) {
        return problem(422,
                       "The content of each of the \"messages\" must be a "
                       "string.");
    }

    message = {std::string(*role), std::string(*content)};
    return {};
}

// A conversation, oldest first; it ends with the question.
Problem conversation_from_json(const cJSON* messages, Question& question)
{
    if (!cJSON_IsArray(messages)) {
        return problem(422, "The \"messages\" member must be an array.");
    }

    const cJSON* item;
    cJSON_ArrayForEach(item, messages)
    {
        if (auto wrong =
                message_from_json(item, question.history.emplace_back())) {
            return wrong;
        }
    }
    if (question.history.empty() || question.history.back().role != "user") {
        return problem(422, "The last of the \"messages\" must be the user's.");
    }

    question.text = std::move(question.history.back().content);
    question.history.pop_back();
    return {};
}

Problem text_from_json(const cJSON* json, Question& question)
{
    const cJSON* query = member(json, "query");
    const cJSON* messages = member(json, "messages");
    bool has_query = query && !cJSON_IsNull(query);

    if (messages && !cJSON_IsNull(messages)) {
        return has_query ? problem(422,
                                   "Send either \"query\" or \"messages\", not "
                                   "both.")
                         : conversation_from_json(messages, question);
    }
    if (!has_query) {
        return {};
    }
    if (!cJSON_IsString(query)) {
        return problem(422, "The \"query\" member must be a string.");
    }

    question.text = query->valuestring;
    return {};
}

Problem stream_from_json(const cJSON* json, Question& question)
{
    const cJSON* stream = member(json, "stream");
    if (!stream || cJSON_IsNull(stream)) {
        return {};
    }
    if (cJSON_IsBool(stream)) {
        question.stream = cJSON_IsTrue(stream) ? "1" : "0";
    } else if (cJSON_IsString(stream)) {
        question.stream = stream->valuestring;
    } else if (cJSON_IsNumber(stream)) {
        question.stream = std::to_string(stream->valueint);
    } else {
        return wrong_stream();
    }
    return {};
}

Problem question_from_json(std::string_view body, Question& question)
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

    if (auto wrong = text_from_json(json.get(), question)) {
        return wrong;
    }
    return stream_from_json(json.get(), question);
}

// How a part is written.
Problem check_part(const Multipart::Part& part)
{
    auto encoding = header_word(part.transfer_encoding);
    if (!encoding.empty() && encoding != "7bit" && encoding != "8bit" &&
        encoding != "binary") {
        return problem(415,
                       "The Content-Transfer-Encoding of a field is not "
                       "supported.");
    }
    return check_charset(part.content_type);
}

Problem question_from_multipart(std::string_view content_type,
                                std::string_view body, Question& question)
{
    Question found = question;
    Multipart parts(body,
                    header_parameter(content_type, "boundary").value_or(""));
    for (Multipart::Part part; parts.next(part);) {
        if (part.name != "query" && part.name != "stream") {
            continue;
        }
        if (auto wrong = check_part(part)) {
            return wrong;
        }
        (part.name == "query" ? found.text : found.stream) =
            std::string(part.content);
    }

    if (parts.fault()) {
        return problem(400, "The body is not valid multipart/form-data: "s +
                                parts.fault() + ".");
    }
    question = std::move(found);
    return {};
}

Problem check_history(const std::vector<Message>& history,
                      const QuestionLimits& limits)
{
    if (history.size() > limits.messages) {
        return problem(413, "There are more than " +
                                std::to_string(limits.messages) +
                                " messages before the last.");
    }

    std::size_t size = 0;
    for (const auto& message : history) {
        size += message.content.size();
    }
    if (size > limits.history_size) {
        return problem(413, "The messages before the last are longer than " +
                                std::to_string(limits.history_size) +
                                " bytes.");
    }
    return {};
}

// Whether an Accept header lists a stream of events, and does not like JSON
// more.
bool accepts_events(std::string_view accept)
{
    const auto weight = accepted_weight(accept, "text/event-stream");
    return weight > 0 && weight >= accepted_weight(accept, "application/json");
}

}  // namespace

Problem check_body(std::size_t size, std::string_view content_encoding,
                   std::size_t max_size)
{
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

void question_from_form(std::string_view form, Question& question)
{
    if (auto text = form_member(form, "query")) {
        question.text = std::move(text);
    }
    if (auto stream = form_member(form, "stream")) {
        question.stream = std::move(stream);
    }
}

Problem question_from_body(std::string_view content_type, std::string_view body,
                           Question& question)
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
        return question_from_json(body, question);
    }
    if (multipart) {
        return question_from_multipart(content_type, body, question);
    }
    question_from_form(body, question);
    if (!question.text && body.starts_with('{')) {
        return problem(422,
                       "The body looks like JSON; send it with Content-Type: "
                       "application/json.");
    }
    return {};
}

Problem check_question(const Question& question, const QuestionLimits& limits)
{
    const auto& text = question.text;
    if (!text) {
        return problem(422, "The \"query\" parameter is missing.");
    }
    if (text->size() > limits.text_size) {
        return problem(413, "The \"query\" parameter is longer than " +
                                std::to_string(limits.text_size) + " bytes.");
    }
    if (!is_utf8(*text)) {
        return problem(400, "The \"query\" parameter is not valid UTF-8.");
    }
    if (text->find('\0') != text->npos) {
        return problem(400, "The \"query\" parameter contains U+0000.");
    }
    if (trim(*text).empty()) {
        return problem(422, "The \"query\" parameter is blank.");
    }
    return check_history(question.history, limits);
}

Problem read_form(const Question& question, std::string_view accept,
                  AnswerForm& form)
{
    if (!question.stream) {
        form = accepts_events(accept) ? AnswerForm::events : AnswerForm::json;
        return {};
    }

    const auto& stream = *question.stream;
    if (stream == "1" || stream == "true") {
        form = AnswerForm::events;
    } else if (stream == "text") {
        form = AnswerForm::text;
    } else if (stream == "0" || stream == "false" || stream.empty()) {
        form = AnswerForm::json;
    } else {
        return wrong_stream();
    }
    return {};
}

}  // namespace chatbot
