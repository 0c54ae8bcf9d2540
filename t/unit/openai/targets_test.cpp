#include "openai/targets.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "openai/knowledge.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Result = Targets::Result;

ModelServer server(const std::string& name, int weight = 1, bool backup = false)
{
    return {.name = name,
            .url = "https://" + name,
            .api_key = "k",
            .models = {"m"},
            .weight = weight,
            .backup = backup};
}

// Plays calls one after the other, in simulated time; what is told is a
// transcript of the servers' names.
class TargetsTest : public testing::Test {
protected:
    void use(std::vector<ModelServer> servers)
    {
        targets_ = std::make_unique<Targets>(std::move(servers), notices_);
    }

    // Calls that all end well; no servers that served them badly are avoided.
    std::string calls(int count)
    {
        std::string log;
        for (int i = 0; i < count; ++i) {
            auto choice = targets_->choose({}, now_);
            log += targets_->server(choice->server).name;
            targets_->report(*choice, Result::ok, now_);
        }
        return log;
    }

    // A call that ends so; the name of its server.
    std::string call(Result result, std::optional<milliseconds> rest = {})
    {
        auto choice = targets_->choose({}, now_);
        targets_->report(*choice, result, now_, rest, "why");
        return targets_->server(choice->server).name;
    }

    std::string told()
    {
        std::string text;
        for (const auto& notice : std::exchange(notices_, {})) {
            text += notice.text + "\n";
        }
        return text;
    }

    std::vector<Notice> notices_;
    Clock::time_point now_{seconds(1000)};
    std::unique_ptr<Targets> targets_;
};

TEST_F(TargetsTest, SmoothWeights)
{
    use({server("a", 5), server("b"), server("c")});
    EXPECT_EQ(calls(14), "aabacaaaabacaa");
}

TEST_F(TargetsTest, BackupIsForTheWorst)
{
    use({server("a"), server("b"), server("c", 1, true)});
    EXPECT_EQ(calls(4), "abab");
    EXPECT_EQ(call(Result::failed), "a");
    EXPECT_EQ(calls(3), "bbb");
    EXPECT_EQ(call(Result::failed), "b");
    EXPECT_EQ(calls(3), "ccc");
    now_ += seconds(10);
    EXPECT_EQ(calls(4).find('c'), std::string::npos);
}

TEST_F(TargetsTest, BreakerOpensAndOneCallTries)
{
    use({server("a"), server("b")});
    EXPECT_EQ(call(Result::failed), "a");
    EXPECT_EQ(told(), "server a is not asked for 10 s: why\n");
    EXPECT_EQ(calls(3), "bbb");

    now_ += seconds(10);
    auto trial = targets_->choose({}, now_);
    EXPECT_EQ(targets_->server(trial->server).name, "a");
    EXPECT_EQ(calls(3), "bbb");
    targets_->report(*trial, Result::failed, now_, {}, "why");
    EXPECT_EQ(told(), "\n") << "an outage that lasts is told now and then";
    EXPECT_EQ(calls(3), "bbb");

    now_ += seconds(50);
    EXPECT_EQ(call(Result::failed), "a");
    EXPECT_EQ(told(),
              "server a still is not asked for 10 s: why (for 1 min)\n");

    now_ += seconds(10);
    EXPECT_EQ(calls(1), "a");
    EXPECT_EQ(told(), "server a is asked again after 1 min\n");
    EXPECT_EQ(calls(4), "baba");
}

TEST_F(TargetsTest, ATrialThatIsGivenUpIsFollowedByAnother)
{
    use({server("a"), server("b")});
    call(Result::failed);
    now_ += seconds(10);
    EXPECT_EQ(call(Result::nothing), "a");
    EXPECT_EQ(call(Result::ok), "a");
}

TEST_F(TargetsTest, MaxFails)
{
    auto a = server("a", 100);
    a.max_fails = 3;
    a.fail_timeout_ms = 1000;
    use({a, server("b")});

    call(Result::failed);
    call(Result::failed);
    now_ += milliseconds(1001);  // these are too old
    call(Result::failed);
    call(Result::failed);
    EXPECT_EQ(told(), "");
    EXPECT_EQ(call(Result::ok), "a");  // counts from the start
    call(Result::failed);
    call(Result::failed);
    EXPECT_EQ(told(), "");
    call(Result::failed);
    EXPECT_EQ(told(), "server a is not asked for 1 s: why\n");

    a.max_fails = 0;
    use({a, server("b")});
    for (int i = 0; i < 50; ++i) {
        call(Result::failed);
    }
    EXPECT_EQ(told().find("server a"), std::string::npos);
}

TEST_F(TargetsTest, ASpentKeyRests)
{
    use({server("a"), server("b")});
    EXPECT_EQ(call(Result::spent, seconds(60)), "a");
    EXPECT_EQ(told(), "server a is not asked for 60 s: why\n");
    now_ += seconds(59);
    EXPECT_EQ(calls(2), "bb");
    now_ += seconds(1);
    EXPECT_EQ(calls(1), "a");

    EXPECT_EQ(call(Result::spent), "b");
    EXPECT_EQ(told(),
              "server a is asked again after 1 min\nserver b is not asked for "
              "300 s: why\n");
}

TEST_F(TargetsTest, AnAnswerFromBeforeClosesNothing)
{
    use({server("a"), server("b")});
    auto early = targets_->choose({}, now_);
    call(Result::ok);
    EXPECT_EQ(call(Result::spent, seconds(60)), "a");
    targets_->report(*early, Result::ok, now_);
    EXPECT_EQ(calls(3), "bbb");
}

TEST_F(TargetsTest, WhileAllRestTheNextOneDueIsAsked)
{
    use({server("a"), server("b")});
    EXPECT_EQ(call(Result::spent, seconds(60)), "a");
    EXPECT_EQ(call(Result::spent, seconds(30)), "b");
    EXPECT_FALSE(targets_->has_other({}, now_));
    EXPECT_EQ(call(Result::nothing), "b");
}

TEST_F(TargetsTest, ACallGoesToServersThatItDidNotTry)
{
    use({server("a"), server("b")});
    EXPECT_EQ(targets_->choose({0}, now_)->server, 1u);
    EXPECT_TRUE(targets_->has_other({0}, now_));
    EXPECT_FALSE(targets_->has_other({0, 1}, now_));
    EXPECT_FALSE(targets_->choose({0, 1}, now_));
}

TEST_F(TargetsTest, AServerAloneIsAlwaysAsked)
{
    use({server("a")});
    for (int i = 0; i < 10; ++i) {
        EXPECT_EQ(call(Result::failed), "a");
    }
    EXPECT_EQ(told(), "");
}

// Servers fail and recover, calls end in any order.  A server that rests gets
// at most one call at a time while another is well, and each call a server.
TEST_F(TargetsTest, AnySeed)
{
    for (unsigned seed = 1; seed <= 300; ++seed) {
        SCOPED_TRACE(seed);
        std::minstd_rand random(seed);
        const auto below = [&](unsigned n) { return random() % n; };
        std::vector<ModelServer> servers;
        for (unsigned i = 0; i < 1 + below(4); ++i) {
            servers.push_back(server(std::string(1, 'a' + static_cast<char>(i)),
                                     1 + static_cast<int>(below(3)),
                                     i > 0 && below(3) == 0));
        }
        const auto count = servers.size();
        use(servers);

        std::vector<Targets::Choice> calls;
        std::vector<bool> sick(count);
        for (int step = 0; step < 300; ++step) {
            now_ += milliseconds(below(2000));
            sick[below(static_cast<unsigned>(count))] = below(2) == 0;
            if (calls.empty() || below(2) == 0) {
                const bool well = targets_->has_other({}, now_);
                auto choice = targets_->choose({}, now_);
                ASSERT_TRUE(choice);
                std::map<std::size_t, int> trials;
                for (const auto& call : calls) {
                    trials[call.server] += call.trial;
                }
                ASSERT_TRUE(!well || !choice->trial ||
                            trials[choice->server] == 0);
                calls.push_back(*choice);
            } else {
                const auto at = below(static_cast<unsigned>(calls.size()));
                targets_->report(
                    calls[at],
                    sick[calls[at].server] ? Result::failed : Result::ok, now_);
                calls.erase(calls.begin() + at);
            }
        }
    }
}

TEST(KnowledgeTest, ForAnHour)
{
    std::vector<Notice> notices;
    Knowledge knowledge(notices);
    auto a = server("a");
    auto b = server("b");
    Clock::time_point now{seconds(1)};

    knowledge.learn_missing(a, "m", "gone", now);
    knowledge.learn_missing(a, "m", "gone", now);
    EXPECT_TRUE(knowledge.is_missing(a, "m", now + std::chrono::minutes(59)));
    EXPECT_FALSE(knowledge.is_missing(a, "m", now + std::chrono::hours(1)));
    EXPECT_FALSE(knowledge.is_missing(b, "m", now));
    ASSERT_EQ(notices.size(), 1u);
    EXPECT_EQ(notices[0].text, "model \"m\" is passed over for an hour: gone");
    EXPECT_EQ(notices[0].change.kind, Change::Kind::model_passed_over);
    EXPECT_EQ(notices[0].change.server + notices[0].change.model, "am");

    knowledge.learn_refused(a, "m", "seed", "no", now);
    knowledge.learn_refused(a, "m", "seed", "no", now);
    EXPECT_EQ(knowledge.left_out(a, "m", now),
              std::vector<std::string>{"seed"});
    EXPECT_TRUE(knowledge.left_out(a, "n", now).empty());
    EXPECT_TRUE(
        knowledge.left_out(a, "m", now + std::chrono::hours(1)).empty());
    EXPECT_EQ(notices.size(), 2u);

    knowledge.warn_once("odd");
    knowledge.warn_once("odd");
    EXPECT_EQ(notices.size(), 3u);
}

}  // namespace
}  // namespace chatbot
