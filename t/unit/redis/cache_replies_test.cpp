#include <algorithm>
#include <string>

#include "redis/cache_fixture.hpp"

// Replies of every kind.

namespace chatbot {
namespace {

class RedisRepliesTest : public RedisCacheTest {};

TEST_F(RedisRepliesTest, RepliesInPieces)
{
    const std::string replies =
        bulk(R"({"response": "x"})") + "$-1\r\n+OK\r\n$-1\r\n";
    fake([&](Peer& peer, int) {
        peer.receive();
        for (char c : replies) {
            peer.send({&c, 1});
        }
        peer.left();
    });
    look_up("a");
    look_up("b");
    store("c", "y");
    look_up("d");
    EXPECT_EQ(settle(), "x - -");
    EXPECT_EQ(told(), "");
}

TEST_F(RedisRepliesTest, Garbage)
{
    const auto too_large = std::to_string(RedisConnection::max_reply_size * 2);
    for (const std::string& bytes :
         {std::string("hello\r\n"), std::string("HTTP/1.1 400 Bad\r\n\r\n"),
          std::string("$abc\r\n"), std::string("$-7\r\n"),
          std::string("*2000000000\r\n"), std::string("*1\r\n+x\r\n"),
          std::string(10, '\0'),
          "$" + too_large + "\r\n" + std::string(20 << 20, 'x')}) {
        fake(bytes);
        EXPECT_EQ(run({"k", "l"}), "- -");
        EXPECT_EQ(told(), "sent an invalid reply") << bytes.substr(0, 20);
        EXPECT_EQ(run({"k"}), "down");
    }
}

TEST_F(RedisRepliesTest, ValueThatIsNoneIsAMiss)
{
    for (const std::string& reply :
         {bulk("x"), bulk(""), std::string(":5\r\n"), std::string("+OK\r\n")}) {
        fake(reply);
        EXPECT_EQ(run({"k"}), "-");
        EXPECT_EQ(told(), "");
    }
}

TEST_F(RedisRepliesTest, ErrorReplies)
{
    fake("-WRONGTYPE Operation\r\n-OOM command\r\n-ERR what\r\n" +
         bulk(R"({"response": "x"})"));
    look_up("a");
    store("b", "x");
    look_up("c");
    look_up("d");
    EXPECT_EQ(settle(), "- - x");
    EXPECT_EQ(told(),
              "refuses to store: OOM command; "
              "refuses a lookup: ERR what");

    for (const std::string error : {"LOADING", "NOAUTH", "MASTERDOWN",
                                    "ERR max number of clients reached"}) {
        fake("-" + error + " x\r\n$-1\r\n");
        EXPECT_EQ(run({"a", "b"}), "- -");
        EXPECT_EQ(told().find(error + " x"), 0u);
        EXPECT_EQ(run({"a"}), "down");
    }
}

TEST_F(RedisRepliesTest, MovedSaysNothingOfOtherKeysAndIsToldOnce)
{
    fake([](Peer& peer, int) {
        while (!peer.receive().empty()) {
            peer.send("-MOVED 866 10.0.0.1:6379\r\n" +
                      bulk(R"({"response": "x"})"));
        }
    });
    std::string all;
    for (int i = 0; i < 2; i++) {
        look_up("a");
        look_up("b");
        EXPECT_EQ(settle(), "- x");
        all += told() + "|";
    }
    EXPECT_EQ(all,
              "refuses a lookup: MOVED 866 10.0.0.1:6379 "
              "(nodes of a Redis Cluster are not supported)||");
    EXPECT_EQ(server_->connections(), 1);
}

TEST_F(RedisRepliesTest, FullRedisIsToldOnceAndStillRead)
{
    fake([](Peer& peer, int) {
        for (int i = 0; i < 5; i++) {
            peer.receive();
            peer.send(i == 3 ? "+OK\r\n$-1\r\n" : "-OOM\r\n$-1\r\n");
        }
        peer.left();
    });

    std::string all;
    for (int i = 0; i < 5; i++) {
        store("a", "x");
        EXPECT_EQ(run({"b"}), "-");
        all += told() + "|";
    }
    EXPECT_EQ(all, "refuses to store: OOM||||refuses to store: OOM|");
    EXPECT_EQ(server_->connections(), 1);
}

// A master that became a replica keeps its connections.
TEST_F(RedisRepliesTest, ReplicaIsReadOnceMoreThenLookedUpAnew)
{
    fake([](Peer& peer, int n) {
        while (!peer.receive().empty()) {
            peer.send(n < 3 ? "-READONLY x\r\n$-1\r\n" : "+OK\r\n$-1\r\n");
        }
    });

    std::string all;
    for (int i = 1; i <= 4; i++) {
        store("a", "x");
        EXPECT_EQ(run({"b"}), "-");
        EXPECT_EQ(server_->connections(), std::min(i, 3));
        all += told() + "|";
    }
    EXPECT_EQ(all, "refuses to store: READONLY x||||");
}

TEST_F(RedisRepliesTest, TheNameOfAReplicaIsInDoubt)
{
    fake([](Peer& peer, int) {
        while (!peer.receive().empty()) {
            peer.send("-READONLY x\r\n$-1\r\n");
        }
    });
    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{"127.0.0.1"}, ""};
    use(settings_);
    for (int i = 0; i < 2; i++) {
        store("a", "x");
        EXPECT_EQ(run({"b"}), "-");
    }
    EXPECT_EQ(resolver_.doubted, std::vector<std::string>{"redis.test"});
}

TEST_F(RedisRepliesTest, ReplyTooManyIsNotTakenForTheNext)
{
    fake([](Peer& peer, int) {
        peer.receive();
        peer.send(bulk(R"({"response": "a"})") + bulk(R"({"response": "b"})"));
        peer.left();
    });
    EXPECT_EQ(run({"k"}), "a");
    EXPECT_EQ(run({"k"}), "a");
    EXPECT_EQ(server_->connections(), 2);
}

}  // namespace
}  // namespace chatbot
