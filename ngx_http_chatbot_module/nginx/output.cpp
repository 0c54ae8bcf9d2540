#include "nginx/output.hpp"

#include "nginx/request.hpp"
#include "text/json.hpp"

namespace chatbot {

namespace {

std::string cache_status(const Request& request)
{
    if (request.hit) {
        return "chatbot; hit; ttl=" + std::to_string(request.ttl_s);
    }
    std::string status =
        request.cache_use != CacheUse::usual          ? "chatbot; fwd=request"
        : request.cache_status == CacheStatus::bypass ? "chatbot; fwd=bypass"
                                                      : "chatbot; fwd=miss";
    if (request.cache_status == CacheStatus::collapsed) {
        status += "; collapsed";
    }
    return status;
}

}  // namespace

std::string_view find_header(const ngx_http_request_t* r,
                             std::string_view lowcase_name)
{
    for (auto part = &r->headers_in.headers.part; part; part = part->next) {
        auto headers = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; ++i) {
            std::string_view key = {
                reinterpret_cast<const char*>(headers[i].lowcase_key),
                headers[i].key.len};
            if (key == lowcase_name) {
                return view(headers[i].value);
            }
        }
    }
    return {};
}

ngx_int_t set_content_type(ngx_http_request_t* r, std::string_view type)
{
    auto content_type = pool_copy(r->pool, type);
    if (!content_type.data) {
        return NGX_ERROR;
    }

    auto& out = r->headers_out;
    out.content_type = content_type;
    out.content_type_len = content_type.len;
    out.content_type_lowcase = nullptr;
    out.charset.len = 0;
    return NGX_OK;
}

std::string answer_json(std::string_view text, bool hit)
{
    std::string json;
    json.reserve(text.size() + 64);
    json = "{\"response\": ";
    append_json(json, text);
    json += hit ? ", \"source\": \"cache\"}" : ", \"source\": \"api\"}";
    return json;
}

ngx_chain_t* make_body(ngx_http_request_t* r, std::string_view type,
                       std::string_view text)
{
    auto chain = ngx_alloc_chain_link(r->pool);
    auto buf = static_cast<ngx_buf_t*>(ngx_calloc_buf(r->pool));
    auto data = pool_copy(r->pool, text);
    if (!chain || !buf || !data.data || set_content_type(r, type) != NGX_OK) {
        return nullptr;
    }

    buf->pos = data.data;
    buf->last = data.data + data.len;
    buf->memory = 1;
    buf->last_buf = r == r->main;
    buf->last_in_chain = 1;
    chain->buf = buf;
    chain->next = nullptr;

    r->headers_out.content_length_n = static_cast<off_t>(data.len);
    return chain;
}

ngx_int_t send_response(ngx_http_request_t* r, ngx_uint_t status,
                        ngx_chain_t* body)
{
    r->headers_out.status = status;
    auto rc = ngx_http_send_header(r);
    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }
    return ngx_http_output_filter(r, body);
}

ngx_int_t add_header(ngx_http_request_t* r, const char* name,
                     std::string_view value)
{
    auto header =
        static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
    if (!header) {
        return NGX_ERROR;
    }

    *header = {};
    header->hash = 1;
    header->key = {ngx_strlen(name),
                   reinterpret_cast<u_char*>(const_cast<char*>(name))};
    header->value = pool_copy(r->pool, value);
    return header->value.data ? NGX_OK : NGX_ERROR;
}

ngx_int_t add_headers(ngx_http_request_t* r, const Request& request)
{
    if (request.cache_status != CacheStatus::none &&
        add_header(r, "Cache-Status", cache_status(request)) != NGX_OK) {
        return NGX_ERROR;
    }

    auto id = request_id(r);
    return id.empty() ? NGX_OK : add_header(r, "X-Request-ID", id);
}

}  // namespace chatbot
