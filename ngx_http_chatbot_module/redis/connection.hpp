#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/poller.hpp"
#include "core/resolver.hpp"
#include "redis/socket.hpp"
#include "redis/url.hpp"

struct redisReader;
struct redisReply;

namespace chatbot {

// One connection to Redis: commands out, replies in, without blocking.
// hiredis reads the replies; the socket is ours, since that of hiredis connects
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
    // on_lost() at once.  After std::bad_alloc, close() is to be called.
    // REQUIRES: !is_open().
    void open();
    void close();
    [[nodiscard]] bool is_open() const { return stage_ != Stage::closed; }

    // Appends a command, which one on_reply() or the loss of the connection
    // answers; flush() sends what was appended, as soon as there is a
    // connection.  std::bad_alloc: nothing was appended.  REQUIRES: is_open().
    void send(std::initializer_list<std::string_view> command);
    void flush();

    // The host may have another address by now.
    void doubt_host();

    // What is missing as long as there is no reply, for the log.
    [[nodiscard]] const char* awaited() const;

    // Bytes that Redis has not taken yet.
    [[nodiscard]] std::size_t unsent() const { return out_.size() - sent_; }

    // Commands without a reply.
    [[nodiscard]] std::size_t owed() const { return owed_; }

    static constexpr std::size_t max_reply_size = 16 * 1024 * 1024;

private:
    enum class Stage { closed, resolving, connecting, handshaking, ready };
    using Io = RedisSocket::Io;

    struct FreeReader {
        void operator()(redisReader* reader) const;
    };
    struct FreeReply {
        void operator()(redisReply* reply) const;
    };

    void on_ready(int fd, unsigned ready) override;
    void on_resolved(const Resolver::Result& result);
    void connect_next();
    void on_connected();
    void shake_hands();
    void set_ready();
    void lose(std::string_view reason);
    [[nodiscard]] Io write_some();
    [[nodiscard]] Io read_some();
    void read();
    void take_replies();

    const RedisSettings& settings_;
    Resolver& resolver_;
    Owner& owner_;
    RedisSocket socket_;

    Stage stage_ = Stage::closed;
    std::shared_ptr<bool> alive_;  // false: a lookup's result comes too late
    std::vector<std::string> addresses_;
    std::size_t next_address_ = 0;
    std::size_t tried_ = 0;  // in vain: the next time begins behind these
    std::string refused_;    // why the last address was of no use
    std::unique_ptr<redisReader, FreeReader> reader_;
    std::string out_;
    std::size_t sent_ = 0;
    std::size_t owed_ = 0;
};

}  // namespace chatbot
