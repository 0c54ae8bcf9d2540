#include "reactor/threaded_resolver.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>

#include "journal/failing_call.hpp"
#include "reactor/epoll.hpp"

namespace chatbot {
namespace {

// With the resolver of this machine, which knows "localhost" at least, and no
// host below .invalid (RFC 2606).
class ThreadedResolverTest : public testing::Test {
protected:
    void resolve(const std::string& host)
    {
        resolver_->resolve(host, [this](const auto& result) {
            told_++;
            result_ = result;
        });
    }

    void wait_for(int told)
    {
        const auto limit = Clock::now() + std::chrono::seconds(60);
        while (told_ < told) {
            ASSERT_LT(Clock::now(), limit);
            epoll_.wait(limit);
            resolver_->take_results();
        }
    }

    Epoll epoll_;
    std::atomic<int> wakes_ = 0;
    int told_ = 0;
    Resolver::Result result_;
    std::unique_ptr<ThreadedResolver> resolver_ =
        std::make_unique<ThreadedResolver>([this] {
            wakes_++;
            epoll_.wake();
        });
};

TEST_F(ThreadedResolverTest, AddressesAreToldAtOnce)
{
    for (const std::string address : {"127.0.0.1", "::1"}) {
        resolve(address);
        EXPECT_EQ(result_.addresses, std::vector{address});
    }
    EXPECT_EQ(told_, 2);
}

TEST_F(ThreadedResolverTest, ManyCallsAreOneLookup)
{
    for (int i = 0; i < 400; i++) {
        resolve("localhost");
    }
    EXPECT_EQ(told_, 0);
    wait_for(400);
    EXPECT_EQ(wakes_, 1);
    EXPECT_FALSE(result_.addresses.empty());

    resolve("localhost");
    EXPECT_EQ(told_, 401) << "known by now";
    EXPECT_EQ(wakes_, 1);
}

TEST_F(ThreadedResolverTest, HostThatIsNotFoundIsLookedUpAgain)
{
    for (int i = 1; i <= 2; i++) {
        resolve("no-such-host.invalid");
        wait_for(i);
        EXPECT_TRUE(result_.addresses.empty());
        EXPECT_EQ(result_.error.find("no-such-host.invalid: "), 0u);
    }
    EXPECT_EQ(wakes_, 2);
}

TEST_F(ThreadedResolverTest, AddressesInDoubtAreLookedUpAgainASecondLater)
{
    resolver_->doubt("localhost");  // which nobody asked for
    resolve("localhost");
    wait_for(1);
    const auto found_at = Clock::now();

    int asked = 1;
    while (wakes_ == 1) {
        ASSERT_LT(Clock::now(), found_at + std::chrono::seconds(30));
        resolver_->doubt("localhost");
        resolve("localhost");
        wait_for(++asked);
    }
    EXPECT_GT(Clock::now() - found_at, std::chrono::milliseconds(900));
    EXPECT_FALSE(result_.addresses.empty());

    resolve("localhost");
    EXPECT_EQ(told_, asked + 1) << "no longer in doubt";
}

TEST_F(ThreadedResolverTest, WhoeverAsksWithinAnAnswerIsToldToo)
{
    int told = 0;
    resolver_->resolve("localhost", [&](const auto&) {
        resolve("localhost");
        told++;
    });
    wait_for(1);
    EXPECT_EQ(told, 1);
}

// The n-th allocation fails, in the lookup's thread or beside it, n upward
// until a run passes untouched.
TEST_F(ThreadedResolverTest, WithoutMemoryALookupIsToldOrRefused)
{
    unsigned n = 0;
    bool failed = true;
    while (failed && n < 100 && !HasFailure()) {
        resolver_ =
            std::make_unique<ThreadedResolver>([this] { epoll_.wake(); });
        told_ = 0;
        {
            const FailingCall failing(++n, FailingCall::How::out_of_memory);
            try {
                resolve("localhost");
                wait_for(1);
            } catch (const std::bad_alloc&) {
            }
            failed = FailingCall::happened();
        }

        const auto before = told_;
        resolve("localhost");
        wait_for(before + 1);
        EXPECT_FALSE(result_.addresses.empty()) << n;
    }
    EXPECT_GT(n, 5u);
    EXPECT_LT(n, 100u);
}

TEST_F(ThreadedResolverTest, DestroyedDuringALookup)
{
    resolve("localhost");
    resolver_.reset();
    EXPECT_EQ(told_, 0);
}

}  // namespace
}  // namespace chatbot
