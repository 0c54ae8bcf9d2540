// The n-th allocation fails, n upward until a run passes untouched: each lookup
// that is taken is told once, and a cache that is down will be probed.

#include <new>

#include "journal/failing_call.hpp"
#include "quiet_server.hpp"
#include "redis/cache_fixture.hpp"

namespace chatbot {
namespace {

// A Redis that has the same reply to each GET.
bool answer(int fd, std::string_view came, std::string_view reply)
{
    for (std::size_t at = 0; (at = came.find("\r\n$", at)) != came.npos; at++) {
        const auto word = came.substr(came.find('\n', at + 2) + 1);
        if (word.starts_with("GET\r")) {
            QuietServer::say(fd, reply);
        } else if (word.starts_with("PING\r")) {
            QuietServer::say(fd, "+PONG\r\n");
        } else if (word.starts_with("AUTH\r") || word.starts_with("SELECT\r") ||
                   word.starts_with("SET\r")) {
            QuietServer::say(fd, "+OK\r\n");
        }
    }
    return true;
}

class RedisOutOfMemoryTest : public RedisCacheTest {
protected:
    static constexpr FlightId flights = 3;

    // Runs for all n.  Returns how often a lookup ended otherwise than in the
    // last run, in which nothing failed.
    int fail_each(const std::string& reply)
    {
        const QuietServer redis(answer, reply);
        settings_.host = "127.0.0.1";
        settings_.port = redis.port();
        settings_.password = "secret";
        settings_.db = 1;
        found_room_.reserve(flights);

        int others = 0;
        unsigned n = 0;
        do {
            run(++n);
            others += found_room_.size() != flights;
        } while (FailingCall::happened() && n < 2000 && !HasFailure());
        EXPECT_GT(n, 20u);
        EXPECT_LT(n, 2000u);
        EXPECT_EQ(found_room_.size(), flights);
        return others;
    }

    void run(unsigned n)
    {
        const std::vector<Key> keys(flights, digest({"question"}));
        Answer kept;
        kept.text = "text";
        taken_ = 0;
        found_room_.clear();
        told_ = 0;
        cache_.reset();
        cache_ = std::make_unique<RedisCache>(
            settings_, epoll_, resolver_, [this](auto flight, auto&& found) {
                told_++;
                if (found) {
                    found_room_.push_back(flight);
                }
            });

        {
            const FailingCall failing(n, FailingCall::How::out_of_memory);
            for (FlightId flight = 0; flight < flights; flight++) {
                try {
                    taken_ += cache_->look_up(flight, keys[flight]);
                } catch (const std::bad_alloc&) {
                }
            }
            cache_->store(keys[0], 100, kept);
            settle_without_memory();
        }

        EXPECT_FALSE(cache_->busy()) << n;
        EXPECT_EQ(told_, taken_) << n;
        EXPECT_TRUE(cache_->up() ||
                    cache_->deadline() != Clock::time_point::max())
            << n;
    }

    // As the reactor does, which goes on after a failure.
    void settle_without_memory()
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        do {
            try {
                cache_->flush();
                turn(Clock::now() + milliseconds(10));
            } catch (const std::bad_alloc&) {
            }
        } while (cache_->busy() && Clock::now() < limit);
    }

    int taken_ = 0;
    int told_ = 0;
    std::vector<FlightId> found_room_;
};

TEST_F(RedisOutOfMemoryTest, EachLookupIsToldOnce)
{
    EXPECT_GT(fail_each(bulk(R"({"response":"A text that is longer than what )"
                             R"(a string holds itself","model":"m"})")),
              10);
}

TEST_F(RedisOutOfMemoryTest, SoIsEachThatIsRefused)
{
    const QuietServer redis(answer,
                            "-LOADING Redis is loading the dataset\r\n");
    settings_.host = "127.0.0.1";
    settings_.port = redis.port();
    unsigned n = 0;
    do {
        run(++n);
    } while (FailingCall::happened() && n < 2000 && !HasFailure());
    EXPECT_GT(n, 20u);
    EXPECT_LT(n, 2000u);
    EXPECT_FALSE(cache_->up());
}

// A probe for which there is no memory is followed by another one.
TEST_F(RedisOutOfMemoryTest, ADownCacheIsProbedAgain)
{
    const QuietServer redis(answer, "$-1\r\n");
    {
        const Listener gone;
        settings_.host = "127.0.0.1";
        settings_.port = gone.port();
    }
    unsigned n = 0;
    do {
        use(settings_);
        look_up("k");
        (void)settle();
        ASSERT_FALSE(cache_->up());
        const FailingCall failing(++n, FailingCall::How::out_of_memory);
        try {
            cache_->on_time(cache_->deadline());
        } catch (const std::bad_alloc&) {
        }
        EXPECT_NE(cache_->deadline(), Clock::time_point::max()) << n;
    } while (FailingCall::happened() && n < 2000 && !HasFailure());
    EXPECT_GT(n, 3u);
}

}  // namespace
}  // namespace chatbot
