#pragma once

#include <openssl/ssl.h>

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/poller.hpp"
#include "core/resolver.hpp"
#include "redis/url.hpp"

struct redisReader;
struct redisReply;

namespace chatbot {

// One connection to Redis: commands out, replies in, without blocking.
// hiredis reads the replies; the socket is ours, since hiredis' own connects
// blocking for TLS, resolves names blocking, and tries one address only.
//
// Threads:  all on the thread of the poller.  SIGPIPE must be ignored.
// Memory:   what is sent is kept until Redis takes it; a reply is bounded by
//           max_reply_size.
class RedisConnection final : Watcher {
public:
    // What the connection tells.  May call close(), open() and send().
    class Owner {
    public:
        virtual void on_reply(const redisReply& reply) = 0;

        // The connection is closed; `reason` says why, in one line.
        virtual void on_lost(const std::string& reason) = 0;

    protected:
        ~Owner() = default;
    };

    RedisConnection(const RedisSettings& settings, Poller& poller,
                    Resolver& resolver, Owner& owner);
    ~RedisConnection();

    RedisConnection(const RedisConnection&) = delete;
    RedisConnection& operator=(const RedisConnection&) = delete;

    // Begins to connect; each address of the host is tried.  May call
    // on_lost() at once.  REQUIRES: !is_open().
    void open();
    void close();
    [[nodiscard]] bool is_open() const { return stage_ != Stage::closed; }

    // Appends a command, which one on_reply() or the loss of the connection
    // answers; flush() sends what was appended, as soon as there is a
    // connection.  REQUIRES: is_open().
    void send(std::initializer_list<std::string_view> command);
    void flush();

    // Bytes that Redis has not taken yet.
    [[nodiscard]] std::size_t unsent() const { return out_.size() - sent_; }

    // Commands without a reply.
    [[nodiscard]] std::size_t owed() const { return owed_; }

    static constexpr std::size_t max_reply_size = 16 * 1024 * 1024;

private:
    enum class Stage { closed, resolving, connecting, handshaking, ready };
    enum class Io { done, again, failed };

    struct FreeReader {
        void operator()(redisReader* reader) const;
    };
    struct FreeReply {
        void operator()(redisReply* reply) const;
    };

    void on_ready(int fd, unsigned ready) override;
    void on_resolved(const Resolver::Result& result);
    void connect_next();
    [[nodiscard]] bool connect_to(const std::string& address);
    [[nodiscard]] bool connect_unix();
    [[nodiscard]] bool connect_socket(const void* address, unsigned size);
    void on_connected();
    void shake_hands();
    void set_ready();
    void close_socket();
    void watch(unsigned what);
    void lose(std::string_view reason);
    [[nodiscard]] bool start_tls();
    [[nodiscard]] std::string tls_reason() const;
    [[nodiscard]] Io write_some();
    [[nodiscard]] Io read_some();
    [[nodiscard]] Io tls_result(int result);
    void read();
    void take_replies();

    const RedisSettings& settings_;
    Poller& poller_;
    Resolver& resolver_;
    Owner& owner_;

    Stage stage_ = Stage::closed;
    int fd_ = -1;
    unsigned watched_ = 0;         // by the poller
    std::shared_ptr<bool> alive_;  // false: a lookup's result comes too late
    std::vector<std::string> addresses_;
    std::size_t next_address_ = 0;
    std::string refused_;  // why the last address was of no use
    std::unique_ptr<SSL, decltype(&SSL_free)> tls_{nullptr, SSL_free};
    std::unique_ptr<redisReader, FreeReader> reader_;
    std::string out_;
    std::size_t sent_ = 0;
    std::size_t owed_ = 0;
};

}  // namespace chatbot
