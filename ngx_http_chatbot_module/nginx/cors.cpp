#include <algorithm>
#include <exception>

#include "nginx/output.hpp"
#include "nginx/setters.hpp"

// chatbot_cors: pages of other origins may use a location
// (https://fetch.spec.whatwg.org/#http-cors-protocol).
//
// A browser asks before most requests whether it may send them: this preflight
// is answered before limits and access, as it carries no key.  All responses,
// errors included, say who may read them.

namespace chatbot {

namespace {

ngx_http_output_header_filter_pt next_header_filter;

constexpr const char* methods = "GET, POST";
constexpr const char* exposed =
    "Cache-Status, Retry-After, X-Request-ID, X-Should-Retry";
constexpr const char* max_age_s = "3600";

// Null: the response says nothing of origins.
const Cors* cors_of(ngx_http_request_t* r)
{
    if (r != r->main) {
        return nullptr;
    }
    const auto* conf = visited_chatbot(r);
    return conf && conf->cors &&
                   (conf->cors->any || !conf->cors->origins.empty())
               ? &*conf->cors
               : nullptr;
}

bool is_preflight(const ngx_http_request_t* r)
{
    return r->method == NGX_HTTP_OPTIONS && !find_header(r, "origin").empty() &&
           !find_header(r, "access-control-request-method").empty();
}

// The origin as the response names it; empty if it is not let in.
std::string_view allowed_origin(const ngx_http_request_t* r, const Cors& cors)
{
    if (cors.any) {
        return "*";
    }
    auto origin = find_header(r, "origin");
    auto known = std::find(cors.origins.begin(), cors.origins.end(), origin);
    return known == cors.origins.end() ? std::string_view() : *known;
}

ngx_int_t add_preflight_headers(ngx_http_request_t* r)
{
    auto headers = find_header(r, "access-control-request-headers");
    if (add_header(r, "Access-Control-Allow-Methods", methods) != NGX_OK ||
        add_header(r, "Access-Control-Max-Age", max_age_s) != NGX_OK) {
        return NGX_ERROR;
    }
    return headers.empty()
               ? NGX_OK
               : add_header(r, "Access-Control-Allow-Headers", headers);
}

ngx_int_t add_cors_headers(ngx_http_request_t* r, const Cors& cors)
{
    if (!cors.any && add_header(r, "Vary", "Origin") != NGX_OK) {
        return NGX_ERROR;
    }
    auto origin = allowed_origin(r, cors);
    if (origin.empty()) {
        return NGX_OK;
    }
    if (add_header(r, "Access-Control-Allow-Origin", origin) != NGX_OK) {
        return NGX_ERROR;
    }
    return is_preflight(r)
               ? add_preflight_headers(r)
               : add_header(r, "Access-Control-Expose-Headers", exposed);
}

ngx_int_t header_filter(ngx_http_request_t* r) noexcept
{
    auto cors = cors_of(r);
    if (cors && add_cors_headers(r, *cors) != NGX_OK) {
        return NGX_ERROR;
    }
    return next_header_filter(r);
}

ngx_int_t preflight_handler(ngx_http_request_t* r) noexcept
{
    return cors_of(r) && is_preflight(r) ? NGX_HTTP_NO_CONTENT : NGX_DECLINED;
}

// As a browser writes it: scheme://host[:port].
bool is_origin(std::string_view text)
{
    auto host = text.find("://");
    if (host == text.npos || host == 0) {
        return false;
    }
    constexpr auto is_fit = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
               c == '-' || c == '_' || c == ':' || c == '[' || c == ']' ||
               c == '+';
    };
    auto rest = text.substr(host + 3);
    auto scheme = text.substr(0, host);
    return !rest.empty() && std::all_of(rest.begin(), rest.end(), is_fit) &&
           std::all_of(scheme.begin(), scheme.end(), is_fit);
}

}  // namespace

char* set_cors(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto& cors = static_cast<LocConf*>(static_cast<LocConfBase*>(conf))->cors;
    if (cors) {
        return duplicate;
    }

    cors.emplace();
    auto single = cf->args->nelts == 2;
    for (ngx_uint_t i = 1; i < cf->args->nelts; ++i) {
        auto value = view(args(cf)[i]);
        if (single && (value == "*" || value == "off")) {
            cors->any = value == "*";
        } else if (is_origin(value)) {
            cors->origins.emplace_back(value);
        } else {
            return conf_fail(
                cf,
                "invalid origin \"%V\" in \"chatbot_cors\": an origin as "
                "a browser sends it is expected, such as "
                "\"https://example.com\", or \"*\" or \"off\" alone",
                &args(cf)[i]);
        }
    }
    return conf_ok;
}

ngx_int_t install_cors(ngx_conf_t* cf)
{
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = header_filter;
    return add_phase_handler(cf, NGX_HTTP_PREACCESS_PHASE, preflight_handler);
}

}  // namespace chatbot
