#include <atomic>
#include <string>

#include "redis/cache_fixture.hpp"

// A Redis that is away, silent, slow, or goes midway.

namespace chatbot {
namespace {

class RedisOutageTest : public RedisCacheTest {};

TEST_F(RedisOutageTest, LostMidwayThenBack)
{
    fake([](Peer& peer, int n) {
        peer.receive();
        if (n == 1) {
            peer.send("$-1\r\n");
            return;
        }
        peer.send("+PONG\r\n");
        peer.receive();
        peer.send("$-1\r\n");
        peer.left();
    });

    EXPECT_EQ(run({"a", "b"}), "- -");
    EXPECT_NE(told(), "");
    EXPECT_EQ(run({"a"}), "down");
    wait_until_up();
    EXPECT_EQ(told().substr(0, 20), "answers again after ");
    EXPECT_EQ(run({"a"}), "-");
    EXPECT_EQ(told(), "");
    EXPECT_EQ(server_->connections(), 2);
}

TEST_F(RedisOutageTest, AFailureThatLastsIsToldOnce)
{
    {
        const Listener gone;
        settings_.host = "127.0.0.1";
        settings_.port = gone.port();
    }
    use(settings_);
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "Connection refused");

    // Two more probes.
    for (int i = 0; i < 2; i++) {
        const auto due = cache_->deadline();
        while (cache_->busy() || cache_->deadline() == due) {
            turn(Clock::time_point::max());
        }
    }
    EXPECT_EQ(told(), "");
}

TEST_F(RedisOutageTest, ConnectionClosedWhileIdleIsMadeAnew)
{
    std::atomic<bool> closed = false;
    fake([&](Peer& peer, int n) {
        peer.receive();
        peer.send("$-1\r\n");
        if (n == 2) {
            peer.left();
            return;
        }
        peer.reset();
        closed = true;
    });
    EXPECT_EQ(run({"a"}), "-");
    while (!closed) {
        turn(Clock::now() + milliseconds(1));
    }
    turn(Clock::now());

    EXPECT_EQ(run({"a"}), "-");
    EXPECT_EQ(told(), "");
    EXPECT_EQ(server_->connections(), 2);
}

TEST_F(RedisOutageTest, SilenceAndTrickleEndInTime)
{
    settings_.timeout_ms = 100;
    fake([](Peer& peer, int) { peer.left(); });
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "no answer within 100 ms (chatbot_redis_timeout)");
    EXPECT_GE(time_, milliseconds(99));

    fake([](Peer& peer, int) {
        peer.receive();
        peer.send("$1000000\r\n");
        while (!peer.left(1) && peer.send("x")) {
        }
    });
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "no answer within 100 ms (chatbot_redis_timeout)");
}

TEST_F(RedisOutageTest, SlowReaderEndsInTime)
{
    settings_.timeout_ms = 200;
    fake([](Peer& peer, int) { peer.left(); });  // reads nothing
    store("k", std::string(12 << 20, 'x'));
    look_up("k");
    EXPECT_EQ(settle(), "-");
    EXPECT_EQ(told(), "no answer within 200 ms (chatbot_redis_timeout)");
}

TEST_F(RedisOutageTest, LateReplyDoesNotMeetTheNextCommand)
{
    settings_.timeout_ms = 100;
    fake([](Peer& peer, int n) {
        peer.receive();
        if (n == 1) {
            peer.left();
            peer.send(bulk(R"({"response": "late"})"));
        } else {
            peer.send("+PONG\r\n");
            peer.receive();
            peer.send("$-1\r\n");
            peer.left();
        }
    });
    EXPECT_EQ(run({"k"}), "-");
    wait_until_up();
    EXPECT_EQ(run({"k"}), "-");
}

TEST_F(RedisOutageTest, NobodyThere)
{
    settings_.path = "/no/such/socket";
    use(settings_);
    EXPECT_EQ(run({"k"}), "down");
    EXPECT_EQ(told(), "No such file or directory");

    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{}, "redis.test: Name does not resolve"};
    use(settings_);
    EXPECT_EQ(run({"k"}), "down");
    EXPECT_EQ(told(), "redis.test: Name does not resolve");
}

TEST_F(RedisOutageTest, SilentNameServerEndsInTime)
{
    settings_.timeout_ms = 100;
    settings_.host = "redis.test";
    resolver_.silent = true;
    use(settings_);
    EXPECT_EQ(run({"a", "b"}), "- -");
    EXPECT_EQ(told(),
              "no address of the host within 100 ms (chatbot_redis_timeout)");
    EXPECT_EQ(resolver_.lookups, 1);
    resolver_.answer();  // to nobody
    EXPECT_EQ(told(), "");
}

// "localhost" is ::1 first, where Redis does not listen as a rule.
TEST_F(RedisOutageTest, TheSecondAddressIsTriedToo)
{
    fake(bulk(R"({"response": "x"})"));
    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{"::1", "127.0.0.2", "127.0.0.1"}, ""};
    use(settings_);
    EXPECT_EQ(run({"k"}), "x");
    EXPECT_EQ(told(), "");
}

// A host that drops what is sent to it, and the other address of the same name.
TEST_F(RedisOutageTest, ASilentAddressComesLastTheNextTime)
{
    fake([](Peer& peer, int) {
        while (!peer.receive().empty()) {
            peer.send(bulk(R"({"response": "x"})"));
        }
    });
    const SilentAddress silent("127.0.0.2", server_->port());
    settings_.timeout_ms = 1000;
    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{"127.0.0.2", "127.0.0.1"}, ""};
    use(settings_);
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "no connection within 1000 ms (chatbot_redis_timeout)");
    wait_until_up();
    EXPECT_EQ(run({"k"}), "x");
}

// A frozen TLS handshake costs no CPU: nothing is ready until the time is over.
TEST_F(RedisOutageTest, FrozenHandshakeEndsInTimeAndDoesNotSpin)
{
    settings_.timeout_ms = 200;
    settings_.tls = true;
    fake([](Peer& peer, int) { peer.left(); });

    look_up("k");
    int turns = 0;
    for (cache_->flush(); cache_->busy(); turns++) {
        turn(Clock::time_point::max());
    }
    EXPECT_LT(turns, 10);
    EXPECT_EQ(settle(), "-");
    EXPECT_EQ(told(),
              "no TLS handshake (does it speak TLS?) within 200 ms "
              "(chatbot_redis_timeout)");
}

TEST_F(RedisOutageTest, NoTlsAtTheOtherEndIsALoss)
{
    settings_.tls = true;
    fake("+OK\r\n");
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told().find("TLS: "), 0u);
}

}  // namespace
}  // namespace chatbot
