#include "openai/origin.hpp"

#include <memory>
#include <new>
#include <string_view>

namespace chatbot {
namespace {

std::string part_of(CURLU* url, CURLUPart part, unsigned flags = 0)
{
    char* text = nullptr;
    if (curl_url_get(url, part, &text, flags) == CURLUE_OUT_OF_MEMORY) {
        throw std::bad_alloc();
    }

    const std::unique_ptr<char, decltype(&curl_free)> owned(text, curl_free);
    return text ? text : "";
}

bool is_address(std::string_view host)
{
    return host.starts_with('[') ||
           host.find_first_not_of("0123456789.") == host.npos;
}

}  // namespace

Origin read_origin(const std::string& text, const std::string& proxy)
{
    const std::unique_ptr<CURLU, decltype(&curl_url_cleanup)> url(
        curl_url(), &curl_url_cleanup);
    if (!url || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) ==
                    CURLUE_OUT_OF_MEMORY) {
        throw std::bad_alloc();
    }

    Origin origin;
    origin.host = part_of(url.get(), CURLUPART_HOST);
    origin.port = part_of(url.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
    origin.proxy = proxy;
    origin.https = part_of(url.get(), CURLUPART_SCHEME) == "https";
    origin.numeric = is_address(origin.host);
    return origin;
}

void set_addresses(Origin& origin, const std::vector<std::string>& addresses)
{
    if (origin.addresses == addresses) {
        return;
    }

    std::string line = origin.host + ":" + origin.port + ":";
    for (const auto& address : addresses) {
        line += (line.back() == ':' ? "" : ",") + address;
    }

    const auto list = curl_slist_append(nullptr, line.c_str());
    if (!list) {
        throw std::bad_alloc();
    }
    origin.resolved.reset(list, curl_slist_free_all);
    origin.addresses = addresses;
}

}  // namespace chatbot
