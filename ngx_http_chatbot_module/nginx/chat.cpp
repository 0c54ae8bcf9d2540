#include <utility>

#include "nginx/endpoint.hpp"
#include "nginx/output.hpp"
#include "nginx/stream.hpp"
#include "text/digest.hpp"
#include "text/form.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

// The endpoint "chatbot_protocol chat": a question in, {"response", "source"}
// out.

namespace chatbot {

namespace {

ngx_uint_t refuse(ngx_http_request_t* r)
{
    return r->method & (NGX_HTTP_GET | NGX_HTTP_POST) ? 0
                                                      : NGX_HTTP_NOT_ALLOWED;
}

QuestionLimits limits_of(const LocConf& lcf)
{
    return {.text_size = lcf.query_max_size,
            .messages = static_cast<std::size_t>(lcf.history),
            .history_size = lcf.history_max_size};
}

std::size_t body_max_size(const LocConf& lcf)
{
    return limits_of(lcf).body_size();
}

Problem read_question(ngx_http_request_t* r, std::string_view body,
                      Question& question)
{
    const auto& lcf = *loc_conf(r);
    question_from_form(view(r->args), question);

    if (lcf.query) {
        std::string text;
        if (auto wrong = evaluate(r, lcf.query, text)) {
            return wrong;
        }
        question.text = decode_form(text);

    } else if (r->method & NGX_HTTP_POST) {
        auto type = r->headers_in.content_type;
        auto wrong = question_from_body(
            type ? view(type->value) : std::string_view(), body, question);
        if (wrong) {
            return wrong;
        }
    }
    return check_question(question, limits_of(lcf));
}

Problem read(ngx_http_request_t* r, std::string_view body, Wanted& wanted)
{
    Question question;
    auto wrong = read_question(r, body, question);
    if (!wrong) {
        wrong = read_form(question, find_header(r, "accept"), wanted.form);
    }
    if (wrong) {
        return wrong;
    }

    // A browser's EventSource asks again after every end; this stops it.
    if (wanted.form == AnswerForm::events &&
        is_done_id(find_header(r, "last-event-id"))) {
        wanted.status = NGX_HTTP_NO_CONTENT;
        return {};
    }

    wanted.text = std::move(*question.text);
    wanted.history = std::move(question.history);
    if (auto identifier = loc_conf(r)->safety_identifier) {
        return evaluate(r, identifier, wanted.client);
    }
    wanted.client = client_of(r);
    return {};
}

std::optional<Key> key(const LocConf& lcf, const Wanted& wanted)
{
    auto key = digest({fold(wanted.text), lcf.key_suffix});
    for (const auto& message : wanted.history) {
        key = digest({hex(key), message.role, message.content});
    }
    return key;
}

std::string_view body_of(const Answer& answer, bool hit, std::string& made)
{
    made = answer_json(answer.text, hit);
    return made;
}

std::string_view stream_of(const Answer& answer)
{
    return answer.text;
}

std::string write_error(ngx_uint_t status, const Problem& problem)
{
    return problem_json(status, problem.detail);
}

ngx_int_t add_error_headers(ngx_http_request_t* r, ngx_uint_t status)
{
    return status == NGX_HTTP_NOT_ALLOWED ? add_header(r, "Allow", "GET, POST")
                                          : NGX_OK;
}

}  // namespace

const Endpoint& chat_endpoint()
{
    static constexpr Endpoint endpoint = {
        .refuse = refuse,
        .body_max_size = body_max_size,
        .read = read,
        .key = key,
        .body_of = body_of,
        .stream_of = stream_of,
        .error_type = "application/problem+json",
        .write_error = write_error,
        .add_error_headers = add_error_headers,
    };
    return endpoint;
}

}  // namespace chatbot
