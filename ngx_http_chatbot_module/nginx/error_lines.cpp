#include <algorithm>

#include "nginx/chatbot.hpp"

// Keeps questions out of the error log: nginx ends each line about a request
// with the request's first line, and its arguments hold the question.

namespace chatbot {

namespace {

ngx_http_log_handler_pt nginx_log_handler;

// Writes what nginx adds to a line of the error log, with "GET /chat" for
// "GET /chat?query=secret HTTP/1.1".
u_char* log_handler(ngx_http_request_t* r, ngx_http_request_t* sr, u_char* buf,
                    std::size_t len)
{
    auto line = r->request_line;
    r->request_line.len = std::min(view(line).find('?'), line.len);
    auto end = nginx_log_handler(r, sr, buf, len);
    r->request_line = line;
    return end;
}

ngx_int_t phase_handler(ngx_http_request_t* r)
{
    if (r->log_handler != log_handler && chatbot_conf(r)) {
        nginx_log_handler = r->log_handler;
        r->log_handler = log_handler;
    }
    return NGX_DECLINED;
}

}  // namespace

ngx_int_t install_error_lines(ngx_conf_t* cf)
{
    // Before nginx enters the location, when it logs a body that is too large,
    // as far as the location can be told by then; and before limit_req, which
    // logs what it refuses.
    if (add_phase_handler(cf, NGX_HTTP_SERVER_REWRITE_PHASE, phase_handler) !=
        NGX_OK) {
        return NGX_ERROR;
    }
    return add_phase_handler(cf, NGX_HTTP_PREACCESS_PHASE, phase_handler);
}

}  // namespace chatbot
