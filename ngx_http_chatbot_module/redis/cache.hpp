#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/cache_health.hpp"
#include "core/exchange.hpp"
#include "core/outage.hpp"
#include "redis/connection.hpp"

namespace chatbot {

// Answers kept in Redis: lookups and stores, pipelined on one connection.
//
// Threads:  all on the thread of the poller.
// Time:     a lookup waits for settings.timeout_ms at most, whatever Redis
//           does, and not at all while Redis is known to be down; a probe at
//           growing intervals finds out when it is back.
// Memory:   where there is none, look_up() throws std::bad_alloc and `found` is
//           not called; a store is left out; what waits for a reply is a miss.
class RedisCache final : RedisConnection::Owner {
public:
    // Empty: a miss, or Redis gave no answer.  Never called from within
    // look_up().  Must not throw.
    using Found = std::function<void(FlightId, std::optional<Answer>&&)>;

    // How long a lookup took, with an answer to it.
    using Measure = std::function<void(std::chrono::microseconds)>;

    RedisCache(RedisSettings settings, Poller& poller, Resolver& resolver,
               Found found, Measure measure = {});

    RedisCache(const RedisCache&) = delete;
    RedisCache& operator=(const RedisCache&) = delete;

    // False: Redis is known to be down.
    [[nodiscard]] bool look_up(FlightId flight, const Key& key);

    // An answer that is too large, or comes while Redis is down or behind, is
    // not stored.
    void store(const Key& key, int expire_s, const Answer& answer) noexcept;

    // Sends what was asked for since the last call.
    void flush() { connection_.flush(); }

    // To be called when the deadline() has come.
    [[nodiscard]] Clock::time_point deadline() const;
    void on_time(Clock::time_point now);

    // Whether Redis can be asked, as far as is known.
    [[nodiscard]] bool up() const { return health_.up(); }

    // Whether Redis owes a reply.
    [[nodiscard]] bool busy() const { return !pending_.empty(); }

    // Takes what should be logged since the last call.
    [[nodiscard]] std::vector<Notice> take_notices();

    // What Redis takes without an answer to it; more is not stored.
    static constexpr std::size_t max_unsent = 64 * 1024 * 1024;

private:
    enum class Command { auth, select, lookup, store, probe };

    struct Pending {
        Command command;
        FlightId flight;  // of a lookup
        Clock::time_point deadline;
    };

    bool connect();
    void log_in();
    void send(Command command, std::initializer_list<std::string_view> words,
              FlightId flight = 0);
    void probe(Clock::time_point now);
    void on_reply(const redisReply& reply) override;
    void on_lost(const std::string& reason) override;
    void measure(const Pending& pending) const;
    void on_value(const redisReply& reply);
    void on_refusal(std::string_view error);
    static std::string describe(Command command, std::string_view error);
    void lose(std::string_view reason);
    void tell(Notice::Level level, const std::string& text,
              const char* state = "");

    const RedisSettings settings_;
    const Found found_;
    const Measure measure_;
    CacheHealth health_;
    std::deque<Pending> pending_;  // in the order of the replies
    bool opening_ = false;         // in connect(): a loss is a failure
    bool demoted_ = false;         // the name may mean another Redis by now
    Outage outage_;
    bool refuses_[2] = {};        // lookups, stores: told already
    bool tells_cluster_ = false;  // told once: other keys are elsewhere
    std::vector<Notice> notices_;
    RedisConnection connection_;  // uses the settings
};

}  // namespace chatbot
