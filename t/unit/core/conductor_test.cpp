#include "core/conductor.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "text/json.hpp"

namespace chatbot {
namespace {

// A key that can be read: `text` itself, which is short.
std::optional<Key> key_of(const std::string& text)
{
    Key key{};
    std::copy(text.begin(), text.end(), key.begin());
    return text.empty() ? std::nullopt : std::optional(key);
}

std::string text_of(const Key& key)
{
    return {key.begin(), std::find(key.begin(), key.end(), 0)};
}

// The test plays all services and keeps a transcript of what the conductor
// wants done and of what its waiters are told.
class ConductorTest : public testing::Test, public Conductor::Services {
protected:
    // Asks under a name; its fate stands in the transcript as NAME=...
    void ask(const std::string& name, const std::string& text,
             bool stream = false)
    {
        ask(route_, name, text, stream);
    }

    void ask(const Route& route, const std::string& name,
             const std::string& text, bool stream = false)
    {
        auto& client = clients_[name];
        client.name = name;
        client.log = &log_;

        Record record;
        record.request_text = text;
        record.request_id = name;
        client.seat =
            conductor_.ask(client, route, key_of(text), record, stream);
    }

    void leave(const std::string& name)
    {
        conductor_.leave(clients_[name].seat);
    }

    // Redis answers its oldest open batch.
    void redis(CacheItem::Status status, const std::string& text = "")
    {
        std::vector<CacheItem> batch;
        std::swap(batch, cache_items_);
        for (auto& item : batch) {
            item.status = status;
            item.answer.text = text;
            item.answer.created = time_s() - 60;
        }
        conductor_.on_cache(0, batch);
    }

    void hit(const std::string& text) { redis(CacheItem::Status::hit, text); }
    void miss() { redis(CacheItem::Status::miss); }
    void lose() { redis(CacheItem::Status::unavailable); }

    void model(ModelEvent::Kind kind, const std::string& text, FlightId flight,
               bool complete = true)
    {
        ModelEvent event;
        event.flight = flight;
        event.kind = kind;
        event.piece = text;
        event.answer.text = text;
        event.answer.complete = complete;
        if (kind == ModelEvent::Kind::failed) {
            event.problem = {502, text, "", 0};
        }
        std::vector<ModelCall> refused;
        conductor_.on_model({event}, refused);
    }

    void answer(const std::string& text, FlightId flight = 1)
    {
        model(ModelEvent::Kind::answered, text, flight);
    }

    void pass(int ms)
    {
        now_ += ms;
        if (timer_ && timer_ <= now_) {
            timer_ = 0;
            conductor_.on_timer();
            EXPECT_TRUE(!timer_ || timer_ > now_) << "the timer is busy";
        }
    }

    std::uint64_t now_ms() override { return now_; }
    std::int64_t time_s() override { return 1'000'000; }
    void set_timer(std::uint64_t when_ms) override { timer_ = when_ms; }
    void settle_soon() override { log_ += " soon"; }

    bool ask_model(ModelCall&& call) override
    {
        if (model_full_) {
            return false;
        }
        log_ += " model(" + call.question + (call.stream ? ",stream)" : ")");
        return true;
    }

    bool ask_cache(std::size_t cache, CacheItem&& item) override
    {
        if (cache != 0) {
            log_ += " other";
        }
        const char* verbs[] = {"get", "set", "ping"};
        log_ += std::string(" ") + verbs[static_cast<int>(item.kind)] + "(" +
                text_of(item.key) + item.answer.text + ")";
        if (item.kind != CacheItem::Kind::store) {
            cache_items_.push_back(std::move(item));
        }
        return true;
    }

    bool has_room(std::size_t) override { return !no_room_; }

    bool record(std::size_t journal, std::string_view lines) override
    {
        if (journal_full_ && journal == 0) {
            return false;
        }
        while (!lines.empty()) {
            auto line = lines.substr(0, lines.find('\n'));
            auto json = parse_json(line);
            log_ += " row(" +
                    std::string(*string_member(json.get(), "request_id")) +
                    "," + std::string(*string_member(json.get(), "status")) +
                    "," +
                    std::to_string(static_cast<int>(
                        *number_member(json.get(), "http_status"))) +
                    ")";
            lines.remove_prefix(line.size() + 1);
        }
        return true;
    }

    // Since the last call.
    std::string log() { return std::exchange(log_, ""); }

    struct Client final : Waiter {
        void on_piece(std::string_view piece) override
        {
            *log += " " + name + "+" + std::string(piece);
        }

        void on_answer(const Reply& reply, CacheStatus status) override
        {
            *log +=
                " " + name + "=" +
                (reply.problem ? std::to_string(reply.problem.status)
                               : reply.answer.text + "," + to_string(status));
            ttl_s = reply.ttl_s;
            seat = nullptr;
        }

        std::string name;
        std::string* log = nullptr;
        Conductor::Seat* seat = nullptr;
        int ttl_s = 0;
    };

    ModelSettings settings_;
    Route route_{&settings_, 0, 0, 250, 3600, true};
    Route other_{&settings_, 1, 1, 250, 3600, true};  // shares nothing with it
    bool no_room_ = false;
    bool journal_full_ = false;
    bool model_full_ = false;
    std::uint64_t now_ = 1000;
    std::uint64_t timer_ = 0;
    std::string log_;
    std::vector<CacheItem> cache_items_;
    std::map<std::string, Client> clients_;
    Conductor conductor_{*this, 2, 2, 3};
};

TEST_F(ConductorTest, MissIsAskedRecordedAnsweredStored)
{
    ask("a", "hi");
    EXPECT_EQ(log(), " get(hi)");
    miss();
    EXPECT_EQ(log(), " model(hi)");
    answer("hello");
    EXPECT_EQ(log(), " set(hihello) row(a,success,200) a=hello,MISS");
    EXPECT_EQ(conductor_.in_flight(), 0u);
}

TEST_F(ConductorTest, HitIsRecordedAndAnswered)
{
    ask("a", "hi");
    hit("hello");
    EXPECT_EQ(log(), " get(hi) row(a,cached,200) a=hello,HIT");
    EXPECT_EQ(clients_["a"].ttl_s, 3540);
}

TEST_F(ConductorTest, EqualQuestionsAreAskedOnce)
{
    ask("a", "hi");
    ask("b", "hi");
    miss();
    ask("c", "hi");
    EXPECT_EQ(log(), " get(hi) model(hi)");
    answer("hello");
    EXPECT_EQ(log(),
              " set(hihello) row(a,success,200) row(b,success,200)"
              " row(c,success,200) a=hello,MISS b=hello,COLLAPSED"
              " c=hello,COLLAPSED");
}

TEST_F(ConductorTest, EqualQuestionsHitTogether)
{
    ask("a", "hi");
    ask("b", "hi");
    hit("hello");
    EXPECT_EQ(log(),
              " get(hi) row(a,cached,200) row(b,cached,200) a=hello,HIT"
              " b=hello,HIT");
}

TEST_F(ConductorTest, EqualQuestionsOfTwoRoutesAreTwo)
{
    ask("a", "hi");
    ask(other_, "b", "hi");
    EXPECT_EQ(log(), " get(hi) other get(hi)");
}

TEST_F(ConductorTest, WithoutKeyEachIsLikeNoOther)
{
    ask("a", "");
    ask("b", "");
    EXPECT_EQ(log(), " model() model()");
    answer("hello");
    EXPECT_EQ(log(), " row(a,success,200) a=hello,MISS");
}

TEST_F(ConductorTest, WithoutLockEachAsksForItself)
{
    route_.cache_lock = false;
    ask("a", "hi");
    ask("b", "hi");
    miss();
    EXPECT_EQ(log(), " get(hi) get(hi) model(hi) model(hi)");
}

TEST_F(ConductorTest, AfterTheAnswerTheFlightIsOver)
{
    ask("a", "hi");
    miss();
    answer("hello");
    log();
    ask("b", "hi");
    EXPECT_EQ(log(), " get(hi)");
}

TEST_F(ConductorTest, IncompleteAnswersAreNotStored)
{
    ask("a", "hi");
    miss();
    log();
    model(ModelEvent::Kind::answered, "cut of", 1, false);
    EXPECT_EQ(log(), " row(a,success,200) a=cut of,MISS");
}

TEST_F(ConductorTest, FailureIsRecordedToo)
{
    ask("a", "hi");
    miss();
    log();
    model(ModelEvent::Kind::failed, "no", 1);
    EXPECT_EQ(log(), " row(a,error,502) a=502");
}

TEST_F(ConductorTest, WhoLeavesIsRecordedAndTheAnswerKept)
{
    ask("a", "hi");
    miss();
    leave("a");
    log();
    answer("hello");
    EXPECT_EQ(log(), " set(hihello) row(a,success,499)");
}

TEST_F(ConductorTest, SlowRedisIsNotWaitedFor)
{
    ask("a", "hi");
    log();
    pass(249);
    EXPECT_EQ(log(), "");
    pass(1);
    EXPECT_EQ(log(), " model(hi)");
    hit("too late");
    EXPECT_EQ(log(), "");
    answer("hello");
    EXPECT_EQ(log(), " set(hihello) row(a,success,200) a=hello,MISS");
}

TEST_F(ConductorTest, DeadRedisIsNotAskedUntilAProbeFindsIt)
{
    ask("a", "one");
    lose();
    EXPECT_EQ(log(), " get(one) model(one)");
    ask("b", "two");
    EXPECT_EQ(log(), " model(two)");
    pass(100);
    lose();
    pass(100);
    EXPECT_EQ(log(), " ping()");
    pass(100);
    miss();
    EXPECT_EQ(log(), " ping()");
    ask("c", "three");
    EXPECT_EQ(log(), " get(three)");
}

TEST_F(ConductorTest, WhenRedisDiesQueuedLookupsGoOn)
{
    ask("a", "one");
    auto first = std::exchange(cache_items_, {});
    ask("b", "two");  // not part of the batch that is lost
    log();
    conductor_.on_cache(0, first);
    EXPECT_EQ(log(), " model(two) model(one)");
}

TEST_F(ConductorTest, WhenRedisDiesAnotherGoesOn)
{
    ask("a", "one");
    auto first = std::exchange(cache_items_, {});
    ask(other_, "b", "two");
    log();
    conductor_.on_cache(0, first);
    EXPECT_EQ(log(), " model(one)");
}

TEST_F(ConductorTest, ProbesComeInTime)
{
    ask("a", "hi");
    pass(200);
    lose();
    log();
    pass(50);  // the lookup's deadline, had it not been lost
    EXPECT_EQ(log(), "");
    pass(50);
    EXPECT_EQ(log(), " ping()");
}

TEST_F(ConductorTest, RedisThatIsBackIsNotProbed)
{
    ask("a", "one");
    auto first = std::exchange(cache_items_, {});
    ask("b", "two");
    conductor_.on_cache(0, first);
    miss();
    log();
    pass(100);
    EXPECT_EQ(log(), "");
}

TEST_F(ConductorTest, TheModelHasTheLastWordOnTime)
{
    settings_.timeout_ms = 5000;
    ask("a", "hi");
    miss();
    log();
    pass(5999);
    EXPECT_EQ(log(), "");
    pass(1);
    EXPECT_EQ(log(), " row(a,error,504) a=504");
    answer("late, but paid for");
    EXPECT_EQ(log(), " set(hilate, but paid for)");
}

TEST_F(ConductorTest, ALateAnswerLeavesTheNextFlightAlone)
{
    settings_.timeout_ms = 5000;
    ask("a", "hi");
    miss();
    pass(6000);
    ask("b", "hi");
    miss();
    answer("late", 1);
    ask("c", "hi");
    log();
    answer("hello", 2);
    EXPECT_EQ(log(),
              " set(hihello) row(b,success,200) row(c,success,200)"
              " b=hello,MISS c=hello,COLLAPSED");
}

TEST_F(ConductorTest, TooManyAreRefusedAndToldSoon)
{
    ask("a", "one");
    ask("b", "two");
    ask("c", "three");
    log();
    ask("d", "four");
    EXPECT_EQ(log(), " soon");
    conductor_.on_settle();
    EXPECT_EQ(log(), " row(d,error,503) d=503");
    EXPECT_EQ(conductor_.in_flight(), 3u);
}

// Nor is the refusal recorded: the room that is left is not for it.
TEST_F(ConductorTest, WhatCannotBeRecordedIsNotAsked)
{
    no_room_ = true;
    ask("a", "hi");
    conductor_.on_settle();
    EXPECT_EQ(log(), " soon a=503");
}

TEST_F(ConductorTest, WhatCannotBeRecordedIsNotAnswered)
{
    ask("a", "hi");
    journal_full_ = true;
    log();
    hit("hello");
    EXPECT_EQ(log(), " a=503");
}

TEST_F(ConductorTest, FullJournalConcernsNoOther)
{
    ask("a", "hi");
    ask(other_, "b", "hi");
    journal_full_ = true;
    log();
    hit("hello");
    EXPECT_EQ(log(), " row(b,cached,200) a=503 b=hello,HIT");
}

TEST_F(ConductorTest, CallsThatNoThreadTakesAreRefused)
{
    ask("a", "hi");
    miss();
    log();
    std::vector<ModelCall> refused(1);
    refused[0].flight = 1;
    conductor_.on_model({}, refused);
    EXPECT_EQ(log(), " row(a,error,503) a=503");
}

TEST_F(ConductorTest, FullModelLaneRefuses)
{
    model_full_ = true;
    ask("a", "hi");
    miss();
    EXPECT_EQ(log(), " get(hi) soon row(a,error,503) a=503");
}

TEST_F(ConductorTest, PiecesGoToThoseWhoStream)
{
    ask("a", "hi", true);
    ask("b", "hi");
    miss();
    EXPECT_EQ(log(), " get(hi) model(hi,stream)");
    model(ModelEvent::Kind::piece, "hel", 1);
    ask("c", "hi", true);
    model(ModelEvent::Kind::piece, "lo", 1);
    EXPECT_EQ(log(), " a+hel c+hel a+lo c+lo");
    answer("hello");
    EXPECT_EQ(log(),
              " set(hihello) row(a,success,200) row(b,success,200)"
              " row(c,success,200) a=hello,MISS b=hello,COLLAPSED"
              " c=hello,COLLAPSED");
}

TEST_F(ConductorTest, AtTheEndNothingIsForgotten)
{
    ask("a", "hi");
    log();
    conductor_.leave_all();
    conductor_.close();
    EXPECT_EQ(log(), " row(a,error,499)");
}

TEST_F(ConductorTest, AtTheEndNobodyIsTold)
{
    for (auto name : {"a", "b", "c", "refused"}) {
        ask(name, "hi");
    }
    log();
    conductor_.leave_all();
    conductor_.close();
    EXPECT_EQ(log(),
              " row(refused,error,499) row(a,error,499) row(b,error,499)"
              " row(c,error,499)");
}

}  // namespace
}  // namespace chatbot
