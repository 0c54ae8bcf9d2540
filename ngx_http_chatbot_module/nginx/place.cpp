#include "nginx/chatbot.hpp"

// Which chatbot location a request is for.

namespace chatbot {

namespace {

// The URI as it came, with whatever follows it in HTTP/1.  For a request line
// that is too long nginx sets no end; before 1.25.4 its pointers are invalid.
std::string_view raw_uri(const ngx_http_request_t* r)
{
    auto start = r->uri_start;
    auto end = r->uri_end;

    if (r->http_version < NGX_HTTP_VERSION_20) {
        auto in = r->header_in;
        if (!in || start < in->start || start > in->last) {
            return {};
        }
        end = in->last;
    }
    return {reinterpret_cast<char*>(start),
            static_cast<std::size_t>(end - start)};
}

std::string_view path_of(const ngx_http_request_t* r)
{
    if (r->uri.len) {
        return view(r->uri);
    }
    auto raw = raw_uri(r);
    return raw.substr(0, raw.find_first_of("? "));
}

// As nginx would: the exact location, or else the longest name.
const LocConf* find_by_path(ngx_http_request_t* r, const LocConf& server)
{
    if (!server.has_chatbot) {
        return nullptr;
    }

    auto path = path_of(r);
    const Location* found = nullptr;
    for (const auto& location : server.locations) {
        auto fits = location.exact ? path == location.name
                                   : path.starts_with(location.name);
        if (fits && (!found || location.exact ||
                     location.name.size() > found->name.size())) {
            found = &location;
        }
    }
    return found ? found->chatbot : nullptr;
}

const LocConf& server_conf(ngx_http_request_t* r)
{
    auto cscf = static_cast<ngx_http_core_srv_conf_t*>(
        ngx_http_get_module_srv_conf(r, ngx_http_core_module));
    return *static_cast<LocConf*>(static_cast<LocConfBase*>(
        cscf->ctx->loc_conf[ngx_http_chatbot_module.ctx_index]));
}

// The handler of a cleanup whose data is a LocConf; does nothing.
void visited(void*) {}

// Keeps in which chatbot location a request is: an internal redirect forgets
// the contexts, the pool does not.
ngx_int_t preaccess_handler(ngx_http_request_t* r)
{
    auto conf = loc_conf(r);
    if (r != r->main || !conf->pass.data) {
        return NGX_DECLINED;
    }

    auto cleanup = ngx_pool_cleanup_add(r->pool, 0);
    if (!cleanup) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    cleanup->handler = visited;
    cleanup->data = conf;
    return NGX_DECLINED;
}

}  // namespace

const LocConf* chatbot_conf(ngx_http_request_t* r)
{
    // Before a location is found it is the server's, and only that has
    // `locations`.
    const auto* conf = loc_conf(r);
    return conf->pass.data ? conf : find_by_path(r, *conf);
}

const LocConf* visited_chatbot(ngx_http_request_t* r)
{
    const auto* conf = chatbot_conf(r);
    if (conf || !r->internal || r != r->main) {
        return conf;
    }

    for (auto c = r->pool->cleanup; c; c = c->next) {
        if (c->handler == visited) {
            return static_cast<const LocConf*>(c->data);
        }
    }

    // It may have been refused before that was kept, such as by 413.  A
    // redirect to a named location leaves the URI as it was.
    return find_by_path(r, server_conf(r));
}

ngx_int_t install_places(ngx_conf_t* cf)
{
    return add_phase_handler(cf, NGX_HTTP_PREACCESS_PHASE, preaccess_handler);
}

}  // namespace chatbot
