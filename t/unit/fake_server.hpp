#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <list>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace chatbot {

// A listener on a loopback port, by default one that the kernel chooses.
class Listener {
public:
    explicit Listener(int backlog = 1024, const char* host = "127.0.0.1",
                      int port = 0)
        : fd_(socket(AF_INET, SOCK_STREAM, 0))
    {
        address_.sin_family = AF_INET;
        address_.sin_port = htons(static_cast<std::uint16_t>(port));
        inet_pton(AF_INET, host, &address_.sin_addr);
        socklen_t size = sizeof(address_);
        EXPECT_EQ(bind(fd_, name(), size), 0);
        EXPECT_EQ(listen(fd_, backlog), 0);
        EXPECT_EQ(getsockname(fd_, name(), &size), 0);
    }
    ~Listener() { close(fd_); }

    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;

    int fd() const { return fd_; }
    int port() const { return ntohs(address_.sin_port); }
    sockaddr* name() { return reinterpret_cast<sockaddr*>(&address_); }

private:
    const int fd_;
    sockaddr_in address_{};
};

// An address where no connection is accepted or refused: the queue is full.
class SilentAddress {
public:
    explicit SilentAddress(const char* host = "127.0.0.1", int port = 0)
        : listener_(0, host, port)
    {
        EXPECT_EQ(connect(queued_, listener_.name(), sizeof(sockaddr_in)), 0);
    }
    ~SilentAddress() { close(queued_); }

    SilentAddress(const SilentAddress&) = delete;
    SilentAddress& operator=(const SilentAddress&) = delete;

    int port() const { return listener_.port(); }

private:
    Listener listener_;
    const int queued_ = socket(AF_INET, SOCK_STREAM, 0);
};

// A connection that a fake server accepted.
class Peer {
public:
    explicit Peer(int fd)
        : fd_(fd)
    {
    }
    ~Peer() { close(fd_); }

    Peer(const Peer&) = delete;
    Peer& operator=(const Peer&) = delete;

    // What has come, waiting for it; empty at the end of the connection.
    std::string receive()
    {
        char bytes[16384];
        const auto size = recv(fd_, bytes, sizeof(bytes), 0);
        return std::string(bytes, size > 0 ? size : 0);
    }

    // Returns false once the other side has left.
    bool send(std::string_view bytes)
    {
        while (!bytes.empty()) {
            const auto size =
                ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (size <= 0) {
                return false;
            }
            bytes.remove_prefix(size);
        }
        return true;
    }

    // Waits until the other side has left, at most so long.
    bool left(int timeout_ms = -1)
    {
        pollfd event{fd_, POLLRDHUP, 0};
        return poll(&event, 1, timeout_ms) != 0;
    }

    // Ends the connection.
    void reset() { shutdown(fd_, SHUT_RDWR); }

    int fd() const { return fd_; }

private:
    const int fd_;
};

// A server that does as told, each connection in a thread of its own.
class FakeServer {
public:
    // Gets the connection, and its number from 1; it ends with the script.
    using Script = std::function<void(Peer&, int)>;

    explicit FakeServer(Script script)
        : script_(std::move(script)),
          acceptor_([this] { accept_all(); })
    {
    }

    ~FakeServer()
    {
        shutdown(listener_.fd(), SHUT_RDWR);
        acceptor_.join();
        for (auto& peer : peers_) {
            peer.reset();
        }
        for (auto& thread : threads_) {
            thread.join();
        }
    }

    int port() const { return listener_.port(); }
    int connections() const { return connections_; }

private:
    void accept_all()
    {
        for (;;) {
            const int fd = accept(listener_.fd(), nullptr, nullptr);
            if (fd < 0) {
                return;
            }

            Peer& peer = peers_.emplace_back(fd);
            threads_.emplace_back([this, &peer, n = ++connections_] {
                script_(peer, n);
                peer.reset();
            });
        }
    }

    const Script script_;
    Listener listener_;
    std::atomic<int> connections_ = 0;
    std::list<Peer> peers_;
    std::list<std::thread> threads_;
    std::thread acceptor_;
};

}  // namespace chatbot
