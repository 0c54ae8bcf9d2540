#include "openai/address.hpp"

#include <string_view>

namespace chatbot {
namespace {

const char* endpoint_of(ApiPath path)
{
    return path == ApiPath::responses ? "/responses" : "/chat/completions";
}

// "api.openai.com" of "https://api.openai.com/v1".
std::string_view host_of(std::string_view url)
{
    const auto scheme = url.find("://");
    if (scheme != url.npos) {
        url.remove_prefix(scheme + 3);
    }

    url = url.substr(0, url.find('/'));
    return url.substr(url.rfind('@') + 1);
}

std::string without_query(const std::string& url)
{
    return url.substr(0, url.find('?'));
}

}  // namespace

std::string address_of(const ModelServer& server, ApiPath path)
{
    const auto base = without_query(server.url);
    return base + endpoint_of(path) + server.url.substr(base.size());
}

std::string upstream(const ModelServer& server, ApiPath path)
{
    const auto base = without_query(server.url);
    const auto host = base.find(host_of(base));
    return "upstream " + base.substr(host) + endpoint_of(path);
}

}  // namespace chatbot
