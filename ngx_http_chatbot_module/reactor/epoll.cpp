#include "reactor/epoll.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

namespace chatbot {
namespace {

// How many one wait() tells of: what they bring leaves before more is read.
// (Measured: with 256, a miss among 256 others waits twice as long.)
constexpr int max_events = 16;
constexpr std::size_t max_room = 1024 * 1024;  // descriptors
constexpr std::uint64_t wake_up = std::numeric_limits<std::uint64_t>::max();

// How many descriptors there may be.
std::size_t descriptors()
{
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return std::min<std::size_t>(limit.rlim_cur, max_room);
}

// A descriptor that is closed may come again within one batch of events, so the
// generation tells the old one's events from the new one's.
std::uint64_t name_of(int fd, std::uint32_t generation)
{
    return std::uint64_t{generation} << 32 | static_cast<std::uint32_t>(fd);
}

}  // namespace

Epoll::Epoll()
{
    // So that watch() needs no memory.  What is not used takes addresses only.
    entries_.reserve(descriptors());

    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    event_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    event.data.u64 = wake_up;
    if (epoll_ == -1 || event_ == -1 ||
        epoll_ctl(epoll_, EPOLL_CTL_ADD, event_, &event) == -1) {
        const int error = errno;
        close(epoll_);
        close(event_);
        throw std::system_error(error, std::generic_category(), "epoll");
    }
}

Epoll::~Epoll()
{
    close(epoll_);
    close(event_);
}

void Epoll::watch(int fd, unsigned what, Watcher& who)
{
    const auto index = static_cast<std::size_t>(fd);
    if (index >= entries_.size()) {
        entries_.resize(index + 1);
    }

    auto& entry = entries_[index];
    if (what == 0) {
        forget(fd, entry);
        return;
    }

    epoll_event event{};
    event.events = (what & readable ? EPOLLIN | EPOLLRDHUP : 0u) |
                   (what & writable ? EPOLLOUT : 0u);
    event.data.u64 = name_of(fd, entry.generation);
    entry.who = &who;
    entry.what = what;
    if (!std::exchange(entry.registered, true) ||
        epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == -1) {
        // Closed meanwhile, if it was registered, and opened anew.
        epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    }
}

// A connection that is idle between two calls stays registered, since it is
// watched again soon: that costs one system call instead of two.  Nothing is
// to be read from it normally.
void Epoll::forget(int fd, Entry& entry)
{
    if (!entry.who) {
        return;
    }

    entry.who = nullptr;
    entry.generation++;
    if (entry.what & writable) {
        unregister(fd, entry);
    }
}

void Epoll::unregister(int fd, Entry& entry)
{
    entry.registered = false;
    epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
}

void Epoll::wait(Clock::time_point until)
{
    using std::chrono::milliseconds;

    // A wait for ever is cut into hours, since epoll counts in int.
    const auto now = Clock::now();
    const auto left = until <= now ? Clock::duration(0)
                                   : std::min<Clock::duration>(
                                         until - now, std::chrono::hours(1));
    const auto ms = std::chrono::ceil<milliseconds>(left).count();

    epoll_event events[max_events];
    const int n = epoll_wait(epoll_, events, max_events, static_cast<int>(ms));
    for (int i = 0; i < n; i++) {
        tell(events[i].data.u64, events[i].events);
    }
}

void Epoll::tell(std::uint64_t data, std::uint32_t events)
{
    if (data == wake_up) {
        return;  // edge-triggered: nothing has to be read
    }

    const auto fd = static_cast<std::uint32_t>(data);
    auto& entry = entries_[fd];
    if (!entry.who && entry.registered) {
        unregister(static_cast<int>(fd), entry);
    }
    if (!entry.who || entry.generation != data >> 32) {
        return;
    }

    const bool failed = events & (EPOLLERR | EPOLLHUP);
    const unsigned ready =
        (failed || events & (EPOLLIN | EPOLLRDHUP) ? readable : 0u) |
        (failed || events & EPOLLOUT ? writable : 0u);
    entry.who->on_ready(static_cast<int>(fd), ready);
}

void Epoll::wake() noexcept
{
    const std::uint64_t one = 1;
    (void)!write(event_, &one, sizeof(one));
}

}  // namespace chatbot
