#pragma once

#include <chrono>

namespace chatbot {

using Clock = std::chrono::steady_clock;

// Is told when a descriptor is ready.
class Watcher {
public:
    // `ready` is a set of Poller's bits.  Errors and hang-ups set both.
    virtual void on_ready(int fd, unsigned ready) = 0;

protected:
    ~Watcher() = default;
};

// Waits for descriptors; level-triggered.  The reactor's is one epoll, which
// the clients of Redis and of the model share.
//
// Threads:    all on the thread that waits.
// Ownership:  neither descriptors nor watchers are owned.  A descriptor is
//             forgotten before it is closed.
class Poller {
public:
    static constexpr unsigned readable = 1;
    static constexpr unsigned writable = 2;

    // Replaces what was watched of this descriptor; 0 forgets it.
    virtual void watch(int fd, unsigned what, Watcher& who) = 0;

protected:
    ~Poller() = default;
};

}  // namespace chatbot
