#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <functional>
#include <memory>

#include "core/poller.hpp"

namespace chatbot {

// A curl_multi whose sockets a Poller watches.
//
// Threads:  all on the thread of the poller.
class Multi final : Watcher {
public:
    // `ended` gets each transfer that has ended; it may remove and add others.
    // `moved` is called once libcurl has moved some, before `ended`.
    using Ended = std::function<void(CURL*, CURLcode)>;
    using Moved = std::function<void()>;

    // At most `max_per_host` connections to a host, 0 for any number; at most
    // `max_idle` are kept.  Throws std::bad_alloc.
    Multi(Poller& poller, long max_per_host, long max_idle, Moved moved,
          Ended ended);
    ~Multi();

    Multi(const Multi&) = delete;
    Multi& operator=(const Multi&) = delete;

    // The transfer starts with the next flush().  Throws std::bad_alloc.
    void add(CURL* easy);
    void remove(CURL* easy);
    [[nodiscard]] std::size_t transfers() const { return transfers_; }

    // Has at most so many connections to a host from now on.
    void set_max_per_host(long max_per_host);

    void flush();

    [[nodiscard]] Clock::time_point deadline() const { return timer_; }
    void on_time(Clock::time_point now);

private:
    void on_ready(int fd, unsigned ready) override;
    void move(curl_socket_t socket, int bits);

    static int on_socket(CURL*, curl_socket_t socket, int what, void* multi,
                         void*) noexcept;
    static int on_timer(CURLM*, long timeout_ms, void* multi) noexcept;

    struct Cleanup {
        void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
    };

    Poller& poller_;
    const Moved moved_;
    const Ended ended_;
    std::unique_ptr<CURLM, Cleanup> multi_;
    std::size_t transfers_ = 0;
    bool added_ = false;  // since the last flush()
    Clock::time_point timer_ = Clock::time_point::max();
};

}  // namespace chatbot
