#include "nginx/api.hpp"

#include <openssl/crypto.h>

#include <algorithm>
#include <sstream>

#include "nginx/output.hpp"
#include "nginx/setters.hpp"
#include "text/digest.hpp"
#include "text/hex.hpp"
#include "text/json.hpp"

namespace chatbot {

namespace {

using Client = std::pair<std::string, Key>;

// What a line of the file of clients says: NAME KEY, or NAME sha256:HEX.
bool read_client(const std::string& line, Client& client)
{
    constexpr std::string_view prefix = "sha256:";

    std::istringstream words(line);
    std::string key;
    std::string more;
    if (!(words >> client.first >> key) || words >> more) {
        return false;
    }
    if (!key.starts_with(prefix)) {
        client.second = sha256(key);
        return true;
    }

    auto digits = std::string_view(key).substr(prefix.size());
    if (digits.size() != 2 * client.second.size()) {
        return false;
    }
    for (std::size_t i = 0; i < client.second.size(); ++i) {
        auto byte = read_hex(digits.substr(2 * i), 2);
        if (byte < 0) {
            return false;
        }
        client.second[i] = static_cast<unsigned char>(byte);
    }
    return true;
}

std::string_view bearer_key(ngx_http_request_t* r)
{
    constexpr std::string_view scheme = "bearer ";

    auto header = r->headers_in.authorization;
    auto value = header ? view(header->value) : std::string_view();
    if (value.size() < scheme.size() ||
        ngx_strncasecmp(
            header->value.data,
            reinterpret_cast<u_char*>(const_cast<char*>(scheme.data())),
            scheme.size()) != 0) {
        return {};
    }
    value.remove_prefix(scheme.size());
    return value.substr(std::min(value.find_first_not_of(' '), value.size()));
}

const std::vector<std::string>& names_of(const LocConf& lcf)
{
    const auto& model = *lcf.route->model;
    return model.servers.empty() ? model.models : model.servers[0].models;
}

const char* type_of(ngx_uint_t status)
{
    switch (status) {
        case 401:
            return "authentication_error";
        case 403:
            return "permission_error";
        case 429:
            return "rate_limit_error";
        default:
            return status < 500 ? "invalid_request_error" : "server_error";
    }
}

std::string code_of(ngx_uint_t status)
{
    return status == 401   ? "invalid_api_key"
           : status == 429 ? "rate_limit_exceeded"
                           : "";
}

void append_or_null(std::string& out, const std::string& text)
{
    if (text.empty()) {
        out += "null";
    } else {
        append_json(out, text);
    }
}

}  // namespace

ApiPath api_path(const ngx_http_request_t* r)
{
    auto uri = view(r->uri);
    if (uri.ends_with("/chat/completions")) {
        return ApiPath::completions;
    }
    return uri.ends_with("/models") ? ApiPath::models : ApiPath::none;
}

Problem read_api_question(const LocConf& lcf, std::string_view body,
                          ApiRequest& request)
{
    if (auto wrong = read_api_request(body, request)) {
        return wrong;
    }

    auto& model = request.call.model;
    auto alias =
        std::find_if(lcf.aliases.begin(), lcf.aliases.end(),
                     [&](auto& known) { return known.first == model; });
    if (alias != lcf.aliases.end()) {
        model = alias->second;
        return {};
    }

    const auto& names = names_of(lcf);
    if (!lcf.models_listed ||
        std::find(names.begin(), names.end(), model) != names.end()) {
        return {};
    }
    return {.status = 404,
            .detail = "The model `" + model + "` does not exist.",
            .reason = {},
            .code = "model_not_found",
            .param = "model"};
}

std::string models_json(const LocConf& lcf)
{
    std::string json = R"({"object": "list", "data": [)";
    const char* comma = "";
    const auto add = [&](const std::string& name) {
        json.append(std::exchange(comma, ", ")).append("{\"id\": ");
        append_json(json, name);
        json += R"(, "object": "model", "created": 0, "owned_by": "chatbot"})";
    };

    for (const auto& name : names_of(lcf)) {
        add(name);
    }
    for (const auto& [alias, name] : lcf.aliases) {
        add(alias);
    }
    return json + "]}";
}

std::string api_error_json(ngx_uint_t status, const Problem& problem)
{
    const auto& code = problem.code.empty() ? code_of(status) : problem.code;
    std::string json = "{\"error\": {\"message\": ";
    append_json(
        json, problem.detail.empty() ? problem_detail(status) : problem.detail);
    json += ", \"type\": ";
    append_json(json, type_of(status));
    json += ", \"param\": ";
    append_or_null(json, problem.param);
    json += ", \"code\": ";
    append_or_null(json, code);
    return json + "}}";
}

const char* should_retry(ngx_uint_t status)
{
    return status == 408 || status == 409 || status == 429 || status == 503
               ? "true"
               : "false";
}

// All keys are compared, each in the same time.
std::string_view api_client(ngx_http_request_t* r)
{
    auto key = bearer_key(r);
    if (key.empty()) {
        return {};
    }

    auto given = sha256(key);
    std::string_view found;
    for (const auto& [name, digest] : loc_conf(r)->clients) {
        if (CRYPTO_memcmp(digest.data(), given.data(), given.size()) == 0) {
            found = name;
        }
    }
    return found;
}

char* set_protocol(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<ngx_uint_t>(conf, cmd);
    if (field != NGX_CONF_UNSET_UINT) {
        return duplicate;
    }

    auto value = view(args(cf)[1]);
    if (value != "chat" && value != "openai") {
        return fail(cf,
                    "invalid value \"%V\" in \"chatbot_protocol\": \"chat\" or "
                    "\"openai\" is expected",
                    &args(cf)[1]);
    }
    field = value == "chat" ? protocol_chat : protocol_openai;
    return conf_ok;
}

char* set_clients(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& file = field_of<ngx_str_t>(conf, cmd);
    if (file.data) {
        return duplicate;
    }

    file = args(cf)[1];
    if (view(file).starts_with("env:")) {
        auto name = std::string(view(file).substr(4));
        auto path = environment(cf, name.c_str());
        if (!path) {
            return conf_ok;  // nobody is a client
        }
        file = copy(cf->pool, *path);
    }

    std::string text;
    if (auto rv = read_file(cf, file, text); rv != conf_ok) {
        return rv;
    }

    auto& lcf = *static_cast<LocConf*>(static_cast<LocConfBase*>(conf));
    std::istringstream lines(text);
    std::string line;
    for (int number = 1; std::getline(lines, line); ++number) {
        auto first = line.find_first_not_of(" \t\r");
        if (first == line.npos || line[first] == '#') {
            continue;
        }
        Client client;
        if (!read_client(line, client)) {
            return fail(cf,
                        "line %d of \"%V\" of \"chatbot_clients\": NAME KEY or "
                        "NAME sha256:HEX is expected",
                        number, &args(cf)[1]);
        }
        lcf.clients.push_back(std::move(client));
    }
    return lcf.clients.empty()
               ? fail(cf, "no client in \"%V\" of \"chatbot_clients\"",
                      &args(cf)[1])
               : conf_ok;
}

char* set_alias(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto& lcf = *static_cast<LocConf*>(static_cast<LocConfBase*>(conf));
    for (int i : {1, 2}) {
        if (!valid_model(view(args(cf)[i]))) {
            return fail(cf, "invalid name \"%V\" in \"chatbot_model_alias\"",
                        &args(cf)[i]);
        }
    }
    lcf.aliases.emplace_back(view(args(cf)[1]), view(args(cf)[2]));
    return conf_ok;
}

}  // namespace chatbot
