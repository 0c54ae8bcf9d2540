#include "redis/cache.hpp"

#include <hiredis/hiredis.h>

#include <algorithm>
#include <new>
#include <tuple>
#include <utility>

#include "redis/value.hpp"
#include "text/hex.hpp"
#include "text/invariant.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_error_size = 200;

// "OOM" of "OOM command not allowed when used memory > 'maxmemory'."
std::string_view code_of(std::string_view error)
{
    return error.substr(0, error.find(' '));
}

// Whether any other command would be refused as well.
bool concerns_all(std::string_view code)
{
    return code == "NOAUTH" || code == "WRONGPASS" || code == "LOADING" ||
           code == "MASTERDOWN" || code == "DENIED";
}

// Redis says so to a new connection, whatever it asks, and closes it.
bool is_full(std::string_view error)
{
    return error.find("max number of clients") != error.npos;
}

// What to do about an error of authentication; empty if it is none.
std::string auth_advice(std::string_view error)
{
    const auto code = code_of(error);
    if (error.find("without any password") != error.npos ||
        error.find("no password is set") != error.npos) {
        return " (this Redis has no password: remove it from \"chatbot_redis\" "
               "or REDIS_PASSWORD, or set \"requirepass\" in Redis)";
    }
    if (error.find("wrong number of arguments") != error.npos) {
        return " (a Redis before version 6 has no users: leave the user out)";
    }
    if (code == "WRONGPASS") {
        return " (the user or the password in \"chatbot_redis\", REDIS_URL or "
               "REDIS_PASSWORD is wrong)";
    }
    if (is_full(error)) {
        return " (as many clients are connected as its \"maxclients\" allows)";
    }
    if (code == "DENIED") {
        return " (its \"protected-mode\" is on, as it has no password)";
    }
    if (code == "NOAUTH") {
        return " (set the password in \"chatbot_redis\" or REDIS_PASSWORD)";
    }
    return "";
}

// Under which name Redis keeps what has this key.
std::string name_of(const Key& key)
{
    constexpr std::string_view prefix = "chatbot:";

    std::string name;
    name.reserve(prefix.size() + 2 * key.size());
    name = prefix;
    for (auto byte : key) {
        append_hex(name, byte);
    }
    return name;
}

}  // namespace

RedisCache::RedisCache(RedisSettings settings, Poller& poller,
                       Resolver& resolver, Found found, Measure measure)
    : settings_(std::move(settings)),
      found_(std::move(found)),
      measure_(std::move(measure)),
      connection_(settings_, poller, resolver, *this)
{
}

bool RedisCache::look_up(FlightId flight, const Key& key)
{
    if (!health_.up() || !connect()) {
        return false;
    }

    send(Command::lookup, {"GET", name_of(key)}, flight);
    return true;
}

void RedisCache::store(const Key& key, int expire_s,
                       const Answer& answer) noexcept
try {
    const auto value = write_cache_value(answer);
    if (value.size() > RedisConnection::max_reply_size || !health_.up() ||
        !connect() || connection_.unsent() > max_unsent) {
        return;
    }

    send(Command::store,
         {"SET", name_of(key), value, "EX", std::to_string(expire_s)});
} catch (const std::bad_alloc&) {
    // The answer is not kept.
}

// Whether there is a connection, or one is being made.
bool RedisCache::connect()
{
    if (demoted_ && pending_.empty()) {
        connection_.close();
        connection_.doubt_host();
    }
    if (connection_.is_open()) {
        return true;
    }

    demoted_ = false;
    opening_ = true;
    try {
        connection_.open();
        opening_ = false;
        if (connection_.is_open()) {
            log_in();
        }
    } catch (const std::bad_alloc&) {
        opening_ = false;
        pending_.clear();  // what log_in() sent
        connection_.close();
        throw;
    }
    return connection_.is_open();
}

void RedisCache::log_in()
{
    const auto& [user, password] = std::tie(settings_.user, settings_.password);
    if (!password.empty()) {
        user.empty() ? send(Command::auth, {"AUTH", password})
                     : send(Command::auth, {"AUTH", user, password});
    }
    if (settings_.db) {
        send(Command::select, {"SELECT", std::to_string(settings_.db)});
    }
}

void RedisCache::send(Command command,
                      std::initializer_list<std::string_view> words,
                      FlightId flight)
{
    const auto deadline =
        Clock::now() + std::chrono::milliseconds(settings_.timeout_ms);
    pending_.push_back(
        {.command = command, .flight = flight, .deadline = deadline});
    try {
        connection_.send(words);
    } catch (const std::bad_alloc&) {
        pending_.pop_back();
        throw;
    }
}

Clock::time_point RedisCache::deadline() const
{
    return pending_.empty()
               ? health_.probe_at()
               : std::min(pending_.front().deadline, health_.probe_at());
}

void RedisCache::on_time(Clock::time_point now)
{
    if (!pending_.empty() && pending_.front().deadline <= now) {
        lose(std::string("no ") + connection_.awaited() + " within " +
             std::to_string(settings_.timeout_ms) +
             " ms (chatbot_redis_timeout)");
    }

    if (health_.take_probe(now)) {
        probe(now);
    }
}

void RedisCache::probe(Clock::time_point now)
try {
    if (connect()) {
        send(Command::probe, {"PING"});
    }
} catch (const std::bad_alloc&) {
    health_.on_failure(now);  // there will be another one
}

void RedisCache::on_reply(const redisReply& reply)
{
    if (!invariant(pending_.size() == connection_.owed() + 1,
                   "a reply to a command that is not known")) {
        lose("sent an invalid reply");
        return;
    }

    if (reply.type == REDIS_REPLY_ERROR) {
        on_refusal({reply.str, reply.len});
        return;
    }

    switch (pending_.front().command) {
        case Command::auth:
        case Command::select:
            pending_.pop_front();
            return;
        case Command::lookup:
            on_value(reply);
            refuses_[0] = false;
            break;
        case Command::store:
            pending_.pop_front();
            refuses_[1] = false;
            break;
        case Command::probe:
            pending_.pop_front();
            break;
    }

    if (!health_.up()) {
        tell(Notice::Level::notice,
             outage_.recover("answers again", Clock::now()));
    }
    health_.on_success();
}

void RedisCache::measure(const Pending& pending) const
{
    if (measure_) {
        const auto sent =
            pending.deadline - std::chrono::milliseconds(settings_.timeout_ms);
        measure_(std::chrono::duration_cast<std::chrono::microseconds>(
            Clock::now() - sent));
    }
}

void RedisCache::on_value(const redisReply& reply)
{
    auto found = reply.type == REDIS_REPLY_STRING
                     ? read_cache_value({reply.str, reply.len})
                     : std::nullopt;
    const Pending pending = pending_.front();
    pending_.pop_front();
    measure(pending);
    found_(pending.flight, std::move(found));
}

// Why all commands are refused.
std::string RedisCache::describe(Command command, std::string_view error)
{
    switch (command) {
        case Command::auth:
            // The rest may repeat the password.
            return "AUTH is refused: " + std::string(code_of(error)) +
                   auth_advice(error);
        case Command::select:
            return "SELECT is refused: " + std::string(error);
        default:
            return std::string(error) + auth_advice(error);
    }
}

void RedisCache::on_refusal(std::string_view error)
{
    const Pending pending = pending_.front();
    const auto code = code_of(error);
    if (pending.command == Command::auth ||
        pending.command == Command::select || concerns_all(code) ||
        is_full(error)) {
        lose(describe(pending.command, error));
        return;
    }

    // Redis answers, if only to refuse this key.
    health_.on_success();
    const bool is_store = pending.command == Command::store;
    const bool is_cluster =
        code == "MOVED" || code == "ASK" || code == "CLUSTERDOWN";
    bool& is_told = is_cluster ? tells_cluster_ : refuses_[is_store];
    demoted_ = demoted_ || code == "READONLY";

    if (code != "WRONGTYPE" && pending.command != Command::probe &&
        !std::exchange(is_told, true)) {
        tell(Notice::Level::error,
             std::string(is_store ? "refuses to store: "
                                  : "refuses a lookup: ") +
                 one_line(error, max_error_size) +
                 (is_cluster ? " (nodes of a Redis Cluster are not supported)"
                             : ""));
    }
    pending_.pop_front();
    if (pending.command == Command::lookup) {
        found_(pending.flight, std::nullopt);
    }
}

void RedisCache::lose(std::string_view reason)
{
    const auto told = one_line(reason, max_error_size);
    connection_.close();
    on_lost(told);
}

void RedisCache::on_lost(const std::string& reason)
{
    std::deque<Pending> lost;
    lost.swap(pending_);
    if (lost.empty() && !opening_) {
        return;  // an idle connection, which is made anew when it is needed
    }

    health_.on_failure(Clock::now());
    for (const auto& pending : lost) {
        if (pending.command == Command::lookup) {
            found_(pending.flight, std::nullopt);
        }
    }
    tell(Notice::Level::error, outage_.fail(reason, Clock::now()),
         " fails, the model is asked meanwhile");
}

std::vector<Notice> RedisCache::take_notices()
{
    return std::exchange(notices_, {});
}

void RedisCache::tell(Notice::Level level, const std::string& text,
                      const char* state)
{
    if (text.empty()) {
        return;
    }

    const std::string where =
        settings_.host.empty()
            ? "unix:" + settings_.path
            : settings_.host + ":" + std::to_string(settings_.port);
    notices_.push_back({level, "redis " + where + state + ": " + text});
}

}  // namespace chatbot
