#pragma once

#include <cstdint>
#include <vector>

#include "core/poller.hpp"

namespace chatbot {

// A Poller by epoll(7), and the eventfd by which other threads wake it.
//
// Threads:  wake() in any thread, the rest in the one that waits.
class Epoll final : public Poller {
public:
    // Throws std::system_error where descriptors are short.
    Epoll();
    ~Epoll();

    Epoll(const Epoll&) = delete;
    Epoll& operator=(const Epoll&) = delete;

    void watch(int fd, unsigned what, Watcher& who) override;

    // Waits until something is ready, wake() is called, or the time has come;
    // then tells all that are ready.
    void wait(Clock::time_point until);

    // Ends the wait that goes on, or else the next one.
    void wake() noexcept;

private:
    struct Entry {
        Watcher* who = nullptr;  // null: not watched
        std::uint32_t generation = 0;
        unsigned what = 0;        // of the last watch() that was not 0
        bool registered = false;  // with the kernel, unless it was closed
    };

    void forget(int fd, Entry& entry);
    void unregister(int fd, Entry& entry);
    void tell(std::uint64_t data, std::uint32_t events);

    int epoll_ = -1;
    int event_ = -1;
    std::vector<Entry> entries_;  // by descriptor
};

}  // namespace chatbot
