#include <algorithm>
#include <exception>

#include "nginx/endpoint.hpp"
#include "nginx/output.hpp"
#include "nginx/request.hpp"
#include "text/json.hpp"

// A filter that makes errors in chatbot locations what their clients
// understand, application/problem+json (RFC 9457) or OpenAI's form: the
// module's and nginx's own alike.  It runs after nginx's error_page, so a page
// that an administrator has configured takes precedence.

namespace chatbot {

namespace {

ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

struct Text {
    ngx_uint_t status;
    const char* title;
    const char* detail;
};

// The titles are those of the IANA registry (RFC 9110).
constexpr Text texts[] = {
    {400, "Bad Request", "The request is not valid."},
    {401, "Unauthorized", "Authentication is required."},
    {403, "Forbidden", "Access is denied."},
    {404, "Not Found", "There is no such resource."},
    {405, "Method Not Allowed",
     "The Allow header names the methods that may be used."},
    {408, "Request Timeout", "The request took too long to arrive."},
    {411, "Length Required", "The request needs a Content-Length."},
    {413, "Content Too Large", "The request is too large."},
    {414, "URI Too Long", "The URI is too long, use POST."},
    {415, "Unsupported Media Type", "Send JSON or a form."},
    {421, "Misdirected Request", "This server has no such host."},
    {422, "Unprocessable Content", "The request cannot be processed."},
    {429, "Too Many Requests", "Too many requests, try again later."},
    {431, "Request Header Fields Too Large", "The headers are too large."},
    {500, "Internal Server Error", "The server failed to handle the request."},
    {501, "Not Implemented", "The transfer encoding is unknown."},
    {502, "Bad Gateway", "The model failed."},
    {503, "Service Unavailable",
     "The service is not available, try again later."},
    {504, "Gateway Timeout", "The model did not answer in time."},
    {505, "HTTP Version Not Supported", "This version of HTTP is not known."},
    {400, "Error", "The request failed."},  // any other
};

const Text& text_of(ngx_uint_t status)
{
    return *std::find_if(std::begin(texts), std::end(texts) - 1,
                         [=](auto& text) { return text.status == status; });
}

// nginx sets err_status when it is about to make an error page of its own.
bool is_ours(ngx_http_request_t* r, const Request* request)
{
    if (r->err_status < NGX_HTTP_BAD_REQUEST ||
        r->headers_out.status != r->err_status) {
        return false;
    }
    return chatbot_conf(r) && !(request && request->answered);
}

ngx_int_t add_problem_headers(ngx_http_request_t* r, const Request& request)
{
    auto status = r->headers_out.status;
    auto retry_after_s = request.problem.retry_after_s;

    if (add_headers(r, request) != NGX_OK ||
        endpoint_of(*chatbot_conf(r)).add_error_headers(r, status) != NGX_OK) {
        return NGX_ERROR;
    }
    return retry_after_s > 0
               ? add_header(r, "Retry-After", std::to_string(retry_after_s))
               : NGX_OK;
}

ngx_int_t make_problem(ngx_http_request_t* r)
{
    auto request = make_request(r);
    if (!request) {
        return NGX_ERROR;
    }

    auto status = r->headers_out.status;
    const auto& endpoint = endpoint_of(*chatbot_conf(r));
    request->problem_body = make_body(
        r, endpoint.error_type, endpoint.write_error(status, request->problem));
    if (!request->problem_body || add_problem_headers(r, *request) != NGX_OK) {
        return NGX_ERROR;
    }

    if (status == 422) {  // nginx has no text for this one
        ngx_str_set(&r->headers_out.status_line, "422 Unprocessable Content");
    }
    return NGX_OK;
}

ngx_int_t header_filter(ngx_http_request_t* r) noexcept
try {
    auto request = context_of(r);
    if (is_ours(r, request) && make_problem(r) != NGX_OK) {
        return NGX_ERROR;
    }
    return next_header_filter(r);
} catch (const std::exception&) {
    return NGX_ERROR;
}

ngx_int_t body_filter(ngx_http_request_t* r, ngx_chain_t* in) noexcept
{
    auto request = context_of(r);
    if (!in || !request || !request->problem_body) {
        return next_body_filter(r, in);
    }

    // The page that nginx made is dropped.
    for (auto link = in; link; link = link->next) {
        link->buf->pos = link->buf->last;
    }

    auto body = std::exchange(request->problem_body, nullptr);
    return next_body_filter(r, body);
}

}  // namespace

const char* problem_detail(ngx_uint_t status)
{
    return text_of(status).detail;
}

std::string problem_json(ngx_uint_t status, std::string_view detail)
{
    const auto& text = text_of(status);
    std::string json = "{\"type\": \"about:blank\", \"title\": ";
    append_json(json, text.title);
    json += ", \"status\": " + std::to_string(status) + ", \"detail\": ";
    append_json(json, detail.empty() ? text.detail : detail);
    return json + "}";
}

void install_problem_filter()
{
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = header_filter;
    next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = body_filter;
}

}  // namespace chatbot
