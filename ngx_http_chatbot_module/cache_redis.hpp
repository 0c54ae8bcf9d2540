#pragma once

#include <memory>
#include <string>
#include <vector>

#include "exchange.hpp"

struct redisContext;

namespace chatbot {

// Where Redis is.  Two settings that are equal share a connection.
struct RedisSettings {
    std::string host;      // empty: a unix socket
    int port = 6379;
    std::string path;      // of the unix socket
    std::string user;      // empty: Redis' default user
    std::string password;  // empty: no AUTH
    int db = 0;
    bool tls = false;
    int timeout_ms = 250;  // of one round trip, connecting included

    bool operator==(const RedisSettings&) const = default;
};

// Reads redis://[user:password@]host[:port][/db], rediss://, unix:/path.
// Returns what is wrong with `url` ("invalid port"), or nullptr.
[[nodiscard]] const char* parse_redis_url(const std::string& url,
                                          RedisSettings& settings);

// One connection to Redis.
//
// Threads:  run() on a worker thread, the rest between two runs on the event
//           loop.  `stopping` is read by run() and must be safe to read there.
// Time:     a run takes at most settings.timeout_ms, whatever Redis does (name
//           resolution excepted), and ends early once *stopping is set.
class RedisCache {
public:
    RedisCache(RedisSettings settings, const volatile int* stopping);
    ~RedisCache();

    // Answers the whole batch in one round trip; connects if need be.  An item
    // whose reply did not come keeps the status "unavailable".  A value that
    // does not parse is a miss.
    void run(std::vector<CacheItem>& batch) noexcept;

    // Takes what should be logged since the last call.  A failure that lasts
    // is told once.
    [[nodiscard]] std::vector<Notice> take_notices();
};

}  // namespace chatbot
