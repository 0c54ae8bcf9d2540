#pragma once

#include <chrono>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/exchange.hpp"
#include "redis/url.hpp"

struct redisContext;
struct redisReply;

namespace chatbot {

// One connection to Redis.
//
// Threads:  run() on a worker thread, the rest between two runs on the event
//           loop.  SIGPIPE must be ignored.
// Time:     a run takes at most settings.timeout_ms, whatever Redis does (name
//           resolution excepted), and does not wait once stopping().
// Memory:   a reply larger than max_reply_size is taken for nonsense.
class RedisCache {
public:
    RedisCache(RedisSettings settings, Stopping stopping);
    ~RedisCache();

    RedisCache(const RedisCache&) = delete;
    RedisCache& operator=(const RedisCache&) = delete;

    // Answers the whole batch in one round trip; connects if need be.  An item
    // whose reply did not come keeps the status "unavailable", as does one that
    // Redis refused.  A value that does not parse is a miss.
    void run(std::vector<CacheItem>& batch) noexcept;

    // Takes what should be logged since the last call.  A failure that lasts
    // is told once.
    [[nodiscard]] std::vector<Notice> take_notices();

    static constexpr std::size_t max_reply_size = 16 * 1024 * 1024;

private:
    struct Deleter {
        void operator()(redisContext* context) const;
        void operator()(redisReply* reply) const;
    };
    using Context = std::unique_ptr<redisContext, Deleter>;
    using Reply = std::unique_ptr<redisReply, Deleter>;
    using Clock = std::chrono::steady_clock;

    bool connect();
    bool start_tls();
    void append(const CacheItem& item);
    void append(std::initializer_list<std::string_view> command);
    bool exchange(std::vector<CacheItem>& batch, bool fresh);
    bool greeted(const char* command);
    Reply next_reply();
    bool move();
    bool take(const redisReply& reply, CacheItem& item);
    bool refused(std::string_view error, CacheItem& item);
    bool lose(std::string_view reason);
    void tell(Notice::Level level, const std::string& text);

    const RedisSettings settings_;
    const Stopping stopping_;

    Context context_;
    Clock::time_point deadline_;  // of this run
    bool unsent_ = false;         // some of the commands may be
    bool demoted_ = false;        // the name may mean another Redis by now

    std::string lost_;      // why, as told; empty: all is well
    bool refuses_[3] = {};  // by CacheItem::Kind: told already
    std::vector<Notice> notices_;
};

}  // namespace chatbot
