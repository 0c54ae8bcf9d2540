#pragma once

#include <string>
#include <string_view>

#include "nginx/chatbot.hpp"

// Headers and bodies of responses.

namespace chatbot {

class Request;

// A header that nginx does not look for itself; empty if there is none.
[[nodiscard]] std::string_view find_header(const ngx_http_request_t* r,
                                           std::string_view lowcase_name);

// Adds Cache-Status (RFC 9211) and X-Request-ID.
[[nodiscard]] ngx_int_t add_headers(ngx_http_request_t* r,
                                    const Request& request);
[[nodiscard]] ngx_int_t add_header(ngx_http_request_t* r, const char* name,
                                   std::string_view value);

// Sets Content-Type as it stands here, charset included.
[[nodiscard]] ngx_int_t set_content_type(ngx_http_request_t* r,
                                         std::string_view type);

// A body to be sent, and the headers that describe it; null if there is no
// memory.
[[nodiscard]] ngx_chain_t* make_body(ngx_http_request_t* r,
                                     std::string_view type,
                                     std::string_view text);

// Sends headers and body; what to finalize the request with.
[[nodiscard]] ngx_int_t send_response(ngx_http_request_t* r, ngx_uint_t status,
                                      ngx_chain_t* body);

// {"response": ..., "source": ...}
[[nodiscard]] std::string answer_json(std::string_view text, bool hit);

// The body of an application/problem+json (RFC 9457) (problem.cpp).
[[nodiscard]] std::string problem_json(ngx_uint_t status,
                                       std::string_view detail);

}  // namespace chatbot
