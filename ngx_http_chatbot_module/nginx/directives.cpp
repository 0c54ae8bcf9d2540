#include "nginx/chatbot.hpp"
#include "nginx/upstream.hpp"

#include <curl/curl.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iterator>
#include <memory>
#include <sstream>

#include "text/unicode.hpp"
#include "openai/protocol.hpp"
#include "postgres/conninfo.hpp"

// The directives: how a value is read and checked.

namespace chatbot {

namespace {

using Setter = char* (*)(ngx_conf_t*, ngx_command_t*, void*);

char* duplicate = const_cast<char*>("is duplicate");

ngx_str_t* args(ngx_conf_t* cf)
{
    return static_cast<ngx_str_t*>(cf->args->elts);
}

// Removes what editors put around a value: U+FEFF before it, newlines behind.
void strip_frame(std::string& text)
{
    if (text.starts_with("\xEF\xBB\xBF")) {
        text.erase(0, 3);
    }
    while (text.ends_with('\n') || text.ends_with('\r')) {
        text.pop_back();
    }
}

bool read(ngx_conf_t* cf, ngx_str_t path, std::string& text)
{
    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return false;
    }

    std::unique_ptr<FILE, int (*)(FILE*)> file(
        std::fopen(reinterpret_cast<char*>(path.data), "re"), std::fclose);
    if (!file) {
        return false;
    }

    char block[4096];
    while (auto n = std::fread(block, 1, sizeof(block), file.get())) {
        text.append(block, n);
    }
    return !std::ferror(file.get());
}

char* read_file(ngx_conf_t* cf, ngx_str_t path, std::string& text)
{
    ngx_set_errno(0);
    if (read(cf, path, text)) {
        return conf_ok;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                       "file \"%V\" of \"%V\" cannot be read", &path,
                       &args(cf)[0]);
    return conf_error;
}

// Follows env:NAME and file:PATH.
char* resolve(ngx_conf_t* cf, ngx_str_t& value)
{
    auto text = view(value);
    auto directive = &args(cf)[0];
    std::string found;

    if (text.starts_with("env:")) {
        auto name = std::string(text.substr(4));
        auto variable = environment(cf, name.c_str());
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
        if (auto rv = read_file(cf, path, found); rv != conf_ok) {
            return rv;
        }
        strip_frame(found);
    } else {
        return conf_ok;
    }

    value = copy(cf->pool, found);
    return value.data ? conf_ok : conf_error;
}

// What the directive sets.
template <class Field>
Field& field_of(void* conf, const ngx_command_t* cmd)
{
    return *reinterpret_cast<Field*>(static_cast<char*>(conf) + cmd->offset);
}

// Sets a string that may be env:NAME or file:PATH.
char* set_value(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<ngx_str_t>(conf, cmd);
    if (field.data) {
        return duplicate;
    }

    field = args(cf)[1];
    return resolve(cf, field);
}

// Sets such a string in which `wrong` finds nothing.  What it finds is told
// without the value, which may be a secret.
template <const char* (*wrong)(std::string)>
char* set_checked(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_value(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto error = wrong(std::string(view(field_of<ngx_str_t>(conf, cmd))));
    return error ? fail(cf, "%s in \"%V\"", error, &args(cf)[0]) : conf_ok;
}

const char* wrong_key(std::string key)
{
    return key.find_first_of("\r\n") == key.npos ? nullptr
                                                 : "more than one line";
}

// No key at all is set by "" only, not by a file that happens to be empty.
char* set_key(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_checked<wrong_key>(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& key = static_cast<LocConfBase*>(conf)->api_key;
    return key.len != 0 || args(cf)[1].len == 0
               ? conf_ok
               : fail(cf, "no key in \"%V\" of \"chatbot_api_key\"",
                      &args(cf)[1]);
}

const char* wrong_text(std::string text)
{
    return is_utf8(text) ? nullptr : "invalid UTF-8";
}

const char* wrong_redis(std::string url)
{
    RedisSettings settings;
    return url == "off" ? nullptr : parse_redis_url(url, settings);
}

char* set_postgres(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_value(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto conninfo = std::string(view(field_of<ngx_str_t>(conf, cmd)));
    auto wrong = conninfo == "off" ? "" : wrong_conninfo(conninfo);
    return wrong.empty() ? conf_ok
                         : fail(cf, "invalid connection string in \"%V\": %s",
                                &args(cf)[0], wrong.c_str());
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
               : fail(cf, "invalid name \"%V\" in \"chatbot_log_table\"",
                      &name);
}

// Sets a number, not less than `min`, with one of nginx's own functions, which
// do not name the value that is wrong.
template <class Field, Setter set_slot, Field min>
char* set_number(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<Field>(conf, cmd);
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
                 : fail(cf, "invalid value \"%V\" in \"%V\"",
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
               : fail(cf, "no certificate in file \"%V\" of \"%V\"", &field,
                      &args(cf)[0]);
}

const char* wrong_pass(std::string pass)
{
    return is_upstream_name(pass) ? nullptr : wrong_url(pass);
}

char* set_pass(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_checked<wrong_pass>(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& url = static_cast<LocConfBase*>(conf)->pass;
    if (!is_upstream_name(view(url))) {
        url = copy(cf->pool, base_url(view(url)));
        if (!url.data) {
            return conf_error;
        }
    }

    auto clcf = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    clcf->handler = handler;
    return conf_ok;
}

char* add_model(ngx_conf_t* cf, ngx_array_t& models, std::string_view name)
{
    auto model = static_cast<ngx_str_t*>(ngx_array_push(&models));
    if (!model) {
        return conf_error;
    }
    *model = copy(cf->pool, name);
    if (!model->data) {
        return conf_error;
    }
    if (!valid_model(name)) {
        return fail(cf, "invalid name \"%V\" in \"chatbot_model\"", model);
    }
    return conf_ok;
}

char* add_models(ngx_conf_t* cf, ngx_array_t& models, std::string_view text)
{
    const auto names = model_names(text);
    if (names.empty()) {
        return add_model(cf, models, "");
    }
    for (const auto& name : names) {
        if (auto rv = add_model(cf, models, name); rv != conf_ok) {
            return rv;
        }
    }
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
        auto value = args(cf)[i];
        if (auto rv = resolve(cf, value); rv != conf_ok) {
            return rv;
        }
        const bool literal = value.data == args(cf)[i].data;
        if (auto rv = literal ? add_model(cf, *lcf->models, view(value))
                              : add_models(cf, *lcf->models, view(value));
            rv != conf_ok) {
            return rv;
        }
    }
    return conf_ok;
}

// What is behind `prefix` in a parameter that starts with it.
bool take_parameter(ngx_str_t parameter, std::string_view prefix,
                    ngx_str_t& value)
{
    if (!view(parameter).starts_with(prefix)) {
        return false;
    }
    value = {parameter.len - prefix.size(), parameter.data + prefix.size()};
    return true;
}

char* check_param(ngx_conf_t* cf, const LocConfBase& lcf, const Param& param)
{
    auto name = param.name;
    for (auto ours :
         {"", "model", "messages", "stream", "stream_options", "n"}) {
        if (view(name) == ours) {
            return fail(cf, "\"chatbot_param\" cannot set \"%V\"", &name);
        }
    }
    if (!is_utf8(view(name)) || !is_utf8(view(param.json)) ||
        !is_utf8(view(param.model))) {
        return fail(cf, "\"chatbot_param\" is not UTF-8");
    }

    auto set = static_cast<const Param*>(lcf.params->elts);
    if (std::any_of(set, set + lcf.params->nelts, [&](auto& other) {
            return view(other.name) == view(name) &&
                   view(other.model) == view(param.model);
        })) {
        return fail(cf, "duplicate \"chatbot_param\" \"%V\"", &name);
    }
    return conf_ok;
}

char* set_param(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto lcf = static_cast<LocConfBase*>(conf);
    if (!lcf->params) {
        lcf->params = ngx_array_create(cf->pool, 2, sizeof(Param));
        if (!lcf->params) {
            return conf_error;
        }
    }

    Param param{args(cf)[1], args(cf)[2], {}};
    if (cf->args->nelts == 4 &&
        (!take_parameter(args(cf)[3], "model=", param.model) ||
         param.model.len == 0)) {
        return fail(cf,
                    "invalid parameter \"%V\" of \"chatbot_param\": model=NAME "
                    "is expected",
                    &args(cf)[3]);
    }
    if (auto rv = resolve(cf, param.json); rv != conf_ok) {
        return rv;
    }
    if (auto rv = check_param(cf, *lcf, param); rv != conf_ok) {
        return rv;
    }

    auto json = param_value(view(param.json));
    if (!json) {
        return fail(
            cf,
            "invalid value \"%V\" of \"%V\" in \"chatbot_param\": JSON is "
            "expected, such as 1, 0.5, true, \"text\", [1, 2], "
            "or a plain word",
            &param.json, &param.name);
    }
    param.json = copy(cf->pool, *json);

    auto added = static_cast<Param*>(ngx_array_push(lcf->params));
    if (!added || !param.json.data) {
        return conf_error;
    }
    *added = param;
    return conf_ok;
}

bool is_header_name(std::string_view name)
{
    return !name.empty() &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return std::isalnum(c) || c == '-' || c == '_';
           });
}

// The value may be a secret.
char* set_header(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto lcf = static_cast<LocConfBase*>(conf);
    if (!lcf->headers) {
        lcf->headers = ngx_array_create(cf->pool, 2, sizeof(ngx_keyval_t));
        if (!lcf->headers) {
            return conf_error;
        }
    }

    auto name = args(cf)[1];
    auto value = args(cf)[2];
    if (auto rv = resolve(cf, value); rv != conf_ok) {
        return rv;
    }
    for (auto ours : {"content-type", "content-length", "host",
                      "transfer-encoding", "accept-encoding", "expect"}) {
        if (curl_strequal(std::string(view(name)).c_str(), ours)) {
            return fail(cf, "\"chatbot_set_header\" cannot set \"%V\"", &name);
        }
    }
    if (!is_header_name(view(name))) {
        return fail(cf, "invalid name \"%V\" in \"chatbot_set_header\"", &name);
    }
    auto text = view(value);
    if (std::any_of(text.begin(), text.end(),
                    [](unsigned char c) { return c < ' ' && c != '\t'; })) {
        return fail(cf,
                    "a control character in the value of \"%V\" in "
                    "\"chatbot_set_header\"",
                    &name);
    }

    auto header = static_cast<ngx_keyval_t*>(ngx_array_push(lcf->headers));
    if (!header) {
        return conf_error;
    }
    *header = {name, value};
    return conf_ok;
}

const char* wrong_proxy(std::string url)
{
    if (url == "off") {
        return nullptr;
    }
    for (auto scheme : {"http://", "https://", "socks4://", "socks4a://",
                        "socks5://", "socks5h://"}) {
        if (url.starts_with(scheme) && url.size() > std::strlen(scheme)) {
            return url.find_first_of(" \r\n\t") == url.npos ? nullptr
                                                            : "white space";
        }
    }
    return "neither \"off\" nor http://, https://, socks4://, socks4a://, "
           "socks5:// or socks5h://";
}

char* set_upstream_stream(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto lcf = static_cast<LocConfBase*>(conf);
    if (lcf->upstream_stream != NGX_CONF_UNSET_UINT) {
        return duplicate;
    }

    auto value = view(args(cf)[1]);
    if (value != "always" && value != "wanted") {
        return fail(cf,
                    "invalid value \"%V\" of \"chatbot_upstream_stream\": "
                    "\"always\" or \"wanted\"",
                    &args(cf)[1]);
    }
    lcf->upstream_stream = value == "always" ? stream_always : stream_wanted;
    return conf_ok;
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
    if (dir.len == 0) {
        return fail(cf, "no directory in \"chatbot_log_journal\"");
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
    return fail(cf, "\"%V\": %s", &args(cf)[0], e.what());
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

char* resolve_value(ngx_conf_t* cf, ngx_str_t& value)
{
    return resolve(cf, value);
}

const char* wrong_url(std::string url)
{
    if (!url.starts_with("https://") && !url.starts_with("http://")) {
        return "neither http:// nor https://";
    }

    // What a base URL cannot have, or curl is lenient with.
    constexpr std::pair<const char*, const char*> unwanted[] = {
        {"@", "a user, or \"@\","},
        {"#", "a fragment"},
        {" ", "a space"},
        {"///", "no host, or \"///\","},
    };
    for (auto [part, what] : unwanted) {
        if (url.find(part) != url.npos) {
            return what;
        }
    }
    if (std::any_of(url.begin(), url.end(),
                    [](unsigned char c) { return c < ' '; })) {
        return "a control character";
    }

    std::unique_ptr<CURLU, void (*)(CURLU*)> parsed(curl_url(),
                                                    curl_url_cleanup);
    auto rc = curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0);
    return rc == CURLUE_OK ? nullptr : curl_url_strerror(rc);
}

std::string base_url(std::string_view url)
{
    constexpr std::string_view endpoint = "/chat/completions";

    const auto without_slashes = [](std::string_view text) {
        return text.substr(0, text.find_last_not_of('/') + 1);
    };

    const auto query = url.substr(std::min(url.find('?'), url.size()));
    url = without_slashes(url.substr(0, url.size() - query.size()));
    if (url.ends_with(endpoint)) {
        url.remove_suffix(endpoint.size());
    }
    return std::string(without_slashes(url)) + std::string(query);
}

ngx_path_t* journal_path(ngx_conf_t* cf, ngx_str_t dir)
{
    auto name = dir;
    if (ngx_conf_full_name(cf->cycle, &name, 0) != NGX_OK) {
        return nullptr;
    }

    // A file nginx would take, and change its owner and mode.
    ngx_file_info_t info;
    if (ngx_file_info(reinterpret_cast<const char*>(name.data), &info) == 0 &&
        !ngx_is_dir(&info)) {
        fail(cf, "\"%V\" of \"chatbot_log_journal\" is no directory", &dir);
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

std::vector<std::string> model_names(std::string_view text)
{
    std::istringstream words{std::string(text)};
    return {std::istream_iterator<std::string>(words), {}};
}

bool valid_model(std::string_view name)
{
    return !name.empty() && is_utf8(name) &&
           name.find_first_of("\r\n") == name.npos;
}

std::optional<std::string> environment(ngx_conf_t* cf, const char* name)
{
    auto value = std::getenv(name);
    std::string text = value ? value : "";
    strip_frame(text);
    if (text.empty()) {
        return std::nullopt;
    }

    auto ccf = reinterpret_cast<ngx_core_conf_t*>(
        ngx_get_conf(cf->cycle->conf_ctx, ngx_core_module));
    if (auto kept = static_cast<ngx_str_t*>(ngx_array_push(&ccf->env))) {
        *kept = copy(cf->pool, name);
    }
    return text;
}

}  // namespace chatbot
