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

// Before limit_req, which logs what it refuses.
ngx_int_t preaccess_handler(ngx_http_request_t* r)
{
    if (loc_conf(r)->route && r->log_handler != log_handler) {
        nginx_log_handler = r->log_handler;
        r->log_handler = log_handler;
    }
    return NGX_DECLINED;
}

}  // namespace

ngx_int_t install_error_lines(ngx_conf_t* cf)
{
    return add_phase_handler(cf, NGX_HTTP_PREACCESS_PHASE, preaccess_handler);
}

}  // namespace chatbot
