#pragma once

#include <openssl/ssl.h>
#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/poller.hpp"
#include "redis/url.hpp"

namespace chatbot {

// A connection that carries bytes without blocking, with TLS where the settings
// say so.  The poller tells `watcher` when it is to go on.
//
// Threads:  all on the thread of the poller.  SIGPIPE must be ignored.
class RedisSocket {
public:
    // Again: it cannot go on now; the poller will tell.
    enum class Io { done, again, failed };

    RedisSocket(const RedisSettings& settings, Poller& poller, Watcher& watcher)
        : settings_(settings),
          poller_(poller),
          watcher_(watcher)
    {
    }
    ~RedisSocket() { close(); }

    RedisSocket(const RedisSocket&) = delete;
    RedisSocket& operator=(const RedisSocket&) = delete;

    // Begins to connect to an IP address, or to the path of the settings.
    // False: it failed at once.
    [[nodiscard]] bool connect_to(const std::string& address);
    [[nodiscard]] bool connect_unix();
    void close();

    // To be called when it is ready for the first time.  False: it could not
    // connect.
    [[nodiscard]] bool finish_connecting();

    // Begins TLS, or goes on with it.
    [[nodiscard]] Io shake_hands();

    // Sends some of `bytes`, `n` of them.
    [[nodiscard]] Io write(std::string_view bytes, std::size_t& n);

    // Receives some bytes, `n` of them.  Done: there may be more.
    [[nodiscard]] Io read(std::span<char> bytes, std::size_t& n);

    // What the poller watches for, Poller::readable or Poller::writable.
    void watch(unsigned what);

    // Why the last call failed.
    [[nodiscard]] const std::string& error() const { return error_; }

private:
    [[nodiscard]] bool connect_socket(const void* address, unsigned size);
    [[nodiscard]] bool start_tls();
    [[nodiscard]] Io plain_result(ssize_t result, std::size_t& n);
    [[nodiscard]] Io tls_result(int result, std::size_t& n);
    [[nodiscard]] std::string tls_reason() const;
    Io fail(std::string_view why);

    const RedisSettings& settings_;
    Poller& poller_;
    Watcher& watcher_;
    int fd_ = -1;
    unsigned watched_ = 0;  // by the poller
    std::unique_ptr<SSL, decltype(&SSL_free)> tls_{nullptr, SSL_free};
    std::string error_;
};

}  // namespace chatbot
