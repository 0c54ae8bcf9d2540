#include "nginx/upstream.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "nginx/setters.hpp"
#include "text/unicode.hpp"

namespace chatbot {

namespace {

constexpr std::string_view name_letters =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

char* wrong_value(ngx_conf_t* cf, ngx_str_t parameter, const char* right)
{
    return conf_fail(cf, "invalid parameter \"%V\" of \"server\": %s",
                     &parameter, right);
}

// A whole number from `min` up.
char* set_number(ngx_conf_t* cf, ngx_str_t parameter, ngx_str_t value, int min,
                 int& number)
{
    constexpr ngx_int_t max = 1000000;

    auto found = ngx_atoi(value.data, value.len);
    if (found == NGX_ERROR || found < min || found > max) {
        return wrong_value(
            cf, parameter,
            min == 0 ? "a number is expected" : "a number from 1 is expected");
    }
    number = static_cast<int>(found);
    return conf_ok;
}

char* set_time(ngx_conf_t* cf, ngx_str_t parameter, ngx_str_t value, int& ms)
{
    constexpr ngx_int_t max = 24 * 60 * 60 * 1000;

    auto found = ngx_parse_time(&value, 0);
    if (found == NGX_ERROR || found < 1 || found > max) {
        return wrong_value(cf, parameter,
                           "a time up to 1d is expected, such as 10s");
    }
    ms = static_cast<int>(found);
    return conf_ok;
}

// The value may be a secret.
char* set_key(ngx_conf_t* cf, ngx_str_t value, std::string& key)
{
    if (auto rv = resolve_value(cf, value); rv != conf_ok) {
        return rv;
    }
    key = view(value);
    if (key.empty() || key.find_first_of("\r\n") != key.npos) {
        return conf_fail(cf,
                         "no key, or more than one line, in \"key\" of "
                         "\"server\"");
    }
    return conf_ok;
}

char* set_models(ngx_conf_t* cf, ngx_str_t parameter, ngx_str_t value,
                 std::vector<std::string>& models)
{
    models = model_names(view(value));
    return !models.empty() && is_utf8(view(value))
               ? conf_ok
               : wrong_value(cf, parameter, "names of models are expected");
}

char* set_parameter(ngx_conf_t* cf, ngx_str_t parameter, ModelServer& server)
{
    auto text = view(parameter);
    if (text == "backup") {
        server.backup = true;
        return conf_ok;
    }

    auto name = text.substr(0, text.find('='));
    if (name.size() == text.size()) {
        name = {};
    }
    ngx_str_t value{parameter.len - name.size() - 1,
                    parameter.data + name.size() + 1};
    if (name == "key") {
        return set_key(cf, value, server.api_key);
    }
    if (name == "models") {
        return set_models(cf, parameter, value, server.models);
    }
    if (name == "weight") {
        return set_number(cf, parameter, value, 1, server.weight);
    }
    if (name == "max_fails") {
        return set_number(cf, parameter, value, 0, server.max_fails);
    }
    if (name == "fail_timeout") {
        return set_time(cf, parameter, value, server.fail_timeout_ms);
    }

    // What stands behind "=" may be a secret.
    auto shown = pool_copy(cf->pool, text.substr(0, text.find('=')));
    return conf_fail(cf,
                     "unknown parameter \"%V\" of \"server\": key=, models=, "
                     "weight=, max_fails=, fail_timeout= and backup are known",
                     &shown);
}

// The parameter from the i-th argument on, and `i` behind it; data is null if a
// quote is not closed.  To nginx, a quote in the middle is a letter like any
// other: models="a b" are two arguments.
ngx_str_t take_parameter(ngx_conf_t* cf, ngx_uint_t& i)
{
    constexpr std::string_view start = "models=\"";

    auto first = args(cf)[i++];
    if (!view(first).starts_with(start)) {
        return first;
    }

    std::string all(view(first));
    while (all.size() == start.size() || !all.ends_with('"')) {
        if (i == cf->args->nelts) {
            return {};
        }
        all.append(" ").append(view(args(cf)[i++]));
    }
    all.pop_back();
    all.erase(start.size() - 1, 1);
    return pool_copy(cf->pool, all);
}

char* add_server(ngx_conf_t* cf, std::vector<ModelServer>& servers)
{
    auto directive = args(cf)[0];
    if (view(directive) != "server") {
        return conf_fail(
            cf,
            "unknown directive \"%V\" in \"chatbot_upstream\": only "
            "\"server\" is known",
            &directive);
    }
    if (cf->args->nelts < 2) {
        return conf_fail(cf, "no URL in \"server\" of \"chatbot_upstream\"");
    }

    auto url = args(cf)[1];
    if (auto rv = resolve_value(cf, url); rv != conf_ok) {
        return rv;
    }
    if (auto wrong = wrong_url(std::string(view(url)))) {
        return conf_fail(cf, "%s in the URL of \"server\"", wrong);
    }

    ModelServer server;
    server.url = base_url(view(url));
    for (ngx_uint_t i = 2; i < cf->args->nelts;) {
        auto parameter = take_parameter(cf, i);
        if (!parameter.data) {
            return conf_fail(cf,
                             "no closing quote in \"models\" of \"server\"");
        }
        if (auto rv = set_parameter(cf, parameter, server); rv != conf_ok) {
            return rv;
        }
    }
    servers.push_back(std::move(server));
    return conf_ok;
}

// Called for each line of the block.
char* on_line(ngx_conf_t* cf, ngx_command_t*, void* servers) noexcept
try {
    return add_server(cf, *static_cast<std::vector<ModelServer>*>(servers));
} catch (const std::exception& e) {
    return conf_fail(cf, "\"chatbot_upstream\": %s", e.what());
}

// "NAME/2 (api.openai.com/v1)": two may differ in their keys alone.
std::string name_of(std::string_view upstream, std::size_t number,
                    const std::string& url)
{
    auto place = url.substr(0, url.find('?'));
    place.erase(0, place.find("://") + 3);
    return std::string(upstream) + "/" + std::to_string(number) + " (" + place +
           ")";
}

}  // namespace

char* set_upstream(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto mcf = static_cast<MainConf*>(static_cast<MainConfBase*>(conf));
    auto name = args(cf)[1];
    if (!is_upstream_name(view(name))) {
        return conf_fail(
            cf,
            "invalid name \"%V\" in \"chatbot_upstream\": letters, "
            "digits, \".\", \"_\" and \"-\" are expected",
            &name);
    }

    auto [found, is_new] = mcf->upstreams.try_emplace(std::string(view(name)));
    auto& servers = found->second;
    if (!is_new) {
        return conf_fail(cf, "duplicate \"chatbot_upstream\" \"%V\"", &name);
    }

    auto save = *cf;
    cf->handler = on_line;
    cf->handler_conf = reinterpret_cast<char*>(&servers);
    auto rv = ngx_conf_parse(cf, nullptr);
    *cf = save;
    if (rv != conf_ok) {
        return rv;
    }

    if (std::all_of(servers.begin(), servers.end(),
                    [](const auto& server) { return server.backup; })) {
        return conf_fail(cf,
                         "no server in \"chatbot_upstream\" \"%V\" that is no "
                         "backup",
                         &name);
    }
    for (std::size_t i = 0; i < servers.size(); ++i) {
        servers[i].name = name_of(view(name), i + 1, servers[i].url);
    }
    return conf_ok;
}

bool is_upstream_name(std::string_view text)
{
    return !text.empty() && text.find_first_not_of(name_letters) == text.npos;
}

char* use_upstream(ngx_conf_t* cf, std::string_view name, ModelSettings& model)
{
    const auto& upstreams = main_conf(cf)->upstreams;
    const auto found = upstreams.find(std::string(name));
    if (found == upstreams.end()) {
        auto shown = pool_copy(cf->pool, name);
        return conf_fail(
            cf,
            "no \"chatbot_upstream\" \"%V\" for \"chatbot_pass\"; a URL "
            "starts with http:// or https://",
            &shown);
    }

    model.servers = found->second;
    for (auto& server : model.servers) {
        if (server.api_key.empty()) {
            server.api_key = model.api_key;
        }
        if (server.models.empty()) {
            server.models = model.models;
        }
    }
    return conf_ok;
}

}  // namespace chatbot
