#include "redis/connection.hpp"

#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <poll.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "fake_resolver.hpp"
#include "fake_server.hpp"
#include "reactor/epoll.hpp"

namespace chatbot {
namespace {

std::string describe(const redisReply& reply)
{
    switch (reply.type) {
        case REDIS_REPLY_STATUS:
            return "+" + std::string(reply.str, reply.len);
        case REDIS_REPLY_ERROR:
            return "-" + std::string(reply.str, reply.len);
        case REDIS_REPLY_INTEGER:
            return ":" + std::to_string(reply.integer);
        case REDIS_REPLY_NIL:
            return "nil";
        default:
            return "\"" + std::string(reply.str, reply.len) + "\"";
    }
}

// The test is the thread of the connection, and Redis as well: nothing happens
// but by turn(), so each byte comes when the test sends it.
class RedisConnectionTest : public testing::Test, RedisConnection::Owner {
protected:
    RedisConnectionTest()
    {
        settings_.host = "127.0.0.1";
        settings_.port = listener_.port();
    }

    // Opens the connection, and accepts it as Redis.
    void connect()
    {
        connection_.open();
        accept();
    }

    void accept()
    {
        redis_ =
            std::make_unique<Peer>(::accept(listener_.fd(), nullptr, nullptr));
        turn();
    }

    // Tells the connection of what is ready, waiting for it.
    void turn() { epoll_.wait(Clock::now() + std::chrono::seconds(60)); }

    // The same, without waiting: nothing is expected.
    void look() { epoll_.wait(Clock::now()); }

    template <class Condition>
    void turn_until(const Condition& condition)
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (!condition() && Clock::now() < limit) {
            epoll_.wait(Clock::now() + std::chrono::milliseconds(10));
        }
    }

    // What Redis gets: so many bytes, or all until the end of the connection.
    std::string received(std::size_t size = std::string::npos)
    {
        std::string all;
        while (all.size() < size) {
            const auto bytes = redis_->receive();
            if (bytes.empty()) {
                return all + "(end)";
            }
            all += bytes;
        }
        return all;
    }

    // Whether Redis has got anything.
    bool has_received()
    {
        pollfd event{redis_->fd(), POLLIN, 0};
        return poll(&event, 1, 0) > 0;
    }

    void reply(std::string_view bytes)
    {
        redis_->send(bytes);
        if (!bytes.empty()) {
            turn();
        }
    }

    // Redis goes, having read all that it was asked.
    void close_redis(std::size_t asked)
    {
        (void)received(asked);
        redis_.reset();
        turn();
    }

    void ask(int times = 1)
    {
        while (times-- > 0) {
            connection_.send({"PING"});
        }
        connection_.flush();
    }

    // Since the last call.
    std::string log() { return std::exchange(log_, ""); }

    void on_reply(const redisReply& reply) override
    {
        log_ += (log_.empty() ? "" : " ") + describe(reply);
    }

    void on_lost(const std::string& reason) override
    {
        log_ += (log_.empty() ? "" : " ") + ("lost: " + reason);
        if (reopens_) {
            connection_.open();
            connection_.send({"AGAIN"});
        }
    }

    bool reopens_ = false;
    std::string log_;
    Listener listener_;
    Epoll epoll_;
    FakeResolver resolver_;
    RedisSettings settings_;
    std::unique_ptr<Peer> redis_;
    RedisConnection connection_{settings_, epoll_, resolver_, *this};
};

const std::string ping = "*1\r\n$4\r\nPING\r\n";

TEST_F(RedisConnectionTest, CommandsGoOutTogetherOnceItIsConnected)
{
    connection_.open();
    connection_.send({"SET", "a key", std::string("\r\n\0x", 4)});
    connection_.send({"PING"});
    connection_.flush();
    EXPECT_GT(connection_.unsent(), 0u);
    accept();
    const auto sent = "*3\r\n$3\r\nSET\r\n$5\r\na key\r\n$4\r\n" +
                      std::string("\r\n\0x", 4) + "\r\n" + ping;
    EXPECT_EQ(received(sent.size()), sent);
    EXPECT_EQ(connection_.unsent(), 0u);
    EXPECT_EQ(connection_.owed(), 2u);
}

TEST_F(RedisConnectionTest, WhatIsNotFlushedIsNotSent)
{
    connect();
    connection_.send({"PING"});
    look();
    EXPECT_FALSE(has_received());
    connection_.send({"PING"});
    connection_.flush();
    EXPECT_EQ(received(2 * ping.size()), ping + ping);
}

TEST_F(RedisConnectionTest, RepliesComeInOrder)
{
    connect();
    ask(5);
    reply("+OK\r\n$5\r\nhello\r\n:7\r\n$-1\r\n-ERR no\r\n");
    EXPECT_EQ(log(), "+OK \"hello\" :7 nil -ERR no");
    EXPECT_EQ(connection_.owed(), 0u);
    EXPECT_TRUE(connection_.is_open());
}

TEST_F(RedisConnectionTest, RepliesMayBeCutAnywhere)
{
    const std::string_view all =
        "+OK\r\n$7\r\nhe\r\nllo\r\n:-7\r\n$-1\r\n$0\r\n\r\n-ERR no\r\n";
    const std::string read = "+OK \"he\r\nllo\" :-7 nil \"\" -ERR no";

    connect();
    for (std::size_t cut = 0; cut <= all.size(); cut++) {
        ask(6);
        reply(all.substr(0, cut));
        reply(all.substr(cut));
        EXPECT_EQ(log(), read) << "cut at " << cut;
    }

    ask(6);
    for (auto byte : all) {
        reply({&byte, 1});
    }
    EXPECT_EQ(log(), read) << "byte by byte";
}

TEST_F(RedisConnectionTest, RepliesLargerThanTheBuffer)
{
    const std::string text(100'000, 'x');
    connect();
    ask(2);
    reply("$100000\r\n" + text + "\r\n$100000\r\n" + text + "\r\n");
    turn_until([&] { return connection_.owed() == 0; });
    EXPECT_TRUE(log() == "\"" + text + "\" \"" + text + "\"");
}

TEST_F(RedisConnectionTest, AReplyTooManyEndsTheConnection)
{
    connect();
    ask(2);
    reply("+one\r\n+two\r\n+three\r\n");
    EXPECT_EQ(log(), "+one +two lost: sent an invalid reply");
    EXPECT_FALSE(connection_.is_open());
    EXPECT_EQ(connection_.owed(), 0u);
    EXPECT_EQ(received(), ping + ping + "(end)");
}

TEST_F(RedisConnectionTest, AReplyBeforeAnyCommandEndsTheConnection)
{
    connect();
    reply("+hello\r\n");
    EXPECT_EQ(log(), "lost: sent an invalid reply");
}

TEST_F(RedisConnectionTest, NonsenseEndsTheConnection)
{
    for (auto bytes : {"hello\r\n", "*1\r\n+OK\r\n", "*1000000000\r\n",
                       "$-5\r\n", "$99999999999999999999\r\n", ":x\r\n"}) {
        connect();
        ask();
        reply(bytes);
        EXPECT_EQ(log(), "lost: sent an invalid reply") << bytes;
        EXPECT_FALSE(connection_.is_open());
    }
}

TEST_F(RedisConnectionTest, AnEndlessReplyEndsTheConnection)
{
    connect();
    ask();
    reply("$100000000\r\n");
    const std::string part(16'000, 'x');
    std::size_t sent = 0;
    for (; log_.empty() && sent < 2 * RedisConnection::max_reply_size;
         sent += part.size()) {
        reply(part);
    }
    EXPECT_EQ(log(), "lost: sent an invalid reply");
    EXPECT_GT(sent, RedisConnection::max_reply_size);
    EXPECT_LT(sent, RedisConnection::max_reply_size + 100'000);
}

TEST_F(RedisConnectionTest, ClosedByRedis)
{
    connect();
    ask(2);
    reply("+one\r\n+tw");
    close_redis(2 * ping.size());
    EXPECT_EQ(log(), "+one lost: the connection was closed");
    EXPECT_FALSE(connection_.is_open());
}

TEST_F(RedisConnectionTest, NothingOfALostConnectionIsLeftToTheNext)
{
    connect();
    ask(3);
    reply("+one\r\n$100\r\nhalf");
    close_redis(3 * ping.size());
    log();

    connect();
    EXPECT_EQ(connection_.unsent(), 0u);
    EXPECT_EQ(connection_.owed(), 0u);
    ask();
    EXPECT_EQ(received(ping.size()), ping);
    reply("+PONG\r\n");
    EXPECT_EQ(log(), "+PONG");
}

TEST_F(RedisConnectionTest, TheOwnerMayOpenItAnewAtOnce)
{
    reopens_ = true;
    connect();
    ask();
    close_redis(ping.size());
    EXPECT_EQ(log(), "lost: the connection was closed");

    const std::string again = "*1\r\n$5\r\nAGAIN\r\n";
    accept();
    EXPECT_EQ(received(again.size()), again);
    reply("+OK\r\n");
    EXPECT_EQ(log(), "+OK");
}

TEST_F(RedisConnectionTest, AfterCloseNothingIsTold)
{
    connect();
    ask();
    redis_->send("+OK\r\n");
    connection_.close();
    look();
    EXPECT_EQ(log(), "");
    EXPECT_FALSE(connection_.is_open());
}

// A Redis that is frozen takes what the kernel buffers; the rest is kept, and
// sent as it reads.
TEST_F(RedisConnectionTest, WhatRedisDoesNotTakeIsKept)
{
    const std::string word(10'000'000, 'x');
    connect();
    connection_.send({word});
    connection_.flush();
    look();
    EXPECT_GT(connection_.unsent(), 0u);
    EXPECT_EQ(log(), "");

    const auto sent = "*1\r\n$10000000\r\n" + word + "\r\n";
    std::string all;
    while (all.size() < sent.size()) {
        all += received(1);
        look();
    }
    EXPECT_TRUE(all == sent);
    EXPECT_EQ(connection_.unsent(), 0u);
}

TEST_F(RedisConnectionTest, NobodyThere)
{
    settings_.port = 1;
    connection_.open();
    turn_until([&] { return !connection_.is_open(); });
    EXPECT_EQ(log(), "lost: Connection refused");
}

TEST_F(RedisConnectionTest, AllAddressesAreTried)
{
    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{"127.0.0.2", "no address", "127.0.0.1"},
                                     ""};
    connection_.open();
    turn_until([&] {
        pollfd event{listener_.fd(), POLLIN, 0};
        return poll(&event, 1, 0) > 0;
    });
    accept();
    ask();
    EXPECT_EQ(received(ping.size()), ping);
    EXPECT_EQ(log(), "");
}

TEST_F(RedisConnectionTest, AddressesWithoutAServerAreInDoubt)
{
    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{"127.0.0.2", "127.0.0.3"}, ""};
    connection_.open();
    turn_until([&] { return !connection_.is_open(); });
    EXPECT_EQ(log(), "lost: Connection refused");
    EXPECT_EQ(resolver_.doubted, std::vector<std::string>{"redis.test"});
}

TEST_F(RedisConnectionTest, AnAddressThatComesAfterCloseIsNotUsed)
{
    settings_.host = "redis.test";
    resolver_.silent = true;
    connection_.open();
    connection_.close();
    resolver_.answer();
    EXPECT_FALSE(connection_.is_open());
    EXPECT_EQ(log(), "");
}

TEST_F(RedisConnectionTest, ACommandForAClosedConnectionIsAFault)
{
    EXPECT_DEATH(connection_.send({"PING"}),
                 "a command for a connection that is closed");
}

}  // namespace
}  // namespace chatbot
