#include <algorithm>

#include "nginx/endpoint.hpp"
#include "nginx/output.hpp"
#include "nginx/request.hpp"

// Bodies of requests: which are refused before anything is made of them.

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
    return check_body(size, size > 0 ? find_header(r, "content-encoding") : "",
                      endpoint_of(*loc_conf(r)).body_max_size(*loc_conf(r)));
}

ngx_int_t read_body(ngx_http_request_t* r, std::string& body)
{
    auto in = r->request_body ? r->request_body->bufs : nullptr;

    for (; in; in = in->next) {
        auto buf = in->buf;
        if (!buf->in_file) {
            body.append(reinterpret_cast<char*>(buf->pos),
                        static_cast<std::size_t>(buf->last - buf->pos));
            continue;
        }

        auto size = static_cast<std::size_t>(buf->file_last - buf->file_pos);
        auto old = body.size();
        body.resize(old + size);
        auto n = ngx_read_file(buf->file,
                               reinterpret_cast<u_char*>(body.data() + old),
                               size, buf->file_pos);
        if (n != static_cast<ssize_t>(size)) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}

}  // namespace chatbot
