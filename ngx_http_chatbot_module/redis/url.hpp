#pragma once

#include <string>

namespace chatbot {

// Where Redis is.  Two settings that are equal share a connection.
struct RedisSettings {
    std::string host;  // empty: a unix socket
    int port = 6379;
    std::string path;      // of the unix socket
    std::string user;      // empty: Redis' default user
    std::string password;  // empty: no AUTH
    int db = 0;
    bool tls = false;
    int timeout_ms = 250;  // of one round trip, connecting included

    bool operator==(const RedisSettings&) const = default;
};

// Reads redis://[user:password@]host[:port][/db], rediss://, unix:/path; user
// and password are percent-decoded.  Leaves timeout_ms alone.  Returns what is
// wrong with `url` ("invalid port"), or nullptr; then only is `settings`
// changed.
[[nodiscard]] const char* parse_redis_url(const std::string& url,
                                          RedisSettings& settings);

}  // namespace chatbot
