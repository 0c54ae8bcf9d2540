#include <openssl/err.h>
#include <openssl/x509.h>

#include <exception>
#include <memory>

#include "nginx/metrics.hpp"
#include "nginx/setters.hpp"
#include "nginx/upstream.hpp"
#include "text/unicode.hpp"

// The table of directives, and how the values of most of them are read.

namespace chatbot {

namespace {

const char* wrong_text(std::string text)
{
    return is_utf8(text) ? nullptr : "invalid UTF-8";
}

const char* wrong_redis(std::string url)
{
    RedisSettings settings;
    return url == "off" ? nullptr : parse_redis_url(url, settings);
}

bool valid_table(std::string_view name)
{
    constexpr std::size_t max_identifier = 63;

    auto dot = name.find('.');
    for (auto part :
         {name.substr(0, dot), dot == name.npos ? "x" : name.substr(dot + 1)}) {
        if (part.empty() || part.size() > max_identifier ||
            part.find_first_of(".\"\n") != part.npos || !is_utf8(part)) {
            return false;
        }
    }
    return true;
}

char* set_table(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_value(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& name = static_cast<LocConfBase*>(conf)->log_table;
    return valid_table(view(name))
               ? conf_ok
               : conf_fail(cf, "invalid name \"%V\" in \"chatbot_log_table\"",
                           &name);
}

constexpr Setter set_size = set_number<size_t, ngx_conf_set_size_slot, 1>;
constexpr Setter set_msec = set_number<ngx_msec_t, ngx_conf_set_msec_slot, 1>;
constexpr Setter set_seconds = set_number<time_t, ngx_conf_set_sec_slot, 1>;
constexpr Setter set_count = set_number<ngx_int_t, ngx_conf_set_num_slot, 0>;

// on | off [max=N/s]
char* set_refused(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    constexpr ngx_int_t usual_max = 10;

    auto& field = field_of<ngx_int_t>(conf, cmd);
    if (field != NGX_CONF_UNSET) {
        return duplicate;
    }

    auto flag = view(args(cf)[1]);
    field = flag == "on" ? usual_max : 0;
    bool right = flag == "on" || flag == "off";
    for (ngx_uint_t i = 2; right && i < cf->args->nelts; i++) {
        auto text = view(args(cf)[i]);
        right =
            flag == "on" && text.starts_with("max=") && text.ends_with("/s");
        if (right) {
            field = ngx_atoi(args(cf)[i].data + 4, text.size() - 6);
            right = field > 0;
        }
    }
    return right ? conf_ok
                 : conf_fail(cf, "invalid value \"%V\" in \"%V\"",
                             &args(cf)[cf->args->nelts - 1], &args(cf)[0]);
}

char* set_retention(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<time_t>(conf, cmd);
    if (field == NGX_CONF_UNSET && view(args(cf)[1]) == "off") {
        field = 0;
        return conf_ok;
    }
    return set_seconds(cf, cmd, conf);
}

constexpr Setter set_limit = set_number<ngx_uint_t, ngx_conf_set_num_slot, 1>;

bool has_certificates(const ngx_str_t& file)
{
    std::unique_ptr<X509_STORE, void (*)(X509_STORE*)> store(X509_STORE_new(),
                                                             X509_STORE_free);
    auto path = reinterpret_cast<char*>(file.data);
    bool has = X509_STORE_load_locations(store.get(), path, nullptr) == 1;
    ERR_clear_error();  // nginx would take it for its own
    return has;
}

// Sets the name of a file with certificates.
char* set_certificates(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<ngx_str_t>(conf, cmd);
    if (field.data) {
        return duplicate;
    }

    field = args(cf)[1];
    std::string text;
    if (ngx_conf_full_name(cf->cycle, &field, 1) != NGX_OK) {
        return conf_error;
    }
    if (auto rv = read_file(cf, field, text); rv != conf_ok) {
        return rv;
    }
    return has_certificates(field)
               ? conf_ok
               : conf_fail(cf, "no certificate in file \"%V\" of \"%V\"",
                           &field, &args(cf)[0]);
}

char* set_thread_pool(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto mcf = static_cast<MainConfBase*>(conf);
    if (mcf->thread_pool) {
        return duplicate;
    }

    mcf->thread_pool = ngx_thread_pool_add(cf, &args(cf)[1]);
    return mcf->thread_pool ? conf_ok : conf_error;
}

char* set_journal(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto mcf = static_cast<MainConfBase*>(conf);
    if (mcf->journal_set != NGX_CONF_UNSET) {
        return duplicate;
    }
    mcf->journal_set = 1;

    auto& dir = args(cf)[1];
    if (view(dir) == "off") {
        return cf->args->nelts == 2
                   ? conf_ok
                   : conf_fail(
                         cf, "\"chatbot_log_journal off\" takes no parameter");
    }

    if (cf->args->nelts == 3) {
        auto size = args(cf)[2];
        if (!view(size).starts_with("max_size=")) {
            return conf_fail(cf,
                             "invalid parameter \"%V\" of "
                             "\"chatbot_log_journal\"",
                             &size);
        }
        size.data += 9;
        size.len -= 9;
        mcf->journal_max_size = ngx_parse_offset(&size);
        if (mcf->journal_max_size < 64 * 1024) {
            return conf_fail(cf,
                             "invalid max_size \"%V\" of "
                             "\"chatbot_log_journal\": at least 64k",
                             &size);
        }
    }

    if (auto rv = resolve_value(cf, dir); rv != conf_ok) {
        return rv;
    }
    if (dir.len == 0) {
        return conf_fail(cf, "no directory in \"chatbot_log_journal\"");
    }
    mcf->journal = journal_path(cf, dir);
    return mcf->journal ? conf_ok : conf_error;
}

constexpr ngx_uint_t anywhere =
    NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

// No exception may reach nginx.  And "nginx -s", which looks for the pid only,
// need not see the files and the environment that nginx was started with.
template <Setter set>
char* guarded(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept
try {
    if (ngx_process == NGX_PROCESS_SIGNALLER) {
        return conf_ok;
    }
    return set(cf, cmd, conf);
} catch (const std::exception& e) {
    return conf_fail(cf, "\"%V\": %s", &args(cf)[0], e.what());
}

constexpr ngx_command_t loc_command(ngx_str_t name, ngx_uint_t takes,
                                    Setter set, ngx_uint_t offset)
{
    return {name,   anywhere | takes, set, NGX_HTTP_LOC_CONF_OFFSET,
            offset, nullptr};
}

#define CHATBOT_LOC(name, takes, set, field)                      \
    loc_command(ngx_string("chatbot_" name), takes, guarded<set>, \
                offsetof(LocConfBase, field))

}  // namespace

ngx_command_t commands[] = {
    {ngx_string("chatbot_pass"),
     NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_CONF_TAKE1, guarded<set_pass>,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConfBase, pass), nullptr},

    CHATBOT_LOC("protocol", NGX_CONF_TAKE1, set_protocol, protocol),
    CHATBOT_LOC("clients", NGX_CONF_TAKE1, set_clients, clients_file),
    CHATBOT_LOC("cors", NGX_CONF_1MORE, set_cors, pass),
    CHATBOT_LOC("model_alias", NGX_CONF_TAKE2, set_alias, pass),

    {ngx_string("chatbot_metrics"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS,
     guarded<set_metrics>, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("chatbot_health"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS,
     guarded<set_health>, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    CHATBOT_LOC("api_key", NGX_CONF_TAKE1, set_key, api_key),
    CHATBOT_LOC("model", NGX_CONF_1MORE, set_models, models),
    CHATBOT_LOC("system_prompt", NGX_CONF_TAKE1, set_checked<wrong_text>,
                system_prompt),
    CHATBOT_LOC("param", NGX_CONF_TAKE23, set_param, params),
    CHATBOT_LOC("set_header", NGX_CONF_TAKE2, set_header, headers),
    CHATBOT_LOC("proxy", NGX_CONF_TAKE1, set_checked<wrong_proxy>, proxy),
    CHATBOT_LOC("query", NGX_CONF_TAKE1, ngx_http_set_complex_value_slot,
                query),
    CHATBOT_LOC("query_max_size", NGX_CONF_TAKE1, set_size, query_max_size),
    CHATBOT_LOC("answer_max_size", NGX_CONF_TAKE1, set_size, answer_max_size),
    CHATBOT_LOC("history", NGX_CONF_TAKE1, set_count, history),
    CHATBOT_LOC("history_max_size", NGX_CONF_TAKE1, set_size, history_max_size),
    CHATBOT_LOC("heartbeat", NGX_CONF_TAKE1, set_msec, heartbeat),
    CHATBOT_LOC("connect_timeout", NGX_CONF_TAKE1, set_msec, connect_timeout),
    CHATBOT_LOC("read_timeout", NGX_CONF_TAKE1, set_msec, read_timeout),
    CHATBOT_LOC("timeout", NGX_CONF_TAKE1, set_msec, timeout),
    CHATBOT_LOC("retries", NGX_CONF_TAKE1, set_count, retries),
    CHATBOT_LOC("upstream_stream", NGX_CONF_TAKE1, set_upstream_stream,
                upstream_stream),
    CHATBOT_LOC("abandoned", NGX_CONF_TAKE1, set_abandoned, abandoned),
    CHATBOT_LOC("safety_identifier", NGX_CONF_TAKE1,
                ngx_http_set_complex_value_slot, safety_identifier),
    CHATBOT_LOC("ssl_verify", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                ssl_verify),
    CHATBOT_LOC("ssl_trusted_certificate", NGX_CONF_TAKE1, set_certificates,
                ssl_trusted_certificate),
    CHATBOT_LOC("redis", NGX_CONF_TAKE1, set_checked<wrong_redis>, redis),
    CHATBOT_LOC("redis_timeout", NGX_CONF_TAKE1, set_msec, redis_timeout),
    CHATBOT_LOC("cache_valid", NGX_CONF_TAKE1, set_seconds, cache_valid),
    CHATBOT_LOC("cache_key", NGX_CONF_TAKE1, ngx_http_set_complex_value_slot,
                cache_key),
    CHATBOT_LOC("cache_lock", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                cache_lock),
    CHATBOT_LOC("cache_control", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                cache_control),
    CHATBOT_LOC("postgres", NGX_CONF_TAKE1, set_postgres, postgres),
    CHATBOT_LOC("log_table", NGX_CONF_TAKE1, set_table, log_table),
    CHATBOT_LOC("log_refused", NGX_CONF_TAKE12, set_refused, log_refused),

    {ngx_string("chatbot_upstream"),
     NGX_HTTP_MAIN_CONF | NGX_CONF_BLOCK | NGX_CONF_TAKE1,
     guarded<set_upstream>, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    {ngx_string("chatbot_max_in_flight"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
     guarded<set_limit>, NGX_HTTP_MAIN_CONF_OFFSET,
     offsetof(MainConfBase, max_in_flight), nullptr},

    {ngx_string("chatbot_thread_pool"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
     guarded<set_thread_pool>, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    {ngx_string("chatbot_log_journal"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE12,
     guarded<set_journal>, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    {ngx_string("chatbot_log_retention"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
     guarded<set_retention>, NGX_HTTP_MAIN_CONF_OFFSET,
     offsetof(MainConfBase, log_retention), nullptr},

    ngx_null_command};

}  // namespace chatbot
