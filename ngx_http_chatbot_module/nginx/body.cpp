#include <algorithm>

#include "nginx/output.hpp"
#include "nginx/request.hpp"

// Which bodies of requests are refused before anything is made of them.

namespace chatbot {

namespace {

// What has been read of the body, all of it in the end.
std::size_t size_read(const ngx_http_request_t* r)
{
    off_t size = 0;
    auto in = r->request_body ? r->request_body->bufs : nullptr;
    for (; in; in = in->next) {
        size += ngx_buf_size(in->buf);
    }
    return static_cast<std::size_t>(size);
}

}  // namespace

Problem check_body(ngx_http_request_t* r)
{
    if (!(r->method & NGX_HTTP_POST)) {
        return {};
    }

    auto told = static_cast<std::size_t>(
        std::max<off_t>(r->headers_in.content_length_n, 0));
    auto size = std::max(told, size_read(r));
    auto lcf = loc_conf(r);
    auto limits = question_limits(*lcf);
    if (lcf->protocol == protocol_openai) {
        limits.text_size = size;  // client_max_body_size is the limit
    }
    return check_body(size, size > 0 ? find_header(r, "content-encoding") : "",
                      limits);
}

}  // namespace chatbot
