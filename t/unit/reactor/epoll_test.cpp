#include "reactor/epoll.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <new>
#include <string>
#include <thread>

#include "journal/failing_call.hpp"
#include "journal/fixture.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

// Two sockets that are connected to each other.
struct Pair {
    Pair() { EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0); }
    ~Pair()
    {
        close(fds[0]);
        close(fds[1]);
    }

    void write() { EXPECT_EQ(::write(fds[1], "x", 1), 1); }

    int fds[2] = {-1, -1};
};

class EpollTest : public testing::Test, public Watcher {
protected:
    void on_ready(int fd, unsigned ready) override
    {
        log_ += (ready & Poller::readable ? "r" : "") +
                std::string(ready & Poller::writable ? "w" : "");
        if (on_event_) {
            on_event_(fd);
        }
    }

    // What is ready now.
    std::string ready()
    {
        log_.clear();
        epoll_.wait(Clock::now());
        return log_;
    }

    std::string log_;
    std::function<void(int)> on_event_;
    Epoll epoll_;
    Pair a_;
    Pair b_;
};

TEST_F(EpollTest, TellsWhatIsReady)
{
    epoll_.watch(a_.fds[0], Poller::readable, *this);
    EXPECT_EQ(ready(), "");
    a_.write();
    EXPECT_EQ(ready(), "r");
    EXPECT_EQ(ready(), "r") << "level-triggered";
    epoll_.watch(a_.fds[0], Poller::readable | Poller::writable, *this);
    EXPECT_EQ(ready(), "rw");
    epoll_.watch(a_.fds[0], Poller::writable, *this);
    EXPECT_EQ(ready(), "w");
    epoll_.watch(a_.fds[0], 0, *this);
    EXPECT_EQ(ready(), "");
    epoll_.watch(a_.fds[0], 0, *this);
}

TEST_F(EpollTest, TheEndOfAConnectionIsBoth)
{
    epoll_.watch(a_.fds[0], Poller::writable, *this);
    close(std::exchange(a_.fds[1], -1));
    EXPECT_EQ(ready(), "rw");
}

TEST_F(EpollTest, WhatIsForgottenInTheSameTurnIsNotTold)
{
    for (auto pair : {&a_, &b_}) {
        epoll_.watch(pair->fds[0], Poller::readable, *this);
        pair->write();
    }
    on_event_ = [&](int fd) {
        epoll_.watch(fd == a_.fds[0] ? b_.fds[0] : a_.fds[0], 0, *this);
    };
    EXPECT_EQ(ready(), "r");
}

// The number of a descriptor that was closed comes again at once.
TEST_F(EpollTest, EventsOfAClosedDescriptorAreNotTheNextOnes)
{
    for (auto pair : {&a_, &b_}) {
        epoll_.watch(pair->fds[0], Poller::readable, *this);
        pair->write();
    }
    int other[2] = {-1, -1};
    on_event_ = [&](int fd) {
        auto& old = fd == a_.fds[0] ? b_ : a_;
        const int number = old.fds[0];
        epoll_.watch(number, 0, *this);
        close(std::exchange(old.fds[0], -1));
        ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, other), 0);
        ASSERT_EQ(other[0], number);
        epoll_.watch(number, Poller::readable, *this);
    };
    EXPECT_EQ(ready(), "r") << "the new one has nothing to read";
    close(other[0]);
    close(other[1]);
}

// It stays registered with the kernel, but not for long if something comes.
TEST_F(EpollTest, WhatIsForgottenDoesNotKeepItAwake)
{
    epoll_.watch(a_.fds[0], Poller::readable, *this);
    epoll_.watch(a_.fds[0], 0, *this);
    a_.write();
    EXPECT_EQ(ready(), "");
    const auto until = Clock::now() + milliseconds(20);
    epoll_.wait(until);
    EXPECT_GE(Clock::now(), until);

    epoll_.watch(a_.fds[0], Poller::readable, *this);
    EXPECT_EQ(ready(), "r");
}

TEST_F(EpollTest, WhatIsWatchedAgainIsTold)
{
    epoll_.watch(a_.fds[0], Poller::readable, *this);
    epoll_.watch(a_.fds[0], 0, *this);
    epoll_.watch(a_.fds[0], Poller::readable, *this);
    a_.write();
    EXPECT_EQ(ready(), "r");
}

// Its number is given to another one while nobody watches it.
TEST_F(EpollTest, AnotherDescriptorOfTheSameNumberIsTold)
{
    const int number = a_.fds[0];
    epoll_.watch(number, Poller::readable, *this);
    epoll_.watch(number, 0, *this);
    close(number);
    a_.fds[0] = dup(b_.fds[0]);
    ASSERT_EQ(a_.fds[0], number);

    epoll_.watch(number, Poller::readable, *this);
    EXPECT_EQ(ready(), "");
    b_.write();
    EXPECT_EQ(ready(), "r");
}

TEST_F(EpollTest, WaitsUntilTheTimeHasCome)
{
    const auto until = Clock::now() + milliseconds(30);
    epoll_.wait(until);
    EXPECT_GE(Clock::now(), until);
    epoll_.wait(Clock::time_point::min());
}

TEST_F(EpollTest, WakeEndsTheWaitOrTheNextOne)
{
    epoll_.wake();
    epoll_.wait(Clock::time_point::max());

    std::thread waker([this] {
        std::this_thread::sleep_for(milliseconds(20));
        epoll_.wake();
    });
    epoll_.wait(Clock::time_point::max());
    waker.join();

    // And no other than these.
    const auto until = Clock::now() + milliseconds(20);
    epoll_.wait(until);
    EXPECT_GE(Clock::now(), until);
}

TEST(EpollOutOfMemoryTest, NoDescriptorIsLeft)
{
    const auto before = descriptors();
    const FailingCall failing(1, FailingCall::How::out_of_memory);
    EXPECT_THROW(Epoll(), std::bad_alloc);
    EXPECT_EQ(descriptors(), before);
}

}  // namespace
}  // namespace chatbot
