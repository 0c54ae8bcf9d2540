#include "nginx/chatbot.hpp"

#include <algorithm>

#include "core/query.hpp"

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

// The value of a header that nginx does not look for itself; empty if there is
// none.
std::string_view find_header(const ngx_http_request_t* r, std::string_view name)
{
    for (auto part = &r->headers_in.headers.part; part; part = part->next) {
        auto headers = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; ++i) {
            std::string_view key = {
                reinterpret_cast<const char*>(headers[i].lowcase_key),
                headers[i].key.len};
            if (key == name) {
                return view(headers[i].value);
            }
        }
    }
    return {};
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
                      loc_conf(r)->query_max_size);
}

}  // namespace chatbot
