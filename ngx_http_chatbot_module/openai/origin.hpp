#pragma once

#include <curl/curl.h>

#include <memory>
#include <string>
#include <vector>

namespace chatbot {

// Where a base URL leads, and what was learned of that.
struct Origin {
    std::string host;
    std::string port;
    std::string proxy;  // by which it is asked, if any
    bool https = false;
    bool numeric = false;  // the host is an address
    bool http1 = false;    // an https server that does not speak HTTP/2

    std::vector<std::string> addresses;

    // The addresses, as CURLOPT_RESOLVE wants them; shared with the transfers
    // that use them.  Null where the host is not looked up by us.
    std::shared_ptr<curl_slist> resolved;

    [[nodiscard]] bool may_speak_http2() const { return https && !http1; }
};

// `url` is a valid one.  Throws std::bad_alloc.
[[nodiscard]] Origin read_origin(const std::string& url,
                                 const std::string& proxy = "");

// Throws std::bad_alloc.
void set_addresses(Origin& origin, const std::vector<std::string>& addresses);

}  // namespace chatbot
