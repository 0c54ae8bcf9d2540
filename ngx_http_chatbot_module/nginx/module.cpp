#include "nginx/chatbot.hpp"

#include <exception>
#include <new>

#include "nginx/content.hpp"
#include "nginx/former.hpp"
#include "nginx/value.hpp"
#include "nginx/metrics.hpp"

// The life of a configuration: made, inherited, put to use.

namespace chatbot {

namespace {

// A C++ object that lives as long as the pool.
template <class T>
T* make(ngx_pool_t* pool) noexcept
try {
    auto cleanup = ngx_pool_cleanup_add(pool, sizeof(T));
    if (!cleanup) {
        return nullptr;
    }

    auto object = new (cleanup->data) T{};
    cleanup->handler = [](void* data) { static_cast<T*>(data)->~T(); };
    return object;
} catch (const std::exception&) {
    return nullptr;
}

// nginx is handed the plain base: its offsets count from there.
void* create_main_conf(ngx_conf_t* cf)
{
    auto mcf = make<MainConf>(cf->pool);
    if (!mcf) {
        return nullptr;
    }

    mcf->max_in_flight = NGX_CONF_UNSET_UINT;
    mcf->journal_set = NGX_CONF_UNSET;
    mcf->log_retention = NGX_CONF_UNSET;
    mcf->journal_max_size = 1024 * 1024 * 1024;
    return static_cast<MainConfBase*>(mcf);
}

char* init_main_conf(ngx_conf_t* cf, void* conf)
{
    auto mcf = static_cast<MainConfBase*>(conf);
    ngx_conf_init_uint_value(mcf->max_in_flight, 10000);
    ngx_conf_init_value(mcf->log_retention, 0);

    if (mcf->journal_set == NGX_CONF_UNSET) {
        ngx_str_t name = ngx_string("chatbot-journal");
        mcf->journal = journal_path(cf, name);
        if (!mcf->journal) {
            return conf_error;
        }
        mcf->journal->conf_file = nullptr;  // as nginx marks a default
    }
    return conf_ok;
}

void* create_loc_conf(ngx_conf_t* cf)
{
    auto lcf = make<LocConf>(cf->pool);
    if (!lcf) {
        return nullptr;
    }

    lcf->protocol = NGX_CONF_UNSET_UINT;
    lcf->query_max_size = NGX_CONF_UNSET_SIZE;
    lcf->answer_max_size = NGX_CONF_UNSET_SIZE;
    lcf->history = NGX_CONF_UNSET;
    lcf->history_max_size = NGX_CONF_UNSET_SIZE;
    lcf->heartbeat = NGX_CONF_UNSET_MSEC;
    lcf->upstream_stream = NGX_CONF_UNSET_UINT;
    lcf->abandoned = NGX_CONF_UNSET_UINT;
    lcf->connect_timeout = NGX_CONF_UNSET_MSEC;
    lcf->read_timeout = NGX_CONF_UNSET_MSEC;
    lcf->timeout = NGX_CONF_UNSET_MSEC;
    lcf->retries = NGX_CONF_UNSET;
    lcf->ssl_verify = NGX_CONF_UNSET;
    lcf->redis_timeout = NGX_CONF_UNSET_MSEC;
    lcf->cache_valid = NGX_CONF_UNSET;
    lcf->cache_lock = NGX_CONF_UNSET;
    lcf->cache_control = NGX_CONF_UNSET;
    lcf->log_refused = NGX_CONF_UNSET;
    return static_cast<LocConfBase*>(lcf);
}

// So that errors from before a location was found, such as 414, can be told to
// be a chatbot's.
void tell_server(ngx_conf_t* cf, const ngx_http_core_loc_conf_t* clcf,
                 const LocConf* chatbot)
{
    if (clcf->noname || clcf->lmt_excpt || !view(clcf->name).starts_with('/')) {
        return;
    }

    auto cscf = static_cast<ngx_http_core_srv_conf_t*>(
        ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
    auto server = static_cast<LocConf*>(static_cast<LocConfBase*>(
        cscf->ctx->loc_conf[ngx_http_chatbot_module.ctx_index]));
    server->locations.push_back(
        {std::string(view(clcf->name)), clcf->exact_match == 1, chatbot});
    server->has_chatbot = server->has_chatbot || chatbot;
}

void inherit(ngx_str_t& value, const ngx_str_t& parent)
{
    if (!value.data) {
        value = parent;
    }
}

template <class T>
void inherit(T*& value, T* parent)
{
    if (!value) {
        value = parent;
    }
}

// An "if" or "limit_except" within a chatbot location is one, too, unless it
// has another handler.
void inherit_content(ngx_conf_t* cf, LocConf& conf, const LocConf& prev)
{
    auto clcf = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    if (conf.pass.data || !clcf->noname || clcf->handler) {
        return;
    }

    conf.pass = prev.pass;
    conf.content_set_by = prev.content_set_by;
    if (conf.pass.data && clcf->lmt_excpt) {
        clcf->handler = content_handler;
    }
}

// What stays unset if it is set nowhere: then the environment decides.
void inherit_settings(LocConf& conf, const LocConf& prev)
{
    inherit(conf.api_key, prev.api_key);
    inherit(conf.redis, prev.redis);
    inherit(conf.postgres, prev.postgres);
    inherit(conf.models, prev.models);
    inherit(conf.params, prev.params);
    inherit(conf.headers, prev.headers);
    inherit(conf.proxy, prev.proxy);
    inherit(conf.query, prev.query);
    inherit(conf.cache_key, prev.cache_key);
    inherit(conf.safety_identifier, prev.safety_identifier);
    if (!conf.clients_file.data) {
        conf.clients_file = prev.clients_file;
        conf.clients = prev.clients;
    }
    conf.cors = conf.cors ? conf.cors : prev.cors;
    conf.aliases = conf.aliases.empty() ? prev.aliases : conf.aliases;
}

void merge_values(LocConfBase& conf, const LocConfBase& prev)
{
    ngx_conf_merge_uint_value(conf.protocol, prev.protocol, protocol_chat);
    ngx_conf_merge_str_value(conf.system_prompt, prev.system_prompt,
                             "You are a helpful assistant.");
    ngx_conf_merge_size_value(conf.query_max_size, prev.query_max_size,
                              16 * 1024);
    ngx_conf_merge_size_value(conf.answer_max_size, prev.answer_max_size,
                              1024 * 1024);
    ngx_conf_merge_value(conf.history, prev.history, 20);
    ngx_conf_merge_size_value(conf.history_max_size, prev.history_max_size,
                              64 * 1024);
    ngx_conf_merge_uint_value(conf.upstream_stream, prev.upstream_stream,
                              stream_always);
    ngx_conf_merge_uint_value(conf.abandoned, prev.abandoned, abandoned_finish);
    ngx_conf_merge_msec_value(conf.heartbeat, prev.heartbeat, 15000);
    ngx_conf_merge_msec_value(conf.connect_timeout, prev.connect_timeout, 5000);
    ngx_conf_merge_msec_value(conf.read_timeout, prev.read_timeout, 120000);
    ngx_conf_merge_msec_value(conf.timeout, prev.timeout, 300000);
    ngx_conf_merge_value(conf.retries, prev.retries, 2);
    ngx_conf_merge_value(conf.ssl_verify, prev.ssl_verify, 1);
    ngx_conf_merge_str_value(conf.ssl_trusted_certificate,
                             prev.ssl_trusted_certificate, "");
    ngx_conf_merge_msec_value(conf.redis_timeout, prev.redis_timeout, 250);
    ngx_conf_merge_sec_value(conf.cache_valid, prev.cache_valid, 3600);
    ngx_conf_merge_value(conf.cache_lock, prev.cache_lock, 1);
    ngx_conf_merge_value(conf.cache_control, prev.cache_control, 0);
    ngx_conf_merge_value(conf.log_refused, prev.log_refused, 0);
    ngx_conf_merge_str_value(conf.log_table, prev.log_table, "request_logs");
}

char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child)
try {
    const auto& prev =
        *static_cast<LocConf*>(static_cast<LocConfBase*>(parent));
    auto& conf = *static_cast<LocConf*>(static_cast<LocConfBase*>(child));
    auto clcf = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));

    if (auto rv = check_content(cf, conf); rv != conf_ok) {
        return rv;
    }
    inherit_content(cf, conf, prev);
    inherit_settings(conf, prev);
    merge_values(conf, prev);

    tell_server(cf, clcf, conf.pass.data ? &conf : nullptr);
    if (!conf.pass.data) {
        return conf_ok;
    }

    AtDirective at(cf, conf.content_set_by);
    return make_route(cf, conf);
} catch (const std::exception& e) {
    return conf_fail(cf, "chatbot: %s", e.what());
}

ngx_int_t preconfiguration(ngx_conf_t* cf)
{
    return add_variables(cf);
}

ngx_int_t postconfiguration(ngx_conf_t* cf)
{
    auto mcf = main_conf(cf);
    if (mcf->routes.empty()) {
        return NGX_OK;
    }

    if (!mcf->thread_pool) {
        mcf->thread_pool = ngx_thread_pool_add(cf, nullptr);
        if (!mcf->thread_pool) {
            return NGX_ERROR;
        }
    }

    if (mcf->journal && add_journal(cf, *mcf->journal) != NGX_OK) {
        return NGX_ERROR;
    }

    install_problem_filter();
    if (install_metrics(cf) != NGX_OK || install_refused_log(cf) != NGX_OK ||
        install_cors(cf) != NGX_OK || install_error_lines(cf) != NGX_OK ||
        install_places(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_str_t request_id = ngx_string("request_id");
    mcf->request_id = ngx_http_get_variable_index(cf, &request_id);
    return mcf->request_id == NGX_ERROR ? NGX_ERROR : NGX_OK;
}

ngx_int_t init_module(ngx_cycle_t* cycle)
try {
    remember_former_journal(cycle);
    return NGX_OK;
} catch (const std::exception&) {
    return NGX_ERROR;
}

ngx_http_module_t context = {
    preconfiguration, postconfiguration, create_main_conf, init_main_conf,
    nullptr,          nullptr,           create_loc_conf,  merge_loc_conf};

}  // namespace

ngx_int_t add_phase_handler(ngx_conf_t* cf, ngx_http_phases phase,
                            ngx_http_handler_pt handler)
{
    auto cmcf = static_cast<ngx_http_core_main_conf_t*>(
        ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    auto added = static_cast<ngx_http_handler_pt*>(
        ngx_array_push(&cmcf->phases[phase].handlers));
    if (!added) {
        return NGX_ERROR;
    }
    *added = handler;
    return NGX_OK;
}

MainConf* main_conf(ngx_conf_t* cf)
{
    return static_cast<MainConf*>(static_cast<MainConfBase*>(
        ngx_http_conf_get_module_main_conf(cf, ngx_http_chatbot_module)));
}

MainConf* main_conf(ngx_cycle_t* cycle)
{
    return static_cast<MainConf*>(static_cast<MainConfBase*>(
        ngx_http_cycle_get_module_main_conf(cycle, ngx_http_chatbot_module)));
}

MainConf* main_conf(ngx_http_request_t* r)
{
    return static_cast<MainConf*>(static_cast<MainConfBase*>(
        ngx_http_get_module_main_conf(r, ngx_http_chatbot_module)));
}

LocConf* loc_conf(ngx_http_request_t* r)
{
    return static_cast<LocConf*>(static_cast<LocConfBase*>(
        ngx_http_get_module_loc_conf(r, ngx_http_chatbot_module)));
}

ngx_str_t pool_copy(ngx_pool_t* pool, std::string_view text)
{
    auto data = static_cast<u_char*>(ngx_pnalloc(pool, text.size() + 1));
    if (data) {
        ngx_memcpy(data, text.data(), text.size());
        data[text.size()] = '\0';
    }
    return {data ? text.size() : 0, data};
}

}  // namespace chatbot

extern "C" {

ngx_module_t ngx_http_chatbot_module = {NGX_MODULE_V1,
                                        &chatbot::context,
                                        chatbot::commands,
                                        NGX_HTTP_MODULE,
                                        nullptr,               // init master
                                        chatbot::init_module,  // init module
                                        chatbot::init_worker,  // init process
                                        nullptr,               // init thread
                                        nullptr,               // exit thread
                                        chatbot::exit_worker,  // exit process
                                        nullptr,               // exit master
                                        NGX_MODULE_V1_PADDING};
}
