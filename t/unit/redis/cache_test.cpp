#include "redis/cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "fake_server.hpp"
#include "text/digest.hpp"

namespace chatbot {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

using Kind = CacheItem::Kind;

CacheItem lookup(const std::string& question)
{
    CacheItem item;
    item.key = digest({question});
    return item;
}

CacheItem store(const std::string& question, std::string text,
                int expire_s = 100)
{
    CacheItem item = lookup(question);
    item.kind = Kind::store;
    item.expire_s = expire_s;
    item.answer.text = std::move(text);
    return item;
}

CacheItem probe()
{
    CacheItem item;
    item.kind = Kind::probe;
    return item;
}

// "hit:TEXT", "miss", "done" or "-" (unavailable) for each.
std::string describe(const std::vector<CacheItem>& batch)
{
    std::string text;
    for (const CacheItem& item : batch) {
        text += text.empty() ? "" : " ";
        switch (item.status) {
            case CacheItem::Status::hit:
                text += "hit:" + item.answer.text;
                break;
            case CacheItem::Status::miss:
                text += "miss";
                break;
            case CacheItem::Status::done:
                text += "done";
                break;
            case CacheItem::Status::unavailable:
                text += "-";
        }
    }
    return text;
}

// A bulk reply.
std::string bulk(const std::string& text)
{
    return "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n";
}

class CacheRedisTest : public testing::Test {
protected:
    CacheRedisTest() { std::signal(SIGPIPE, SIG_IGN); }

    void use(RedisSettings settings)
    {
        cache_ = std::make_unique<RedisCache>(settings,
                                              [this] { return stopping_; });
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
    void fake(std::string bytes)
    {
        fake([=](Peer& peer, int) {
            peer.receive();
            peer.send(bytes);
            peer.left();
        });
    }

    std::string run(std::vector<CacheItem> batch)
    {
        const auto start = Clock::now();
        cache_->run(batch);
        time_ = Clock::now() - start;
        return describe(batch);
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

    bool stopping_ = false;
    RedisSettings settings_;
    std::unique_ptr<FakeServer> server_;
    std::unique_ptr<RedisCache> cache_;
    Clock::duration time_{};
};

// With the Redis that TEST_REDIS names: host:port or the path of its socket.
class RealRedisTest : public CacheRedisTest {
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
    EXPECT_EQ(run({lookup(k), probe()}), "miss done");
    EXPECT_EQ(run({store(k, "Привет"), lookup(k), lookup(k + "x")}),
              "done hit:Привет miss");
    EXPECT_EQ(told(), "");
}

TEST_F(RealRedisTest, Expires)
{
    const std::string k = question("e");
    EXPECT_EQ(run({store(k, "x", 1), lookup(k)}), "done hit:x");
    const auto limit = Clock::now() + std::chrono::seconds(10);
    while (run({lookup(k)}) != "miss") {
        ASSERT_LT(Clock::now(), limit);
    }
}

TEST_F(RealRedisTest, BatchLargerThanAllBuffers)
{
    settings_.timeout_ms = 60000;
    use(settings_);

    const std::string text(1000 * 1000, 'x');
    std::vector<CacheItem> batch;
    for (int i = 0; i < 20; i++) {
        batch.push_back(store(question("b"), text));
        batch.push_back(lookup(question("b")));
    }

    cache_->run(batch);
    for (const auto& item : batch) {
        EXPECT_EQ(item.status, item.kind == Kind::store
                                   ? CacheItem::Status::done
                                   : CacheItem::Status::hit);
        EXPECT_EQ(item.answer.text.size(), text.size());
    }
}

TEST_F(RealRedisTest, WrongPasswordAndDatabase)
{
    settings_.password = "wrong";
    use(settings_);
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_NE(told().find("AUTH is refused: "), std::string::npos);

    settings_.password.clear();
    settings_.db = 1000000;
    use(settings_);
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(told(), "SELECT is refused: ERR DB index is out of range");
}

TEST_F(CacheRedisTest, SendsOneBatchAtOnce)
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
    EXPECT_EQ(run({lookup("k")}), "hit:x");
    EXPECT_EQ(received, expected);
}

TEST_F(CacheRedisTest, RepliesInPieces)
{
    const std::string replies =
        bulk(R"({"response": "x"})") + "$-1\r\n+OK\r\n+PONG\r\n";
    fake([&](Peer& peer, int) {
        peer.receive();
        for (char c : replies) {
            peer.send({&c, 1});
        }
        peer.left();
    });
    EXPECT_EQ(run({lookup("a"), lookup("b"), store("c", "y"), probe()}),
              "hit:x miss done done");
}

TEST_F(CacheRedisTest, Garbage)
{
    const std::string size = std::to_string(RedisCache::max_reply_size * 2);
    for (const std::string& bytes :
         {std::string("hello\r\n"), std::string("HTTP/1.1 400 Bad\r\n\r\n"),
          std::string("$abc\r\n"), std::string("$-7\r\n"),
          std::string("*2000000000\r\n"), std::string("*1\r\n+x\r\n"),
          std::string(10, '\0'),
          "$" + size + "\r\n" + std::string(20 << 20, 'x')}) {
        settings_.timeout_ms = 5000;
        fake(bytes);
        EXPECT_EQ(run({lookup("k"), probe()}), "- -");
        EXPECT_EQ(told(), "answers nonsense") << bytes.substr(0, 20);
    }
}

TEST_F(CacheRedisTest, ValueThatIsNoneIsAMiss)
{
    for (const std::string& reply :
         {bulk("x"), bulk(""), std::string(":5\r\n"), std::string("+OK\r\n")}) {
        fake(reply);
        EXPECT_EQ(run({lookup("k")}), "miss");
        EXPECT_EQ(told(), "");
    }
}

TEST_F(CacheRedisTest, ErrorReplies)
{
    fake("-WRONGTYPE Operation\r\n-OOM command\r\n-ERR what\r\n+PONG\r\n");
    EXPECT_EQ(run({lookup("a"), store("b", "x"), lookup("c"), probe()}),
              "miss - - done");
    EXPECT_EQ(told(),
              "refuses to store: OOM command; "
              "refuses a lookup: ERR what");

    for (const std::string error : {"LOADING", "NOAUTH", "MASTERDOWN"}) {
        fake("-" + error + " x\r\n$-1\r\n");
        EXPECT_EQ(run({lookup("a"), lookup("b")}), "- -");
        EXPECT_EQ(told(), error + " x");
    }
}

TEST_F(CacheRedisTest, FullRedisIsToldOnceAndStillRead)
{
    fake([](Peer& peer, int) {
        for (int i = 0; i < 3; i++) {
            peer.receive();
            peer.send("-OOM\r\n$-1\r\n");
        }
        peer.receive();
        peer.send("+OK\r\n$-1\r\n");
        peer.receive();
        peer.send("-OOM\r\n$-1\r\n");
        peer.left();
    });

    std::string all;
    for (int i = 0; i < 5; i++) {
        EXPECT_EQ(run({store("a", "x"), lookup("b")}),
                  i == 3 ? "done miss" : "- miss");
        all += told() + "|";
    }
    EXPECT_EQ(all, "refuses to store: OOM||||refuses to store: OOM|");
    EXPECT_EQ(server_->connections(), 1);
}

// A master that became a replica keeps its connections.
TEST_F(CacheRedisTest, ReplicaIsReadOnceMoreThenLookedUpAnew)
{
    fake([](Peer& peer, int n) {
        peer.receive();
        peer.send(n < 3 ? "-READONLY x\r\n$-1\r\n" : "+OK\r\n$-1\r\n");
        peer.receive();
        peer.send("+OK\r\n$-1\r\n");
        peer.left();
    });

    EXPECT_EQ(run({store("a", "x"), lookup("b")}), "- miss");
    EXPECT_EQ(told(), "refuses to store: READONLY x");
    EXPECT_EQ(run({store("a", "x"), lookup("b")}), "- miss");
    EXPECT_EQ(told(), "");
    EXPECT_EQ(server_->connections(), 2);

    EXPECT_EQ(run({store("a", "x"), lookup("b")}), "done miss");
    EXPECT_EQ(run({store("a", "x"), lookup("b")}), "done miss");
    EXPECT_EQ(told(), "");
    EXPECT_EQ(server_->connections(), 3);
}

TEST_F(CacheRedisTest, PasswordIsNotTold)
{
    settings_.password = "secret";
    fake("-ERR unknown command 'AUTH', with args beginning with: 'secret'\r\n");
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(told(), "AUTH is refused: ERR");
}

TEST_F(CacheRedisTest, LostMidwayThenBack)
{
    fake([](Peer& peer, int n) {
        peer.receive();
        peer.send(n <= 2 ? "$-1\r\n" : "$-1\r\n$-1\r\n");
        if (n > 2) {
            peer.left();
        }
    });

    EXPECT_EQ(run({lookup("a"), lookup("b")}), "miss -");
    EXPECT_NE(told(), "");
    EXPECT_EQ(run({lookup("a"), lookup("b")}), "miss -");
    EXPECT_EQ(told(), "");
    EXPECT_EQ(run({lookup("a"), lookup("b")}), "miss miss");
    EXPECT_EQ(told(), "answers again");
}

TEST_F(CacheRedisTest, ConnectionClosedWhileIdleIsMadeAnew)
{
    fake([](Peer& peer, int n) {
        peer.receive();
        peer.send("$-1\r\n");
        if (n == 2) {
            peer.left();
        }
    });
    EXPECT_EQ(run({lookup("a")}), "miss");

    std::string status;
    while (server_->connections() < 2) {
        status = run({lookup("a")});
    }
    EXPECT_EQ(status, "miss");
}

TEST_F(CacheRedisTest, ReplyTooManyIsNotTakenForTheNext)
{
    fake([](Peer& peer, int) {
        peer.receive();
        peer.send(bulk(R"({"response": "a"})") + bulk(R"({"response": "b"})"));
        peer.left();
    });
    EXPECT_EQ(run({lookup("k")}), "hit:a");
    EXPECT_EQ(run({lookup("k")}), "hit:a");
    EXPECT_EQ(server_->connections(), 2);
}

TEST_F(CacheRedisTest, SilenceAndTrickleEndInTime)
{
    settings_.timeout_ms = 100;
    fake([](Peer& peer, int) { peer.left(); });
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(told(), "no answer within 100 ms");
    EXPECT_GE(time_, milliseconds(99));
    EXPECT_LT(time_, milliseconds(400));

    fake([](Peer& peer, int) {
        peer.receive();
        peer.send("$1000000\r\n");
        while (!peer.left(1) && peer.send("x")) {
        }
    });
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_LT(time_, milliseconds(400));
}

TEST_F(CacheRedisTest, SlowReaderEndsInTime)
{
    settings_.timeout_ms = 200;
    fake([](Peer& peer, int) { peer.left(); });  // reads nothing
    EXPECT_EQ(run({store("k", std::string(32 << 20, 'x'))}), "-");
    EXPECT_LT(time_, milliseconds(5000));
}

TEST_F(CacheRedisTest, LateReplyDoesNotMeetTheNextCommand)
{
    settings_.timeout_ms = 100;
    fake([](Peer& peer, int n) {
        peer.receive();
        if (n == 1) {
            peer.left();
            peer.send(bulk(R"({"response": "late"})"));
        } else {
            peer.send("$-1\r\n");
            peer.left();
        }
    });
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(run({lookup("k")}), "miss");
}

TEST_F(CacheRedisTest, StoppingEndsTheWait)
{
    settings_.timeout_ms = 10000;
    stopping_ = true;
    fake([](Peer& peer, int) { peer.left(); });
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_LT(time_, milliseconds(1000));
    EXPECT_EQ(told(), "");
}

TEST_F(CacheRedisTest, NobodyThere)
{
    {
        const Listener gone;
        settings_.host = "127.0.0.1";
        settings_.port = gone.port();
    }
    use(settings_);
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(told(), "Connection refused");
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(told(), "");

    settings_.host.clear();
    settings_.path = "/no/such/socket";
    use(settings_);
    EXPECT_EQ(run({lookup("k")}), "-");
    EXPECT_EQ(told(), "No such file or directory");
}

}  // namespace
}  // namespace chatbot
