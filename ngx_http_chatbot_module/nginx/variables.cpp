#include "nginx/api.hpp"
#include "nginx/request.hpp"

#include <openssl/rand.h>

#include <array>
#include <cstdio>
#include <string>

#include "text/form.hpp"

// The variables $chatbot_*, and nginx's $request_id.

namespace chatbot {

namespace {

ngx_int_t set(ngx_http_request_t* r, ngx_http_variable_value_t* v,
              std::string_view text)
{
    if (text.empty()) {
        v->not_found = 1;
        return NGX_OK;
    }

    auto value = pool_copy(r->pool, text);
    if (!value.data) {
        return NGX_ERROR;
    }

    v->data = value.data;
    v->len = static_cast<unsigned>(value.len);
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    return NGX_OK;
}

std::string number(std::int64_t value)
{
    return value < 0 ? "" : std::to_string(value);
}

// As nginx's $upstream_response_time: seconds with three digits.
std::string seconds(int ms)
{
    if (ms < 0) {
        return "";
    }

    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%d.%03d", ms / 1000, ms % 1000);
    return text.data();
}

std::string source(const Request& request)
{
    return !request.answered ? "" : request.hit ? "cache" : "api";
}

// What a variable says of a request in a chatbot location.
using Getter = std::string (*)(const Request&);

ngx_int_t get(ngx_http_request_t* r, ngx_http_variable_value_t* v,
              uintptr_t data) noexcept
try {
    auto request = find_request(r);
    return set(r, v, request ? reinterpret_cast<Getter>(data)(*request) : "");
} catch (const std::exception&) {
    return NGX_ERROR;
}

// An IPv4 address within an IPv6 address: mapped (::ffff:0:0/96), or translated
// by NAT64 (64:ff9b::/96).
bool holds_ipv4(const in6_addr& address)
{
    constexpr std::array<u_char, 12> nat64{0, 0x64, 0xff, 0x9b};
    return IN6_IS_ADDR_V4MAPPED(&address) ||
           std::equal(nat64.begin(), nat64.end(), address.s6_addr);
}

// One IPv6 user owns a whole /64.
std::string client_at(const sockaddr* address)
{
    std::array<u_char, NGX_SOCKADDR_STRLEN> text;

    if (address->sa_family == AF_INET6) {
        auto in6 = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
        if (holds_ipv4(in6)) {
            auto length = ngx_inet_ntop(AF_INET, &in6.s6_addr[12], text.data(),
                                        text.size());
            return {reinterpret_cast<char*>(text.data()), length};
        }

        constexpr int network_bytes = 8;
        std::fill(in6.s6_addr + network_bytes, in6.s6_addr + sizeof in6, 0);
        auto length =
            ngx_inet_ntop(AF_INET6, in6.s6_addr, text.data(), text.size());
        return {reinterpret_cast<char*>(text.data()), length};
    }

    if (address->sa_family == AF_INET) {
        auto in = reinterpret_cast<const sockaddr_in*>(address);
        auto length =
            ngx_inet_ntop(AF_INET, const_cast<in_addr*>(&in->sin_addr),
                          text.data(), text.size());
        return {reinterpret_cast<char*>(text.data()), length};
    }

    return "unix:";
}

ngx_int_t get_client(ngx_http_request_t* r, ngx_http_variable_value_t* v,
                     uintptr_t) noexcept
try {
    return set(r, v, client_of(r));
} catch (const std::exception&) {
    return NGX_ERROR;
}

ngx_int_t get_user(ngx_http_request_t* r, ngx_http_variable_value_t* v,
                   uintptr_t) noexcept
try {
    return set(r, v, api_client(r));
} catch (const std::exception&) {
    return NGX_ERROR;
}

struct Variable {
    ngx_str_t name;
    Getter getter;
};

constexpr ngx_uint_t changes = NGX_HTTP_VAR_NOCACHEABLE;

const Variable variables[] = {
    {ngx_string("chatbot_cache_status"),
     [](auto& r) -> std::string { return to_string(r.cache_status); }},
    {ngx_string("chatbot_source"), source},
    {ngx_string("chatbot_query"),
     [](auto& r) { return encode_controls(r.query); }},
    {ngx_string("chatbot_model"),
     [](auto& r) { return encode_controls(r.model); }},
    {ngx_string("chatbot_prompt_tokens"),
     [](auto& r) { return number(r.prompt_tokens); }},
    {ngx_string("chatbot_completion_tokens"),
     [](auto& r) { return number(r.completion_tokens); }},
    {ngx_string("chatbot_upstream_time"),
     [](auto& r) { return seconds(r.call.duration_ms); }},
    {ngx_string("chatbot_first_byte_time"),
     [](auto& r) { return seconds(r.call.first_byte_ms); }},
    {ngx_string("chatbot_cached_tokens"),
     [](auto& r) { return number(r.cached_tokens); }},
    {ngx_string("chatbot_reasoning_tokens"),
     [](auto& r) { return number(r.reasoning_tokens); }},
    {ngx_string("chatbot_attempts"),
     [](auto& r) { return number(r.call.attempts); }},
    {ngx_string("chatbot_upstream"),
     [](auto& r) { return encode_controls(r.call.upstream); }},
    {ngx_string("chatbot_upstream_request_id"),
     [](auto& r) { return r.call.upstream_request_id; }},
};

constexpr std::size_t id_size = 16;  // bytes, as in nginx

// Random bytes for one $request_id; null if there are none.  Drawn for many at
// once, as nginx's way to draw them one by one costs system calls for each.
// Event loop only: no process that draws them forks another.
u_char* random_bytes()
{
    static std::array<u_char, 256 * id_size> bytes;
    static std::size_t used = bytes.size();

    if (used == bytes.size()) {
        if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) {
            return nullptr;
        }
        used = 0;
    }

    used += id_size;
    return bytes.data() + used - id_size;
}

// Makes a UUID of version 7 (RFC 9562, section 5.7) of 16 random bytes.
void stamp(u_char* id, std::int64_t ms)
{
    for (int byte = 0; byte < 6; byte++) {
        id[byte] = static_cast<u_char>(ms >> (40 - 8 * byte));
    }
    id[6] = static_cast<u_char>(0x70 | (id[6] & 0x0f));  // version
    id[8] = static_cast<u_char>(0x80 | (id[8] & 0x3f));  // variant
}

// Gives $request_id a value of nginx's form; leaves it to nginx if that fails.
// Ids that begin with the time come to PostgreSQL's index in its own order, and
// so to one page of it instead of to all.
void make_request_id(ngx_http_request_t* r, ngx_http_variable_value_t* v)
{
    auto id = random_bytes();
    if (!id) {
        return;
    }
    stamp(id, arrival_ms(r));

    std::array<u_char, 2 * id_size> text;
    ngx_hex_dump(text.data(), id, id_size);
    (void)set(r, v, {reinterpret_cast<char*>(text.data()), text.size()});
}

ngx_http_variable_t* add(ngx_conf_t* cf, ngx_str_t name, ngx_uint_t flags,
                         ngx_http_get_variable_pt handler)
{
    auto variable = ngx_http_add_variable(cf, &name, flags);
    if (variable) {
        variable->get_handler = handler;
    }
    return variable;
}

}  // namespace

ngx_int_t add_variables(ngx_conf_t* cf)
{
    for (const auto& [name, getter] : variables) {
        auto variable = add(cf, name, changes, get);
        if (!variable) {
            return NGX_ERROR;
        }
        variable->data = reinterpret_cast<uintptr_t>(getter);
    }

    return add(cf, ngx_string("chatbot_client"), 0, get_client) &&
                   add(cf, ngx_string("chatbot_user"), changes, get_user)
               ? NGX_OK
               : NGX_ERROR;
}

std::string client_of(ngx_http_request_t* r)
{
    return client_at(r->connection->sockaddr);
}

std::string_view request_id(ngx_http_request_t* r)
{
    auto index = static_cast<ngx_uint_t>(main_conf(r)->request_id);
    auto variable = &r->variables[index];
    if (!variable->valid && !variable->not_found) {
        make_request_id(r, variable);
    }

    auto value = ngx_http_get_indexed_variable(r, index);
    if (!value || value->not_found) {
        return {};
    }
    return {reinterpret_cast<char*>(value->data), value->len};
}

}  // namespace chatbot
