#include <curl/curl.h>

#include <algorithm>
#include <cctype>
#include <cstring>

#include "nginx/content.hpp"
#include "nginx/setters.hpp"
#include "nginx/upstream.hpp"
#include "openai/protocol.hpp"
#include "text/unicode.hpp"

// The directives that say how a model is asked.

namespace chatbot {

namespace {

const char* wrong_key(std::string key)
{
    return key.find_first_of("\r\n") == key.npos ? nullptr
                                                 : "more than one line";
}

const char* wrong_pass(std::string pass)
{
    return is_upstream_name(pass) ? nullptr : wrong_url(pass);
}

char* add_model(ngx_conf_t* cf, ngx_array_t& models, std::string_view name)
{
    auto model = static_cast<ngx_str_t*>(ngx_array_push(&models));
    if (!model) {
        return conf_error;
    }
    *model = pool_copy(cf->pool, name);
    if (!model->data) {
        return conf_error;
    }
    if (!valid_model(name)) {
        return conf_fail(cf, "invalid name \"%V\" in \"chatbot_model\"", model);
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
            return conf_fail(cf, "\"chatbot_param\" cannot set \"%V\"", &name);
        }
    }
    if (!is_utf8(view(name)) || !is_utf8(view(param.json)) ||
        !is_utf8(view(param.model))) {
        return conf_fail(cf, "\"chatbot_param\" is not UTF-8");
    }

    auto set = static_cast<const Param*>(lcf.params->elts);
    if (std::any_of(set, set + lcf.params->nelts, [&](auto& other) {
            return view(other.name) == view(name) &&
                   view(other.model) == view(param.model);
        })) {
        return conf_fail(cf, "duplicate \"chatbot_param\" \"%V\"", &name);
    }
    return conf_ok;
}

bool is_header_name(std::string_view name)
{
    return !name.empty() &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) {
               return std::isalnum(c) || c == '-' || c == '_';
           });
}

}  // namespace

// No key at all is set by "" only, not by a file that happens to be empty.
char* set_key(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_checked<wrong_key>(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& key = static_cast<LocConfBase*>(conf)->api_key;
    return key.len != 0 || args(cf)[1].len == 0
               ? conf_ok
               : conf_fail(cf, "no key in \"%V\" of \"chatbot_api_key\"",
                           &args(cf)[1]);
}

char* set_pass(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_checked<wrong_pass>(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& url = static_cast<LocConfBase*>(conf)->pass;
    if (!is_upstream_name(view(url))) {
        url = pool_copy(cf->pool, base_url(view(url)));
        if (!url.data) {
            return conf_error;
        }
    }

    set_content(cf, *static_cast<LocConf*>(static_cast<LocConfBase*>(conf)),
                content_handler);
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
        if (auto rv = resolve_value(cf, value); rv != conf_ok) {
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
        return conf_fail(
            cf,
            "invalid parameter \"%V\" of \"chatbot_param\": model=NAME "
            "is expected",
            &args(cf)[3]);
    }
    if (auto rv = resolve_value(cf, param.json); rv != conf_ok) {
        return rv;
    }
    if (auto rv = check_param(cf, *lcf, param); rv != conf_ok) {
        return rv;
    }

    auto json = param_value(view(param.json));
    if (!json) {
        return conf_fail(
            cf,
            "invalid value \"%V\" of \"%V\" in \"chatbot_param\": JSON is "
            "expected, such as 1, 0.5, true, \"text\", [1, 2], "
            "or a plain word",
            &param.json, &param.name);
    }
    param.json = pool_copy(cf->pool, *json);

    auto added = static_cast<Param*>(ngx_array_push(lcf->params));
    if (!added || !param.json.data) {
        return conf_error;
    }
    *added = param;
    return conf_ok;
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
    if (auto rv = resolve_value(cf, value); rv != conf_ok) {
        return rv;
    }
    for (auto ours : {"content-type", "content-length", "host",
                      "transfer-encoding", "accept-encoding", "expect"}) {
        if (curl_strequal(std::string(view(name)).c_str(), ours)) {
            return conf_fail(cf, "\"chatbot_set_header\" cannot set \"%V\"",
                             &name);
        }
    }
    if (!is_header_name(view(name))) {
        return conf_fail(cf, "invalid name \"%V\" in \"chatbot_set_header\"",
                         &name);
    }
    auto text = view(value);
    if (std::any_of(text.begin(), text.end(),
                    [](unsigned char c) { return c < ' ' && c != '\t'; })) {
        return conf_fail(cf,
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

char* set_upstream_stream(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    static_assert(stream_always == 0 && stream_wanted == 1);
    return set_word(cf, cmd, conf, "always", "wanted");
}

char* set_abandoned(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    static_assert(abandoned_finish == 0 && abandoned_cancel == 1);
    return set_word(cf, cmd, conf, "finish", "cancel");
}

}  // namespace chatbot
