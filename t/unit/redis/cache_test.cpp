#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "redis/cache_fixture.hpp"

// What is asked of Redis, and what it keeps.

namespace chatbot {
namespace {

// With the Redis that TEST_REDIS names: host:port or the path of its socket.
class RealRedisTest : public RedisCacheTest {
protected:
    void SetUp() override
    {
        const char* where = std::getenv("TEST_REDIS");
        if (!where) {
            GTEST_SKIP() << "TEST_REDIS is not set";
        }

        const std::string url = *where == '/'
                                    ? "unix:" + std::string(where)
                                    : "redis://" + std::string(where) + "/3";
        ASSERT_EQ(parse_redis_url(url, settings_), nullptr);
        use(settings_);
    }

    // A question that no other run asks.
    static std::string question(const std::string& name)
    {
        static const std::string prefix =
            "test:" + std::to_string(getpid()) + ":" +
            std::to_string(Clock::now().time_since_epoch().count()) + ":";
        return prefix + name;
    }
};

TEST_F(RealRedisTest, StoresAndFinds)
{
    const std::string k = question("k");
    EXPECT_EQ(run({k}), "-");
    store(k, "Привет");
    EXPECT_EQ(run({k, k + "x"}), "Привет -");
    EXPECT_EQ(told(), "");
}

TEST_F(RealRedisTest, Expires)
{
    const std::string k = question("e");
    store(k, "x", 1);
    EXPECT_EQ(run({k}), "x");
    const auto limit = Clock::now() + std::chrono::seconds(30);
    while (run({k}) != "-") {
        ASSERT_LT(Clock::now(), limit);
    }
}

TEST_F(RealRedisTest, BatchLargerThanAllBuffers)
{
    settings_.timeout_ms = 60000;
    use(settings_);

    const std::string text(1000 * 1000, 'x');
    for (int i = 0; i < 20; i++) {
        store(question("b"), text);
        look_up(question("b"));
    }
    std::string all;
    for (int i = 0; i < 20; i++) {
        all += (i ? " " : "") + text;
    }
    EXPECT_TRUE(settle() == all);
}

TEST_F(RealRedisTest, WrongPasswordAndDatabase)
{
    settings_.password = "wrong";
    use(settings_);
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_NE(told().find("AUTH is refused: "), std::string::npos);

    settings_.password.clear();
    settings_.db = 1000000;
    use(settings_);
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "SELECT is refused: ERR DB index is out of range");
}

TEST_F(RedisCacheTest, MeasuresLookups)
{
    fake([](Peer& peer, int) {
        peer.receive();
        std::this_thread::sleep_for(milliseconds(20));
        peer.send("+OK\r\n$-1\r\n-OOM command\r\n");
        peer.left();
    });
    store("a", "x");
    EXPECT_EQ(run({"k", "refused"}), "- -");
    ASSERT_EQ(measured_.size(), 1u);
    EXPECT_GE(measured_[0], milliseconds(20));
}

TEST_F(RedisCacheTest, SendsAllAtOnce)
{
    settings_.user = "u";
    settings_.password = "p";
    settings_.db = 2;
    std::string received;
    const std::string expected =
        "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n"
        "*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n"
        "*2\r\n$3\r\nGET\r\n$72\r\nchatbot:" +
        hex(digest({"k"})) + "\r\n";
    fake([&](Peer& peer, int) {
        while (received.size() < expected.size()) {
            received += peer.receive();
        }
        peer.send("+OK\r\n+OK\r\n" + bulk(R"({"response": "x"})"));
        peer.left();
    });
    EXPECT_EQ(run({"k"}), "x");
    EXPECT_EQ(received, expected);
}

// The first commands of each connection, which nothing waits for.
TEST_F(RedisCacheTest, UserAndDatabaseAreToldFirst)
{
    const auto greeting = [this] {
        std::string asked;
        fake([&](Peer& peer, int) {
            asked = peer.receive();
            peer.send("+OK\r\n+OK\r\n$-1\r\n");
            peer.left();
        });
        EXPECT_EQ(run({"k"}), "-");
        EXPECT_EQ(told(), "");
        cache_.reset();
        server_.reset();
        return asked.substr(0, asked.find("GET"));
    };

    settings_.db = 7;
    settings_.password = "pass word";
    EXPECT_EQ(greeting(),
              "*2\r\n$4\r\nAUTH\r\n$9\r\npass word\r\n"
              "*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n*2\r\n$3\r\n");
    settings_.user = "me";
    EXPECT_EQ(greeting(),
              "*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$9\r\npass word\r\n"
              "*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n*2\r\n$3\r\n");
}

TEST_F(RedisCacheTest, PasswordIsNotTold)
{
    settings_.password = "secret";
    fake("-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n");
    EXPECT_EQ(run({"k"}), "-");
    const auto text = told();
    EXPECT_EQ(text.find("AUTH is refused: ERR"), 0u) << text;
    EXPECT_EQ(text.find("secret"), text.npos);
}

TEST_F(RedisCacheTest, AdviceIfAuthIsRefused)
{
    settings_.user = "me";
    settings_.password = "secret";
    for (auto [error, advice] : {
             std::pair("ERR wrong number of arguments for 'auth' command",
                       "leave the user out"),
             std::pair("ERR max number of clients reached", "\"maxclients\""),
             std::pair("DENIED Redis is running in protected mode",
                       "\"protected-mode\""),
         }) {
        fake("-" + std::string(error) + "\r\n");
        EXPECT_EQ(run({"k"}), "-");
        const auto text = told();
        EXPECT_NE(text.find(advice), std::string::npos) << text;
    }
}

TEST_F(RedisCacheTest, AnswersThatNoReplyCouldHoldAreNotStored)
{
    std::atomic<std::size_t> received = 0;
    fake([&](Peer& peer, int) {
        for (std::string bytes; !(bytes = peer.receive()).empty();) {
            received += bytes.size();
            peer.send("$-1\r\n");
        }
    });
    store("k", std::string(RedisConnection::max_reply_size, 'x'));
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_LT(received, 1000u);
    EXPECT_EQ(told(), "");
}

}  // namespace
}  // namespace chatbot
