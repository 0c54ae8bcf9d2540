#include "redis/cache.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fake_resolver.hpp"
#include "fake_server.hpp"
#include "reactor/epoll.hpp"
#include "text/digest.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

// A bulk reply.
std::string bulk(const std::string& text)
{
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

// The test is the reactor's thread.
class RedisCacheTest : public testing::Test {
protected:
    RedisCacheTest()
    {
        std::signal(SIGPIPE, SIG_IGN);
        settings_.timeout_ms = 20000;
    }

    void use(const RedisSettings& settings)
    {
        cache_.reset();
        cache_ = std::make_unique<RedisCache>(
            settings, epoll_, resolver_,
            [this](auto flight, auto&& found) {
                EXPECT_TRUE(
                    found_.try_emplace(flight, found ? found->text : "-")
                        .second)
                    << "told twice";
            },
            [this](auto duration) { measured_.push_back(duration); });
    }

    // Uses a fake Redis with that script.
    void fake(FakeServer::Script script)
    {
        cache_.reset();
        server_ = std::make_unique<FakeServer>(std::move(script));
        settings_.host = "127.0.0.1";
        settings_.port = server_->port();
        use(settings_);
    }

    // Uses a fake Redis that says this as soon as anything has come.
    void fake(const std::string& bytes)
    {
        fake([=](Peer& peer, int) {
            peer.receive();
            peer.send(bytes);
            peer.left();
        });
    }

    // Asks; the outcome stands under `flight` once it is known.
    void look_up(const std::string& question)
    {
        ++flight_;
        if (!cache_->look_up(flight_, digest({question}))) {
            found_[flight_] = "down";
        }
    }

    void store(const std::string& question, std::string text,
               int expire_s = 100)
    {
        Answer answer;
        answer.text = std::move(text);
        cache_->store(digest({question}), expire_s, answer);
    }

    void turn(Clock::time_point until)
    {
        epoll_.wait(std::min(until, cache_->deadline()));
        cache_->on_time(Clock::now());
        cache_->flush();
    }

    // Waits for all replies.  "TEXT" is a hit, "-" none, "down" not asked.
    std::string settle()
    {
        const auto start = Clock::now();
        cache_->flush();
        while (cache_->busy()) {
            if (Clock::now() > start + std::chrono::seconds(60)) {
                ADD_FAILURE() << "it does not end";
                break;
            }
            turn(Clock::time_point::max());
        }
        time_ = Clock::now() - start;

        std::string all;
        for (const auto& [flight, text] : std::exchange(found_, {})) {
            all += (all.empty() ? "" : " ") + text;
        }
        return all;
    }

    std::string run(const std::vector<std::string>& questions)
    {
        for (const auto& question : questions) {
            look_up(question);
        }
        return settle();
    }

    // Until a probe has found it.
    void wait_until_up()
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (cache_->busy() ||
               cache_->deadline() != Clock::time_point::max()) {
            ASSERT_LT(Clock::now(), limit);
            turn(Clock::time_point::max());
        }
    }

    // What was told since the last call, without where Redis is.
    std::string told()
    {
        std::string text;
        for (const Notice& notice : cache_->take_notices()) {
            text += text.empty() ? "" : "; ";
            text += notice.text.substr(notice.text.find(": ") + 2);
        }
        return text;
    }

    Epoll epoll_;
    FakeResolver resolver_;
    RedisSettings settings_;
    std::unique_ptr<FakeServer> server_;
    FlightId flight_ = 0;
    std::map<FlightId, std::string> found_;
    std::unique_ptr<RedisCache> cache_;
    Clock::duration time_{};
    std::vector<std::chrono::microseconds> measured_;  // lookups
};

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

TEST_F(RedisCacheTest, RepliesInPieces)
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

TEST_F(RedisCacheTest, Garbage)
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
        EXPECT_EQ(told(), "answers nonsense") << bytes.substr(0, 20);
        EXPECT_EQ(run({"k"}), "down");
    }
}

TEST_F(RedisCacheTest, ValueThatIsNoneIsAMiss)
{
    for (const std::string& reply :
         {bulk("x"), bulk(""), std::string(":5\r\n"), std::string("+OK\r\n")}) {
        fake(reply);
        EXPECT_EQ(run({"k"}), "-");
        EXPECT_EQ(told(), "");
    }
}

TEST_F(RedisCacheTest, ErrorReplies)
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

    for (const std::string error : {"LOADING", "NOAUTH", "MASTERDOWN"}) {
        fake("-" + error + " x\r\n$-1\r\n");
        EXPECT_EQ(run({"a", "b"}), "- -");
        EXPECT_EQ(told().find(error + " x"), 0u);
        EXPECT_EQ(run({"a"}), "down");
    }
}

TEST_F(RedisCacheTest, MovedSaysNothingOfOtherKeysAndIsToldOnce)
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

TEST_F(RedisCacheTest, FullRedisIsToldOnceAndStillRead)
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
TEST_F(RedisCacheTest, ReplicaIsReadOnceMoreThenLookedUpAnew)
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

TEST_F(RedisCacheTest, LostMidwayThenBack)
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

TEST_F(RedisCacheTest, AFailureThatLastsIsToldOnce)
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

TEST_F(RedisCacheTest, ConnectionClosedWhileIdleIsMadeAnew)
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

TEST_F(RedisCacheTest, ReplyTooManyIsNotTakenForTheNext)
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

TEST_F(RedisCacheTest, SilenceAndTrickleEndInTime)
{
    settings_.timeout_ms = 100;
    fake([](Peer& peer, int) { peer.left(); });
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "no answer within 100 ms");
    EXPECT_GE(time_, milliseconds(99));

    fake([](Peer& peer, int) {
        peer.receive();
        peer.send("$1000000\r\n");
        while (!peer.left(1) && peer.send("x")) {
        }
    });
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told(), "no answer within 100 ms");
}

TEST_F(RedisCacheTest, SlowReaderEndsInTime)
{
    settings_.timeout_ms = 200;
    fake([](Peer& peer, int) { peer.left(); });  // reads nothing
    store("k", std::string(12 << 20, 'x'));
    look_up("k");
    EXPECT_EQ(settle(), "-");
    EXPECT_EQ(told(), "no answer within 200 ms");
}

TEST_F(RedisCacheTest, LateReplyDoesNotMeetTheNextCommand)
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

TEST_F(RedisCacheTest, NobodyThere)
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

TEST_F(RedisCacheTest, SilentNameServerEndsInTime)
{
    settings_.timeout_ms = 100;
    settings_.host = "redis.test";
    resolver_.silent = true;
    use(settings_);
    EXPECT_EQ(run({"a", "b"}), "- -");
    EXPECT_EQ(told(), "no answer within 100 ms");
    EXPECT_EQ(resolver_.lookups, 1);
    resolver_.answer();  // to nobody
    EXPECT_EQ(told(), "");
}

// "localhost" is ::1 first, where Redis does not listen as a rule.
TEST_F(RedisCacheTest, TheSecondAddressIsTriedToo)
{
    fake(bulk(R"({"response": "x"})"));
    settings_.host = "redis.test";
    resolver_.hosts["redis.test"] = {{"::1", "127.0.0.2", "127.0.0.1"}, ""};
    use(settings_);
    EXPECT_EQ(run({"k"}), "x");
    EXPECT_EQ(told(), "");
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

// A frozen TLS handshake costs no CPU: nothing is ready until the time is over.
TEST_F(RedisCacheTest, FrozenHandshakeEndsInTimeAndDoesNotSpin)
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
    EXPECT_EQ(told(), "no answer within 200 ms");
}

TEST_F(RedisCacheTest, NoTlsAtTheOtherEndIsALoss)
{
    settings_.tls = true;
    fake("+OK\r\n");
    EXPECT_EQ(run({"k"}), "-");
    EXPECT_EQ(told().find("TLS: "), 0u);
}

}  // namespace
}  // namespace chatbot
