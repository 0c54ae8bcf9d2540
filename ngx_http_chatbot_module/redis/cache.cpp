#include "redis/cache.hpp"

#include <hiredis/hiredis.h>
#if __has_include(<hiredis/hiredis_ssl.h>)
#include <hiredis/hiredis_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#define CHATBOT_REDIS_TLS 1
#endif

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "redis/value.hpp"
#include "text/digest.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds stopping_check_interval{50};
constexpr std::size_t max_error_size = 200;
constexpr std::size_t kept_buffer_size = 256 * 1024;

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

// No command of ours is answered with an array, so nobody shall make us reserve
// memory for one.
redisReplyObjectFunctions* without_arrays(const redisReader& reader)
{
    static redisReplyObjectFunctions functions = [&] {
        auto changed = *reader.fn;
        changed.createArray = [](const redisReadTask*, auto) -> void* {
            return nullptr;
        };
        return changed;
    }();
    return &functions;
}

#ifdef CHATBOT_REDIS_TLS
// Made once: with it the certificates of all CAs are read.  Null if that fails.
SSL_CTX* tls_settings()
{
    static SSL_CTX* const made = [] {
        SSL_CTX* tls = SSL_CTX_new(TLS_client_method());
        if (tls && !SSL_CTX_set_default_verify_paths(tls)) {
            SSL_CTX_free(std::exchange(tls, nullptr));
        }
        if (tls) {
            SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, nullptr);
            SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
        }
        return tls;
    }();
    return made;
}
#endif

// Whether there is nothing to read, not even the end: what came unasked would
// be taken for the reply to the next command.
bool is_quiet(const redisContext& context)
{
    pollfd event{context.fd, POLLIN, 0};
    return context.reader->pos == context.reader->len &&
           poll(&event, 1, 0) == 0;
}

// Under which name Redis keeps what has this key.
std::string name_of(const Key& key)
{
    return "chatbot:" + hex(key);
}

}  // namespace

void RedisCache::Deleter::operator()(redisContext* context) const
{
    redisFree(context);
}

void RedisCache::Deleter::operator()(redisReply* reply) const
{
    freeReplyObject(reply);
}

RedisCache::RedisCache(RedisSettings settings, Stopping stopping)
    : settings_(std::move(settings)),
      stopping_(std::move(stopping))
{
}

RedisCache::~RedisCache() = default;

void RedisCache::run(std::vector<CacheItem>& batch) noexcept
try {
    for (CacheItem& item : batch) {
        item.status = CacheItem::Status::unavailable;
    }

    deadline_ = Clock::now() + milliseconds(settings_.timeout_ms);
    if (context_ && (demoted_ || !is_quiet(*context_))) {
        context_.reset();
    }

    const bool fresh = !context_;
    if ((fresh && !connect()) || !exchange(batch, fresh)) {
        return;
    }

    if (!lost_.empty()) {
        lost_.clear();
        tell(Notice::Level::notice, "answers again");
    }
} catch (const std::bad_alloc&) {
    context_.reset();  // its replies would meet the wrong items
}

std::vector<Notice> RedisCache::take_notices()
{
    return std::exchange(notices_, {});
}

// Begins to connect; the commands appended from here on are sent once it is
// done.
bool RedisCache::connect()
{
    demoted_ = false;
    context_.reset(
        settings_.host.empty()
            ? redisConnectUnixNonBlock(settings_.path.c_str())
            : redisConnectNonBlock(settings_.host.c_str(), settings_.port));
    if (!context_) {
        throw std::bad_alloc();
    }
    if (context_->err) {
        return lose(context_->errstr);
    }

    context_->reader->fn = without_arrays(*context_->reader);
    context_->reader->maxbuf = kept_buffer_size;
    if (settings_.tls && !start_tls()) {
        return false;
    }

    // To resolve the name and to read certificates has taken its own time.
    deadline_ = Clock::now() + milliseconds(settings_.timeout_ms);

    if (!settings_.password.empty() && settings_.user.empty()) {
        append({"AUTH", settings_.password});
    } else if (!settings_.password.empty()) {
        append({"AUTH", settings_.user, settings_.password});
    }
    if (settings_.db) {
        append({"SELECT", std::to_string(settings_.db)});
    }

    return true;
}

bool RedisCache::start_tls()
{
#ifdef CHATBOT_REDIS_TLS
    using Session = std::unique_ptr<SSL, decltype(&SSL_free)>;

    Session session(SSL_new(tls_settings()), SSL_free);
    if (!session) {
        return lose("TLS cannot be set up");
    }

    // hiredis itself would check the chain only, not the name.
    const char* host = settings_.host.c_str();
    if (!X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session.get()), host) &&
        (!SSL_set1_host(session.get(), host) ||
         !SSL_set_tlsext_host_name(session.get(), host))) {
        return lose("TLS cannot be set up");
    }

    ERR_clear_error();
    if (redisInitiateSSL(context_.get(), session.get()) != REDIS_OK) {
        return lose(context_->errstr);
    }

    (void)session.release();  // it is the context's now
#endif
    return true;
}

void RedisCache::append(const CacheItem& item)
{
    switch (item.kind) {
        case CacheItem::Kind::lookup:
            return append({"GET", name_of(item.key)});
        case CacheItem::Kind::store:
            return append({"SET", name_of(item.key),
                           write_cache_value(item.answer), "EX",
                           std::to_string(item.expire_s)});
        case CacheItem::Kind::probe:
            return append({"PING"});
    }
}

void RedisCache::append(std::initializer_list<std::string_view> command)
{
    const char* words[5];
    std::size_t sizes[5];
    int count = 0;
    for (std::string_view word : command) {
        words[count] = word.data();
        sizes[count] = word.size();
        count++;
    }

    if (redisAppendCommandArgv(context_.get(), count, words, sizes) !=
        REDIS_OK) {
        throw std::bad_alloc();
    }
    unsent_ = true;
}

// Sends the batch and takes the replies, which come in the same order.
bool RedisCache::exchange(std::vector<CacheItem>& batch, bool fresh)
{
    for (const CacheItem& item : batch) {
        append(item);
    }

    if (fresh && !settings_.password.empty() && !greeted("AUTH")) {
        return false;
    }
    if (fresh && settings_.db && !greeted("SELECT")) {
        return false;
    }

    for (CacheItem& item : batch) {
        const Reply reply = next_reply();
        if (!reply || !take(*reply, item)) {
            return false;
        }
    }

    return true;
}

// Takes the reply to a command of connect().
bool RedisCache::greeted(const char* command)
{
    const Reply reply = next_reply();
    if (!reply) {
        return false;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        std::string_view error(reply->str, reply->len);
        if (command == std::string_view("AUTH")) {
            error = code_of(error);  // the rest may repeat the password
        }
        return lose(command + (" is refused: " + std::string(error)));
    }

    return true;
}

// Null if the connection was lost.
RedisCache::Reply RedisCache::next_reply()
{
    const redisReader& reader = *context_->reader;
    for (;;) {
        void* reply = nullptr;
        if (redisReaderGetReply(context_->reader, &reply) != REDIS_OK ||
            (!reply && reader.len - reader.pos > max_reply_size)) {
            lose("answers nonsense");
            return nullptr;
        }
        if (reply) {
            return Reply(static_cast<redisReply*>(reply));
        }
        if (!move()) {
            return nullptr;
        }
    }
}

// Waits, then sends and receives what can be.  Does both at any time, or a
// batch larger than the sockets' buffers would get stuck.
bool RedisCache::move()
{
    pollfd event{context_->fd, POLLIN, 0};
    if (unsent_) {
        event.events |= POLLOUT;
    }

    int ready = 0;
    while (ready == 0) {
        const auto left =
            std::chrono::ceil<milliseconds>(deadline_ - Clock::now());
        if (left <= milliseconds(0)) {
            return lose("no answer within " +
                        std::to_string(settings_.timeout_ms) + " ms");
        }

        const auto time = std::min(left, stopping_check_interval);
        ready = poll(&event, 1, static_cast<int>(time.count()));
        if (ready < 0 && errno != EINTR) {
            return lose(std::strerror(errno));
        }
        if (ready == 0 && stopping_()) {
            context_.reset();
            return false;
        }
    }

    const auto wants = [&](int what) {
        return event.revents & (what | POLLERR | POLLHUP);
    };
    if (unsent_ && wants(POLLOUT)) {
        int done = 0;
        if (redisBufferWrite(context_.get(), &done) != REDIS_OK) {
            return lose(context_->errstr);
        }
        unsent_ = !done;
    }
    if (wants(POLLIN) && redisBufferRead(context_.get()) != REDIS_OK) {
        return lose(context_->errstr);
    }

    return true;
}

// Returns false if the connection was given up.
bool RedisCache::take(const redisReply& reply, CacheItem& item)
{
    using Status = CacheItem::Status;

    if (reply.type == REDIS_REPLY_ERROR) {
        return refused({reply.str, reply.len}, item);
    }

    refuses_[static_cast<int>(item.kind)] = false;
    if (item.kind != CacheItem::Kind::lookup) {
        item.status = Status::done;
        return true;
    }

    item.status = Status::miss;
    if (reply.type == REDIS_REPLY_STRING) {
        if (auto answer = read_cache_value({reply.str, reply.len})) {
            item.answer = std::move(*answer);
            item.status = Status::hit;
        }
    }

    return true;
}

bool RedisCache::refused(std::string_view error, CacheItem& item)
{
    const std::string_view code = code_of(error);
    if (concerns_all(code)) {
        return lose(error);
    }

    if (item.kind == CacheItem::Kind::lookup && code == "WRONGTYPE") {
        item.status = CacheItem::Status::miss;
        return true;
    }

    demoted_ = demoted_ || code == "READONLY";

    constexpr const char* names[] = {"a lookup", "to store", "a probe"};
    const int kind = static_cast<int>(item.kind);
    if (!std::exchange(refuses_[kind], true)) {
        tell(Notice::Level::error,
             "refuses " +
                 (names[kind] + (": " + one_line(error, max_error_size))));
    }
    return true;
}

// Gives the connection up.  Returns false for convenience.
bool RedisCache::lose(std::string_view reason)
{
    std::string told = one_line(reason, max_error_size);
#ifdef CHATBOT_REDIS_TLS
    const char* tls_reason =
        settings_.tls ? ERR_reason_error_string(ERR_peek_last_error())
                      : nullptr;
    if (tls_reason) {
        told = tls_reason;
    }
#endif

    context_.reset();
    if (lost_ != told) {
        lost_ = told;
        tell(Notice::Level::error, told);
    }

    return false;
}

void RedisCache::tell(Notice::Level level, const std::string& text)
{
    const std::string where =
        settings_.host.empty()
            ? "unix:" + settings_.path
            : settings_.host + ":" + std::to_string(settings_.port);
    notices_.push_back({level, "redis " + where + ": " + text});
}

}  // namespace chatbot
