#include "nginx/api.hpp"

#include <openssl/crypto.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "core/api_request.hpp"
#include "nginx/endpoint.hpp"
#include "nginx/output.hpp"
#include "text/digest.hpp"
#include "text/json.hpp"

// The endpoint "chatbot_protocol openai": OpenAI's API, as its SDKs speak it.

namespace chatbot {

namespace {

// What a request below the location asks for.
enum class Path { none, completions, responses, models };

Path path_of(const ngx_http_request_t* r)
{
    auto uri = view(r->uri);
    if (uri.ends_with("/chat/completions")) {
        return Path::completions;
    }
    if (uri.ends_with("/responses")) {
        return Path::responses;
    }
    return uri.ends_with("/models") ? Path::models : Path::none;
}

ngx_uint_t method_of(Path path)
{
    return path == Path::models ? NGX_HTTP_GET : NGX_HTTP_POST;
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

ngx_uint_t refuse(ngx_http_request_t* r)
{
    auto path = path_of(r);
    if (path == Path::none) {
        return NGX_HTTP_NOT_FOUND;
    }
    if (loc_conf(r)->clients_file.data && api_client(r).empty()) {
        return NGX_HTTP_UNAUTHORIZED;
    }
    return r->method & method_of(path) ? 0 : NGX_HTTP_NOT_ALLOWED;
}

// client_max_body_size is the limit.
std::size_t body_max_size(const LocConf&)
{
    return std::numeric_limits<std::size_t>::max();
}

const std::vector<std::string>& names_of(const LocConf& lcf)
{
    const auto& model = *lcf.route->model;
    return model.servers.empty() ? model.models : model.servers[0].models;
}

// Checks the model that is asked for, and resolves its alias.
Problem find_model(const LocConf& lcf, std::string& model)
{
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

Problem read(ngx_http_request_t* r, std::string_view body, Wanted& wanted)
{
    const auto& lcf = *loc_conf(r);
    wanted.client_name = api_client(r);
    if (path_of(r) == Path::models) {
        wanted.status = NGX_HTTP_OK;
        wanted.body = models_json(lcf);
        return {};
    }

    ApiRequest request;
    const bool responses = path_of(r) == Path::responses;
    request.call.path = responses ? ApiPath::responses : ApiPath::completions;
    auto wrong = read_api_request(body, request);
    if (!wrong) {
        wrong = find_model(lcf, request.call.model);
    }
    wanted.text = std::move(request.question);
    wanted.api = std::move(request.call);
    wanted.canonical = std::move(request.canonical);
    wanted.form = !request.stream ? AnswerForm::json
                  : responses     ? AnswerForm::relayed
                                  : AnswerForm::chunks;
    wanted.include_usage = request.include_usage;
    return wrong;
}

std::optional<Key> key(const LocConf& lcf, const Wanted& wanted)
{
    if (wanted.api.path == ApiPath::responses) {
        return std::nullopt;  // it may go on with one that the upstream keeps
    }
    return digest(
        {"openai", wanted.canonical, wanted.api.model, lcf.key_suffix});
}

std::string_view body_of(const Answer& answer, bool, std::string&)
{
    return answer.reply;
}

std::string_view stream_of(const Answer& answer)
{
    // A flight that failed has its events as the text.
    return answer.reply.empty() ? answer.text : answer.events;
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

// {"error": {"message", "type", "param", "code"}}
std::string write_error(ngx_uint_t status, const Problem& problem)
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

// Whether OpenAI's SDKs are to try again.
const char* should_retry(ngx_uint_t status)
{
    return status == 408 || status == 409 || status == 429 || status == 503
               ? "true"
               : "false";
}

ngx_int_t add_error_headers(ngx_http_request_t* r, ngx_uint_t status)
{
    if (add_header(r, "x-should-retry", should_retry(status)) != NGX_OK) {
        return NGX_ERROR;
    }
    switch (status) {
        case NGX_HTTP_UNAUTHORIZED:
            return add_header(r, "WWW-Authenticate", "Bearer");
        case NGX_HTTP_NOT_ALLOWED:
            return add_header(r, "Allow",
                              path_of(r) == Path::models ? "GET" : "POST");
        default:
            return NGX_OK;
    }
}

}  // namespace

const Endpoint& api_endpoint()
{
    static constexpr Endpoint endpoint = {
        .refuse = refuse,
        .body_max_size = body_max_size,
        .read = read,
        .key = key,
        .body_of = body_of,
        .stream_of = stream_of,
        .error_type = "application/json",
        .write_error = write_error,
        .add_error_headers = add_error_headers,
    };
    return endpoint;
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

}  // namespace chatbot
