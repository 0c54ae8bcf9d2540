#include "redis/socket.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "fake_server.hpp"
#include "reactor/epoll.hpp"

namespace chatbot {
namespace {

using Io = RedisSocket::Io;

// The test is the thread of the socket, and the other side as well.
class RedisSocketTest : public testing::Test, Watcher {
protected:
    RedisSocketTest() { settings_.port = listener_.port(); }

    void connect()
    {
        ASSERT_TRUE(socket_.connect_to("127.0.0.1"));
        peer_ =
            std::make_unique<Peer>(::accept(listener_.fd(), nullptr, nullptr));
        turn();
        ASSERT_TRUE(socket_.finish_connecting());
        socket_.watch(Poller::readable);
    }

    // What the socket is ready for, waiting for it.
    unsigned turn()
    {
        ready_ = 0;
        epoll_.wait(Clock::now() + std::chrono::seconds(60));
        return ready_;
    }

    void on_ready(int, unsigned ready) override { ready_ = ready; }

    // "again", "failed: WHY", or what came.
    std::string read(std::size_t size = 100)
    {
        std::string bytes(size, '\0');
        std::size_t n = 0;
        const auto io = socket_.read(bytes, n);
        if (io == Io::failed) {
            return "failed: " + socket_.error();
        }
        return bytes.substr(0, n) + (io == Io::again ? "(again)" : "");
    }

    Epoll epoll_;
    Listener listener_;
    RedisSettings settings_;
    RedisSocket socket_{settings_, epoll_, *this};
    std::unique_ptr<Peer> peer_;
    unsigned ready_ = 0;
};

TEST_F(RedisSocketTest, BytesGoBothWays)
{
    connect();
    std::size_t n = 0;
    EXPECT_EQ(socket_.write("ping", n), Io::done);
    EXPECT_EQ(n, 4u);
    EXPECT_EQ(peer_->receive(), "ping");

    EXPECT_EQ(read(), "(again)");
    peer_->send("pong");
    EXPECT_EQ(turn(), Poller::readable);
    EXPECT_EQ(read(2), "po") << "there may be more";
    EXPECT_EQ(read(), "ng(again)");
}

TEST_F(RedisSocketTest, WhatThePeerDoesNotTakeIsToldAsAgain)
{
    connect();
    const std::string bytes(1024 * 1024, 'x');
    std::size_t all = 0;
    std::size_t n = 0;
    while (socket_.write(bytes, n) == Io::done) {
        all += n;
    }
    EXPECT_EQ(n, 0u);

    socket_.watch(Poller::writable);
    for (std::size_t got = 0; got < all;) {
        got += peer_->receive().size();
    }
    EXPECT_EQ(turn(), Poller::writable);
    EXPECT_EQ(socket_.write("x", n), Io::done);
}

TEST_F(RedisSocketTest, ACloseIsTold)
{
    connect();
    peer_.reset();
    EXPECT_EQ(turn(), Poller::readable);
    EXPECT_EQ(read(), "failed: the connection was closed");
}

TEST_F(RedisSocketTest, WhereNobodyListens)
{
    {
        const Listener gone;
        settings_.port = gone.port();
    }
    if (socket_.connect_to("127.0.0.1")) {
        turn();
        EXPECT_FALSE(socket_.finish_connecting());
    }
    EXPECT_EQ(socket_.error(), "Connection refused");

    EXPECT_FALSE(socket_.connect_to("localhost"));
    EXPECT_NE(socket_.error().find("family not supported"), std::string::npos);
}

TEST_F(RedisSocketTest, Paths)
{
    settings_.path = "/nowhere/redis.sock";
    EXPECT_FALSE(socket_.connect_unix());
    EXPECT_EQ(socket_.error(), "No such file or directory");

    settings_.path = std::string(200, 'x');
    EXPECT_FALSE(socket_.connect_unix());
    EXPECT_EQ(socket_.error(), "File name too long");
}

TEST_F(RedisSocketTest, TheNextConnectionIsANewOne)
{
    connect();
    socket_.close();
    EXPECT_EQ(peer_->receive(), "");
    connect();
    peer_->send("new");
    EXPECT_EQ(turn(), Poller::readable);
    EXPECT_EQ(read(), "new(again)");
}

}  // namespace
}  // namespace chatbot
