#include <sstream>

#include "nginx/setters.hpp"
#include "text/digest.hpp"
#include "text/hex.hpp"

// Setters of the directives of the API.

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

}  // namespace

char* set_protocol(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    static_assert(protocol_chat == 0 && protocol_openai == 1);
    return set_word(cf, cmd, conf, "chat", "openai");
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
            return conf_ok;  // there are no clients
        }
        file = pool_copy(cf->pool, *path);
        if (!file.data) {
            return conf_error;
        }
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
            return conf_fail(
                cf,
                "line %d of \"%V\" of \"chatbot_clients\": NAME KEY or "
                "NAME sha256:HEX is expected",
                number, &args(cf)[1]);
        }
        lcf.clients.push_back(std::move(client));
    }
    return lcf.clients.empty()
               ? conf_fail(cf, "no client in \"%V\" of \"chatbot_clients\"",
                           &args(cf)[1])
               : conf_ok;
}

char* set_alias(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto& lcf = *static_cast<LocConf*>(static_cast<LocConfBase*>(conf));
    for (int i : {1, 2}) {
        if (!valid_model(view(args(cf)[i]))) {
            return conf_fail(cf,
                             "invalid name \"%V\" in \"chatbot_model_alias\"",
                             &args(cf)[i]);
        }
    }
    lcf.aliases.emplace_back(view(args(cf)[1]), view(args(cf)[2]));
    return conf_ok;
}

}  // namespace chatbot
