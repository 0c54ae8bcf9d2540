#include <new>

#include "nginx/request.hpp"

// Where the context of a request is kept: it lives in the request's pool.

namespace chatbot {

namespace {

void destroy(void* data)
{
    static_cast<Request*>(data)->~Request();
}

}  // namespace

Request* find_request(ngx_http_request_t* r)
{
    auto request = context_of(r);
    if (request) {
        return request;
    }

    // An internal redirect forgets the contexts, the pool does not.
    for (auto cleanup = r->pool->cleanup; cleanup; cleanup = cleanup->next) {
        if (cleanup->handler == destroy) {
            return static_cast<Request*>(cleanup->data);
        }
    }
    return nullptr;
}

Request* make_request(ngx_http_request_t* r)
{
    auto context = context_of(r);
    if (context) {
        return context;
    }

    auto cleanup = ngx_pool_cleanup_add(r->pool, sizeof(Request));
    if (!cleanup) {
        return nullptr;
    }

    context = new (cleanup->data) Request(r);
    cleanup->handler = destroy;
    ngx_http_set_ctx(r, context, ngx_http_chatbot_module);
    return context;
}

std::string record_id(ngx_http_request_t* r)
{
    int before = 0;
    for (auto c = r->pool->cleanup; c; c = c->next) {
        before +=
            c->handler == destroy && static_cast<Request*>(c->data)->asked;
    }

    std::string id(request_id(r));
    return before == 0 ? id : id + "-" + std::to_string(before + 1);
}

}  // namespace chatbot
