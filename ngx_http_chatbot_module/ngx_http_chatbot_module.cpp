#include "ngx_http_chatbot.hpp"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>
#include <optional>

#include "fold.hpp"
#include "log_postgres.hpp"
#include "openai_json.hpp"

// The life of a configuration: directives, their inheritance, and what is made
// of them.

namespace chatbot {

namespace {

// A value of a directive that is set; one that cannot be taken is an error
// that was logged.
char* const conf_ok = nullptr;
char* const conf_error = reinterpret_cast<char*>(-1);

char* duplicate = const_cast<char*>("is duplicate");

ngx_str_t* args(ngx_conf_t* cf)
{
    return static_cast<ngx_str_t*>(cf->args->elts);
}

using Setter = char* (*)(ngx_conf_t*, ngx_command_t*, void*);

// Logs why a directive is wrong.  Only for values that are no secrets.
template <class... Args>
char* fail(ngx_conf_t* cf, const char* format, Args... args)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, format, args...);
    return conf_error;
}

void chomp(std::string& text)
{
    while (text.ends_with('\n') || text.ends_with('\r')) {
        text.pop_back();
    }
}

// A variable that is empty is as good as none.
std::optional<std::string> environment(const char* name)
{
    auto value = std::getenv(name);
    std::string text = value ? value : "";
    chomp(text);
    if (text.empty()) {
        return std::nullopt;
    }
    return text;
}

std::string environment_or(const char* name, const char* otherwise)
{
    return environment(name).value_or(otherwise);
}

bool read_file(ngx_conf_t* cf, ngx_str_t path, std::string& text)
{
    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return false;
    }

    std::ifstream file(reinterpret_cast<char*>(path.data));
    text.assign(std::istreambuf_iterator<char>(file), {});
    return file.good() || file.eof();
}

// Follows env:NAME and file:PATH.
char* resolve(ngx_conf_t* cf, ngx_str_t& value)
{
    auto text = view(value);
    auto directive = &args(cf)[0];
    std::string found;

    if (text.starts_with("env:")) {
        auto name = std::string(text.substr(4));
        auto variable = environment(name.c_str());
        if (!variable && name == "OPENAI_BASE_URL") {
            variable = "https://api.openai.com/v1";  // as OpenAI's own SDKs
        }
        if (!variable) {
            return fail(cf, "environment variable \"%s\" of \"%V\" is not set",
                        name.c_str(), directive);
        }
        found = *variable;
    } else if (text.starts_with("file:")) {
        ngx_str_t path{value.len - 5, value.data + 5};
        if (!read_file(cf, path, found)) {
            return fail(cf, "file \"%V\" of \"%V\" cannot be read", &path,
                        directive);
        }
        chomp(found);
    } else {
        return conf_ok;
    }

    value = copy(cf->pool, found);
    return value.data ? conf_ok : conf_error;
}

// Sets a string that may be env:NAME or file:PATH.
char* set_value(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto field =
        reinterpret_cast<ngx_str_t*>(static_cast<char*>(conf) + cmd->offset);
    if (field->data) {
        return duplicate;
    }

    *field = args(cf)[1];
    return resolve(cf, *field);
}

// Sets a number, not less than `min`, with one of nginx's own functions, which
// do not name the value that is wrong.
template <class Field, Setter set_slot, Field min>
char* set_number(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field =
        *reinterpret_cast<Field*>(static_cast<char*>(conf) + cmd->offset);
    if (field != static_cast<Field>(NGX_CONF_UNSET)) {
        return duplicate;
    }

    if (set_slot(cf, cmd, conf) != conf_ok || field < min ||
        field > static_cast<Field>(INT_MAX)) {
        return fail(cf, "invalid value \"%V\" in \"%V\"", &args(cf)[1],
                    &args(cf)[0]);
    }
    return conf_ok;
}

constexpr Setter set_size = set_number<size_t, ngx_conf_set_size_slot, 1>;
constexpr Setter set_msec = set_number<ngx_msec_t, ngx_conf_set_msec_slot, 1>;
constexpr Setter set_seconds = set_number<time_t, ngx_conf_set_sec_slot, 1>;
constexpr Setter set_count = set_number<ngx_int_t, ngx_conf_set_num_slot, 0>;
constexpr Setter set_limit = set_number<ngx_uint_t, ngx_conf_set_num_slot, 1>;

// Sets the name of a file that is there.
char* set_file(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field =
        *reinterpret_cast<ngx_str_t*>(static_cast<char*>(conf) + cmd->offset);
    if (field.data) {
        return duplicate;
    }

    field = args(cf)[1];
    std::string text;
    if (ngx_conf_full_name(cf->cycle, &field, 1) != NGX_OK ||
        !read_file(cf, field, text)) {
        return fail(cf, "file \"%V\" of \"%V\" cannot be read", &field,
                    &args(cf)[0]);
    }
    return conf_ok;
}

char* set_pass(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_value(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& url = static_cast<LocConfBase*>(conf)->pass;
    auto text = view(url);
    auto host = text.starts_with("https://")  ? text.substr(8)
                : text.starts_with("http://") ? text.substr(7)
                                              : std::string_view();
    if (host.empty() || host.front() == '/' ||
        text.find_first_of(" \t\r\n?#@") != text.npos) {
        return fail(cf,
                    "invalid URL in \"chatbot_pass\": expected http:// or "
                    "https:// with a host, and no user or query");
    }

    while (url.data[url.len - 1] == '/') {
        --url.len;
    }

    auto clcf = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    clcf->handler = handler;
    return conf_ok;
}

char* set_models(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto lcf = static_cast<LocConfBase*>(conf);
    if (lcf->models) {
        return duplicate;
    }

    lcf->models = ngx_array_create(cf->pool, 2, sizeof(ngx_str_t));
    if (!lcf->models) {
        return conf_error;
    }

    for (ngx_uint_t i = 1; i < cf->args->nelts; ++i) {
        auto name = static_cast<ngx_str_t*>(ngx_array_push(lcf->models));
        if (!name) {
            return conf_error;
        }
        *name = args(cf)[i];
        if (auto rv = resolve(cf, *name); rv != conf_ok) {
            return rv;
        }
        if (name->len == 0 || !is_utf8(view(*name))) {
            return fail(cf, "invalid name \"%V\" in \"chatbot_model\"", name);
        }
    }
    return conf_ok;
}

char* set_param(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto lcf = static_cast<LocConfBase*>(conf);
    auto name = view(args(cf)[1]);
    for (auto ours :
         {"", "model", "messages", "stream", "stream_options", "n"}) {
        if (name == ours) {
            return fail(cf, "\"chatbot_param\" cannot set \"%V\"",
                        &args(cf)[1]);
        }
    }

    if (!lcf->params) {
        lcf->params = ngx_array_create(cf->pool, 2, sizeof(ngx_keyval_t));
        if (!lcf->params) {
            return conf_error;
        }
    }

    auto set = static_cast<ngx_keyval_t*>(lcf->params->elts);
    if (std::any_of(set, set + lcf->params->nelts,
                    [=](auto& param) { return view(param.key) == name; })) {
        return fail(cf, "duplicate \"chatbot_param\" \"%V\"", &args(cf)[1]);
    }

    auto param = static_cast<ngx_keyval_t*>(ngx_array_push(lcf->params));
    if (!param) {
        return conf_error;
    }
    param->key = args(cf)[1];
    param->value = args(cf)[2];
    if (auto rv = resolve(cf, param->value); rv != conf_ok) {
        return rv;
    }
    if (!is_utf8(view(param->key)) || !is_utf8(view(param->value))) {
        return fail(cf, "\"chatbot_param\" is not UTF-8");
    }
    param->value = copy(cf->pool, param_value(view(param->value)));
    return param->value.data ? conf_ok : conf_error;
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

ngx_path_t* journal_path(ngx_conf_t* cf, ngx_str_t name)
{
    if (ngx_conf_full_name(cf->cycle, &name, 0) != NGX_OK) {
        return nullptr;
    }

    auto path =
        static_cast<ngx_path_t*>(ngx_pcalloc(cf->pool, sizeof(ngx_path_t)));
    if (path) {
        path->name = name;
        path->conf_file = cf->conf_file->file.name.data;
        path->line = cf->conf_file->line;
    }
    return path;
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
                   : fail(cf, "\"chatbot_log_journal off\" takes no parameter");
    }

    if (cf->args->nelts == 3) {
        auto size = args(cf)[2];
        if (!view(size).starts_with("max_size=")) {
            return fail(cf,
                        "invalid parameter \"%V\" of "
                        "\"chatbot_log_journal\"",
                        &size);
        }
        size.data += 9;
        size.len -= 9;
        mcf->journal_max_size = ngx_parse_offset(&size);
        if (mcf->journal_max_size < 64 * 1024) {
            return fail(cf,
                        "invalid max_size \"%V\" of "
                        "\"chatbot_log_journal\": at least 64k",
                        &size);
        }
    }

    if (auto rv = resolve(cf, dir); rv != conf_ok) {
        return rv;
    }
    mcf->journal = journal_path(cf, dir);
    return mcf->journal ? conf_ok : conf_error;
}

constexpr ngx_uint_t anywhere =
    NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

constexpr ngx_command_t loc_command(ngx_str_t name, ngx_uint_t takes,
                                    Setter set, ngx_uint_t offset)
{
    return {name,   anywhere | takes, set, NGX_HTTP_LOC_CONF_OFFSET,
            offset, nullptr};
}

#define CHATBOT_LOC(name, takes, set, field)             \
    loc_command(ngx_string("chatbot_" name), takes, set, \
                offsetof(LocConfBase, field))

ngx_command_t commands[] = {
    {ngx_string("chatbot_pass"),
     NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_CONF_TAKE1, set_pass,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConfBase, pass), nullptr},

    CHATBOT_LOC("api_key", NGX_CONF_TAKE1, set_value, api_key),
    CHATBOT_LOC("model", NGX_CONF_1MORE, set_models, models),
    CHATBOT_LOC("system_prompt", NGX_CONF_TAKE1, set_value, system_prompt),
    CHATBOT_LOC("param", NGX_CONF_TAKE2, set_param, params),
    CHATBOT_LOC("query", NGX_CONF_TAKE1, ngx_http_set_complex_value_slot,
                query),
    CHATBOT_LOC("query_max_size", NGX_CONF_TAKE1, set_size, query_max_size),
    CHATBOT_LOC("answer_max_size", NGX_CONF_TAKE1, set_size, answer_max_size),
    CHATBOT_LOC("connect_timeout", NGX_CONF_TAKE1, set_msec, connect_timeout),
    CHATBOT_LOC("read_timeout", NGX_CONF_TAKE1, set_msec, read_timeout),
    CHATBOT_LOC("timeout", NGX_CONF_TAKE1, set_msec, timeout),
    CHATBOT_LOC("retries", NGX_CONF_TAKE1, set_count, retries),
    CHATBOT_LOC("ssl_verify", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                ssl_verify),
    CHATBOT_LOC("ssl_trusted_certificate", NGX_CONF_TAKE1, set_file,
                ssl_trusted_certificate),
    CHATBOT_LOC("redis", NGX_CONF_TAKE1, set_value, redis),
    CHATBOT_LOC("redis_timeout", NGX_CONF_TAKE1, set_msec, redis_timeout),
    CHATBOT_LOC("cache_valid", NGX_CONF_TAKE1, set_seconds, cache_valid),
    CHATBOT_LOC("cache_key", NGX_CONF_TAKE1, ngx_http_set_complex_value_slot,
                cache_key),
    CHATBOT_LOC("cache_lock", NGX_CONF_FLAG, ngx_conf_set_flag_slot,
                cache_lock),
    CHATBOT_LOC("postgres", NGX_CONF_TAKE1, set_value, postgres),
    CHATBOT_LOC("log_table", NGX_CONF_TAKE1, set_value, log_table),

    {ngx_string("chatbot_max_in_flight"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
     set_limit, NGX_HTTP_MAIN_CONF_OFFSET,
     offsetof(MainConfBase, max_in_flight), nullptr},

    {ngx_string("chatbot_thread_pool"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1,
     set_thread_pool, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    {ngx_string("chatbot_log_journal"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE12,
     set_journal, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    ngx_null_command};

// A C++ object that lives as long as the pool.
template <class T>
T* make(ngx_pool_t* pool)
{
    auto cleanup = ngx_pool_cleanup_add(pool, sizeof(T));
    if (!cleanup) {
        return nullptr;
    }

    auto object = new (cleanup->data) T{};
    cleanup->handler = [](void* data) { static_cast<T*>(data)->~T(); };
    return object;
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
    mcf->journal_max_size = 1024 * 1024 * 1024;
    return static_cast<MainConfBase*>(mcf);
}

char* init_main_conf(ngx_conf_t* cf, void* conf)
{
    auto mcf = static_cast<MainConfBase*>(conf);
    ngx_conf_init_uint_value(mcf->max_in_flight, 10000);

    if (mcf->journal_set == NGX_CONF_UNSET) {
        ngx_str_t name = ngx_string("chatbot-journal");
        mcf->journal = journal_path(cf, name);
        return mcf->journal ? conf_ok : conf_error;
    }
    return conf_ok;
}

void* create_loc_conf(ngx_conf_t* cf)
{
    auto lcf = make<LocConf>(cf->pool);
    if (!lcf) {
        return nullptr;
    }

    lcf->query_max_size = NGX_CONF_UNSET_SIZE;
    lcf->answer_max_size = NGX_CONF_UNSET_SIZE;
    lcf->connect_timeout = NGX_CONF_UNSET_MSEC;
    lcf->read_timeout = NGX_CONF_UNSET_MSEC;
    lcf->timeout = NGX_CONF_UNSET_MSEC;
    lcf->retries = NGX_CONF_UNSET;
    lcf->ssl_verify = NGX_CONF_UNSET;
    lcf->redis_timeout = NGX_CONF_UNSET_MSEC;
    lcf->cache_valid = NGX_CONF_UNSET;
    lcf->cache_lock = NGX_CONF_UNSET;
    return static_cast<LocConfBase*>(lcf);
}

std::vector<std::string> models(const LocConf& lcf)
{
    std::vector<std::string> names;
    if (lcf.models) {
        auto elts = static_cast<ngx_str_t*>(lcf.models->elts);
        std::transform(elts, elts + lcf.models->nelts,
                       std::back_inserter(names),
                       [](auto& name) { return std::string(view(name)); });
    } else if (auto name = environment("OPENAI_MODEL")) {
        names = {*name};
    } else {
        names = {"gpt-3.5-turbo", "gpt-6-luna"};
    }
    return names;
}

char* make_model(ngx_conf_t* cf, const LocConf& lcf, ModelSettings& model)
{
    model.url = view(lcf.pass);
    model.api_key = lcf.api_key.data ? std::string(view(lcf.api_key))
                                     : environment_or("OPENAI_API_KEY", "");
    if (model.api_key.find_first_of("\r\n") != std::string::npos) {
        return fail(cf, "\"chatbot_api_key\" has more than one line");
    }
    model.models = models(lcf);
    model.system_prompt = view(lcf.system_prompt);
    if (!is_utf8(model.system_prompt)) {
        return fail(cf, "\"chatbot_system_prompt\" is not UTF-8");
    }
    if (lcf.params) {
        auto elts = static_cast<ngx_keyval_t*>(lcf.params->elts);
        for (auto p = elts; p != elts + lcf.params->nelts; ++p) {
            model.params.emplace_back(view(p->key), view(p->value));
        }
    }
    model.answer_max_size = lcf.answer_max_size;
    model.connect_timeout_ms = static_cast<int>(lcf.connect_timeout);
    model.read_timeout_ms = static_cast<int>(lcf.read_timeout);
    model.timeout_ms = static_cast<int>(lcf.timeout);
    model.retries = static_cast<int>(std::min<ngx_int_t>(lcf.retries, 100));
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

    auto name = "chatbot_redis";
    std::string url(view(lcf.redis));
    if (!lcf.redis.data) {
        name = "REDIS_URL";
        url = environment_or(name, "");
    }

    if (url == "off") {
        return conf_ok;
    }

    if (!url.empty() || lcf.redis.data) {
        if (auto error = parse_redis_url(url, settings)) {
            return fail(cf, "%s in \"%s\"", error, name);
        }
        redis = settings;
        return conf_ok;
    }

    if (auto host = environment("REDIS_HOST")) {
        auto port = environment_or("REDIS_PORT", "6379");
        settings.host = *host;
        settings.port =
            ngx_atoi(reinterpret_cast<u_char*>(port.data()), port.size());
        settings.password = environment_or("REDIS_PASSWORD", "");
        if (settings.port < 1 || settings.port > 65535) {
            return fail(cf, "invalid port in \"REDIS_PORT\"");
        }
        redis = settings;
    }
    return conf_ok;
}

// A member of a conninfo string, quoted as libpq wants it.
std::string conninfo_member(const char* key, const char* name)
{
    auto value = environment(name);
    if (!value) {
        return "";
    }

    std::string quoted = std::string(key) + "='";
    for (auto c : *value) {
        if (c == '\'' || c == '\\') {
            quoted += '\\';
        }
        quoted += c;
    }
    return quoted + "' ";
}

std::string environment_conninfo()
{
    if (auto url = environment("DATABASE_URL")) {
        return *url;
    }
    if (!environment("POSTGRES_HOST")) {
        return "";
    }
    return conninfo_member("host", "POSTGRES_HOST") +
           conninfo_member("port", "POSTGRES_PORT") +
           conninfo_member("dbname", "POSTGRES_DB") +
           conninfo_member("user", "POSTGRES_USER") +
           conninfo_member("password", "POSTGRES_PASSWORD");
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

char* make_log(ngx_conf_t* cf, const LocConf& lcf, LogTarget& target)
{
    target.table = view(lcf.log_table);
    if (!valid_table(target.table)) {
        return fail(cf, "invalid name \"%V\" in \"chatbot_log_table\"",
                    &lcf.log_table);
    }

    target.conninfo = lcf.postgres.data ? std::string(view(lcf.postgres))
                                        : environment_conninfo();
    if (target.conninfo == "off" ||
        (target.conninfo.empty() && !lcf.postgres.data)) {
        target = {};
        return conf_ok;
    }

    if (target.conninfo.empty() || !valid_conninfo(target.conninfo)) {
        return fail(cf, "invalid connection string in \"%s\"",
                    lcf.postgres.data ? "chatbot_postgres" : "DATABASE_URL");
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
        return fail(cf,
                    "PostgreSQL is fed from the journal: with "
                    "\"chatbot_log_journal off\" set "
                    "\"chatbot_postgres off\" too");
    }
    if (model.api_key.empty()) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "no \"chatbot_api_key\" and no OPENAI_API_KEY in "
                           "the environment: the model is asked without a key");
    }

    Route route;
    route.model = &mcf->models[index_of(mcf->models, model)];
    route.cache_timeout_ms = static_cast<int>(lcf.redis_timeout);
    route.cache_valid_s = static_cast<int>(lcf.cache_valid);
    route.cache_lock = lcf.cache_lock;
    if (redis) {
        route.cache = index_of(mcf->caches, *redis);
    }
    if (mcf->journal) {
        route.journal = index_of(mcf->logs, target);
    }
    lcf.route = &mcf->routes[index_of(mcf->routes, route)];

    std::string params;
    for (const auto& [name, value] : model.params) {
        params += digest({name, value});
    }
    std::string names;
    for (const auto& name : model.models) {
        names += digest({name});
    }
    lcf.key_suffix = digest({names, model.system_prompt, params});
    return conf_ok;
}

// So that errors from before a location was found, such as 414, can be told to
// be a chatbot's.
void tell_server(ngx_conf_t* cf, const ngx_http_core_loc_conf_t* clcf,
                 bool chatbot)
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

char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child)
try {
    auto prev = static_cast<LocConfBase*>(parent);
    auto conf = static_cast<LocConfBase*>(child);
    auto clcf = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));

    // An "if" or "limit_except" within a chatbot location is one, too.
    if (!conf->pass.data && (clcf->noname || clcf->lmt_excpt)) {
        conf->pass = prev->pass;
        if (conf->pass.data && clcf->lmt_excpt) {
            clcf->handler = handler;
        }
    }

    // Left unset if set nowhere: the environment decides.
    inherit(conf->api_key, prev->api_key);
    inherit(conf->redis, prev->redis);
    inherit(conf->postgres, prev->postgres);
    inherit(conf->models, prev->models);
    inherit(conf->params, prev->params);
    inherit(conf->query, prev->query);
    inherit(conf->cache_key, prev->cache_key);

    ngx_conf_merge_str_value(conf->system_prompt, prev->system_prompt,
                             "You are a helpful assistant.");
    ngx_conf_merge_size_value(conf->query_max_size, prev->query_max_size,
                              16 * 1024);
    ngx_conf_merge_size_value(conf->answer_max_size, prev->answer_max_size,
                              1024 * 1024);
    ngx_conf_merge_msec_value(conf->connect_timeout, prev->connect_timeout,
                              5000);
    ngx_conf_merge_msec_value(conf->read_timeout, prev->read_timeout, 60000);
    ngx_conf_merge_msec_value(conf->timeout, prev->timeout, 120000);
    ngx_conf_merge_value(conf->retries, prev->retries, 2);
    ngx_conf_merge_value(conf->ssl_verify, prev->ssl_verify, 1);
    ngx_conf_merge_str_value(conf->ssl_trusted_certificate,
                             prev->ssl_trusted_certificate, "");
    ngx_conf_merge_msec_value(conf->redis_timeout, prev->redis_timeout, 250);
    ngx_conf_merge_sec_value(conf->cache_valid, prev->cache_valid, 3600);
    ngx_conf_merge_value(conf->cache_lock, prev->cache_lock, 1);
    ngx_conf_merge_str_value(conf->log_table, prev->log_table, "request_logs");

    tell_server(cf, clcf, conf->pass.data);
    if (!conf->pass.data) {
        return conf_ok;
    }

    return make_route(cf, *static_cast<LocConf*>(conf));
} catch (const std::exception& e) {
    return fail(cf, "chatbot: %s", e.what());
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

    if (mcf->journal && ngx_add_path(cf, &mcf->journal) != NGX_OK) {
        return NGX_ERROR;
    }

    install_problem_filter();
    return find_request_id(cf);
}

ngx_http_module_t context = {
    preconfiguration, postconfiguration, create_main_conf, init_main_conf,
    nullptr,          nullptr,           create_loc_conf,  merge_loc_conf};

}  // namespace

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

LocConf* loc_conf(ngx_http_request_t* r)
{
    return static_cast<LocConf*>(static_cast<LocConfBase*>(
        ngx_http_get_module_loc_conf(r, ngx_http_chatbot_module)));
}

ngx_str_t copy(ngx_pool_t* pool, std::string_view text)
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
                                        nullptr,               // init module
                                        chatbot::init_worker,  // init process
                                        nullptr,               // init thread
                                        nullptr,               // exit thread
                                        chatbot::exit_worker,  // exit process
                                        nullptr,               // exit master
                                        NGX_MODULE_V1_PADDING};
}
