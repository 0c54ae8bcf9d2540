#include "nginx/chatbot.hpp"

#include <curl/curl.h>

#include <algorithm>
#include <iterator>

#include "text/digest.hpp"
#include "nginx/upstream.hpp"
#include "nginx/value.hpp"

// Makes settings and a route of a location's directives, and of the environment
// where a directive is not set.

namespace chatbot {

namespace {

constexpr const char* default_model = "gpt-6-luna";

std::string environment_or(ngx_conf_t* cf, const char* name,
                           const char* otherwise)
{
    return environment(cf, name).value_or(otherwise);
}

// Sets `by_default` if neither directive nor environment names any.
std::vector<std::string> models(ngx_conf_t* cf, const LocConf& lcf,
                                bool& by_default)
{
    by_default = false;
    if (lcf.models) {
        std::vector<std::string> names;
        auto elts = static_cast<ngx_str_t*>(lcf.models->elts);
        std::transform(elts, elts + lcf.models->nelts,
                       std::back_inserter(names),
                       [](auto& name) { return std::string(view(name)); });
        return names;
    }
    if (auto name = environment(cf, "OPENAI_MODEL")) {
        return model_names(*name);
    }
    by_default = true;
    return {"gpt-3.5-turbo", default_model};
}

std::vector<ModelParam> params(const LocConf& lcf, bool default_models)
{
    std::vector<ModelParam> all;
    if (lcf.params) {
        auto elts = static_cast<Param*>(lcf.params->elts);
        for (auto p = elts; p != elts + lcf.params->nelts; ++p) {
            all.push_back({std::string(view(p->name)),
                           std::string(view(p->json)),
                           std::string(view(p->model))});
        }
    }

    // By default this model reasons, which costs seconds and money, and then it
    // refuses a temperature.
    const bool told = std::any_of(all.begin(), all.end(), [](auto& param) {
        return param.name == "reasoning_effort" &&
               (param.model.empty() || param.model == default_model);
    });
    if (default_models && !told) {
        all.push_back({"reasoning_effort", "\"none\"", default_model});
    }
    return all;
}

using Headers = std::vector<std::pair<std::string, std::string>>;

char* make_headers(ngx_conf_t* cf, const LocConf& lcf, Headers& headers)
{
    if (lcf.headers) {
        auto elts = static_cast<ngx_keyval_t*>(lcf.headers->elts);
        for (auto h = elts; h != elts + lcf.headers->nelts; ++h) {
            headers.emplace_back(view(h->key), view(h->value));
        }
    }

    const std::pair<const char*, const char*> defaults[] = {
        {"OpenAI-Organization", "OPENAI_ORG_ID"},
        {"OpenAI-Project", "OPENAI_PROJECT_ID"}};
    for (auto [name, variable] : defaults) {
        auto value = environment(cf, variable);
        const bool set = std::any_of(
            headers.begin(), headers.end(), [name = name](auto& header) {
                return curl_strequal(header.first.c_str(), name);
            });
        if (!value || set) {
            continue;
        }
        if (value->find_first_of("\r\n") != std::string::npos) {
            return fail_environment(cf, variable, "more than one line");
        }
        headers.emplace_back(name, *value);
    }
    return conf_ok;
}

// The variables that curl reads, in its order; nginx clears the environment of
// its workers.
std::string proxy_for(ngx_conf_t* cf, const LocConf& lcf,
                      const std::string& url)
{
    if (lcf.proxy.data) {
        auto proxy = view(lcf.proxy);
        return proxy == "off" ? "" : std::string(proxy);
    }

    // "HTTP_PROXY" is what CGI calls a header of the client.
    const bool https = url.starts_with("https:");
    for (auto name :
         {https ? "https_proxy" : "http_proxy",
          https ? "HTTPS_PROXY" : "all_proxy", "all_proxy", "ALL_PROXY"}) {
        if (auto proxy = environment(cf, name)) {
            return *proxy;
        }
    }
    return "";
}

void make_proxies(ngx_conf_t* cf, const LocConf& lcf, ModelSettings& model)
{
    if (model.servers.empty()) {
        model.proxy = proxy_for(cf, lcf, model.url);
    }
    for (auto& server : model.servers) {
        server.proxy = proxy_for(cf, lcf, server.url);
    }
    if (!lcf.proxy.data) {
        auto hosts = environment(cf, "no_proxy");
        model.no_proxy = hosts ? *hosts : environment_or(cf, "NO_PROXY", "");
    }
}

char* make_model(ngx_conf_t* cf, LocConf& lcf, ModelSettings& model)
{
    model.api_key = lcf.api_key.data ? std::string(view(lcf.api_key))
                                     : environment_or(cf, "OPENAI_API_KEY", "");
    if (model.api_key.find_first_of("\r\n") != std::string::npos) {
        return fail_environment(cf, "OPENAI_API_KEY", "more than one line");
    }
    bool default_models;
    model.models = models(cf, lcf, default_models);
    lcf.models_listed = !default_models;
    if (model.models.empty() ||
        !std::all_of(model.models.begin(), model.models.end(), valid_model)) {
        return fail_environment(cf, "OPENAI_MODEL", "invalid name of a model");
    }
    model.system_prompt = view(lcf.system_prompt);
    model.params = params(lcf, default_models);
    if (auto rv = make_headers(cf, lcf, model.headers); rv != conf_ok) {
        return rv;
    }

    auto pass = view(lcf.pass);
    if (!is_upstream_name(pass)) {
        model.url = pass;
    } else if (auto rv = use_upstream(cf, pass, model); rv != conf_ok) {
        return rv;
    }
    make_proxies(cf, lcf, model);
    model.answer_max_size = lcf.answer_max_size;
    model.connect_timeout_ms = static_cast<int>(lcf.connect_timeout);
    model.read_timeout_ms = static_cast<int>(lcf.read_timeout);
    model.timeout_ms = static_cast<int>(lcf.timeout);
    model.retries = static_cast<int>(std::min<ngx_int_t>(lcf.retries, 100));
    model.stream = lcf.upstream_stream == stream_always;
    model.identify_to_all = lcf.safety_identifier;
    model.ssl_verify = lcf.ssl_verify;
    model.ssl_trusted_certificate = view(lcf.ssl_trusted_certificate);
    return conf_ok;
}

// Returns nothing for "off".
char* make_redis(ngx_conf_t* cf, const LocConf& lcf,
                 std::optional<RedisSettings>& redis)
{
    RedisSettings settings;
    settings.timeout_ms = static_cast<int>(lcf.redis_timeout);

    auto url = lcf.redis.data ? std::string(view(lcf.redis))
                              : environment_or(cf, "REDIS_URL", "");
    if (url == "off") {
        return conf_ok;
    }

    if (!url.empty()) {
        if (auto error = parse_redis_url(url, settings)) {
            return fail_environment(cf, "REDIS_URL", error);
        }
        redis = settings;
        return conf_ok;
    }

    if (auto host = environment(cf, "REDIS_HOST")) {
        auto text = environment_or(cf, "REDIS_PORT", "6379");
        auto port =
            ngx_atoi(reinterpret_cast<u_char*>(text.data()), text.size());
        if (port < 1 || port > 65535) {
            return fail_environment(cf, "REDIS_PORT",
                                    "a port from 1 to 65535 is expected");
        }
        settings.host = *host;
        settings.port = static_cast<int>(port);
        settings.password = environment_or(cf, "REDIS_PASSWORD", "");
        redis = settings;
    }
    return conf_ok;
}

char* make_log(ngx_conf_t* cf, const LocConf& lcf, LogTarget& target)
{
    if (auto rv = find_database(cf, lcf, target.conninfo); rv != conf_ok) {
        return rv;
    }
    if (!target.conninfo.empty()) {
        target.table = view(lcf.log_table);
        target.keep_s = main_conf(cf)->log_retention;
    }
    return conf_ok;
}

// The index of `value`, which is added if need be.
template <class List, class T>
std::size_t index_of(List& list, const T& value)
{
    auto it = std::find(list.begin(), list.end(), value);
    if (it == list.end()) {
        it = list.insert(list.end(), value);
    }
    return static_cast<std::size_t>(it - list.begin());
}

void note_names(const LocConf& lcf, const ModelSettings& model,
                std::set<std::string>& names)
{
    names.insert(model.models.begin(), model.models.end());
    for (const auto& server : model.servers) {
        names.insert(server.models.begin(), server.models.end());
    }
    for (const auto& [alias, name] : lcf.aliases) {
        names.insert(name);
    }
}

// `is_new`: no location before has the same model.
void warn_of_keys(ngx_conf_t* cf, const LocConf& lcf,
                  const ModelSettings& model, bool is_new)
{
    if (model.api_key.empty() && !lcf.api_key.data && is_new) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "no \"chatbot_api_key\" and no OPENAI_API_KEY in "
                           "the environment: the model is asked without a key");
    }
    // "docker run --env-file" keeps the quotes of a .env.
    const auto& key = model.api_key;
    if ((key.starts_with('"') || key.starts_with('\'')) && is_new) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the API key starts with a quote, which is sent as "
                           "part of it");
    }
    if (lcf.protocol == protocol_openai && !lcf.clients_file.data) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "no \"chatbot_clients\" in a location with "
                           "\"chatbot_protocol openai\": any client that can "
                           "reach it may ask at the expense of the key's "
                           "owner");
    }
}

// What the key of a question depends on besides the question.
std::string key_suffix(const LocConf& lcf, const ModelSettings& model)
{
    std::string params;
    for (const auto& [name, value, only] : model.params) {
        params += only.empty() ? hex(digest({name, value}))
                               : hex(digest({name, value, only}));
    }
    std::string names;
    for (const auto& name : model.models) {
        names += hex(digest({name}));
    }
    return hex(digest({names, model.system_prompt, params, view(lcf.pass)}));
}

}  // namespace

char* make_route(ngx_conf_t* cf, LocConf& lcf)
{
    auto mcf = main_conf(cf);
    ModelSettings model;
    std::optional<RedisSettings> redis;
    LogTarget target;

    if (auto rv = make_model(cf, lcf, model); rv != conf_ok) {
        return rv;
    }
    if (auto rv = make_redis(cf, lcf, redis); rv != conf_ok) {
        return rv;
    }
    if (auto rv = make_log(cf, lcf, target); rv != conf_ok) {
        return rv;
    }
    if (!mcf->journal && !target.conninfo.empty()) {
        return conf_fail(cf,
                         "PostgreSQL is fed from the journal: with "
                         "\"chatbot_log_journal off\" set "
                         "\"chatbot_postgres off\" too");
    }

    const auto known = mcf->models.size();
    const auto index = index_of(mcf->models, model);
    note_names(lcf, model, mcf->model_names);
    warn_of_keys(cf, lcf, model, index == known);

    Route route;
    route.model = &mcf->models[index];
    route.cache_timeout_ms = static_cast<int>(lcf.redis_timeout);
    route.cache_valid_s = static_cast<int>(lcf.cache_valid);
    route.cache_lock = lcf.cache_lock;
    route.cancel_abandoned = lcf.abandoned == abandoned_cancel;
    if (redis) {
        route.cache = index_of(mcf->caches, *redis);
    }
    if (mcf->journal) {
        route.journal = index_of(mcf->logs, target);
    }
    lcf.route = &mcf->routes[index_of(mcf->routes, route)];
    lcf.key_suffix = key_suffix(lcf, model);
    return conf_ok;
}

}  // namespace chatbot
