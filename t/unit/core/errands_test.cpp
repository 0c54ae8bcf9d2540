#include "core/errands.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <new>
#include <string>

#include "in_production.hpp"

namespace chatbot {
namespace {

// The test plays cache, model and conductor, and keeps a transcript.
class ErrandsTest : public testing::Test, public Errands::Services {
protected:
    void take(FlightId flight, std::size_t cache = 0, bool listen = false)
    {
        Errand errand;
        errand.call.flight = flight;
        errand.call.question = "q" + std::to_string(flight);
        errand.call.listen = listen;
        errand.cache = cache;
        errand.key[0] = static_cast<unsigned char>('0' + flight);
        errand.cache_valid_s = 100;
        errands_.take(std::move(errand));
    }

    void hit(FlightId flight, const std::string& text, int age_s = 60)
    {
        Answer answer;
        answer.text = text;
        answer.created = now_ - age_s;
        errands_.on_lookup(flight, std::move(answer));
    }

    void miss(FlightId flight) { errands_.on_lookup(flight, std::nullopt); }

    void model(FlightEvent::Kind kind, const std::string& text, FlightId flight,
               bool complete = true)
    {
        FlightEvent event;
        event.flight = flight;
        event.kind = kind;
        event.piece = text;
        event.answer.text = text;
        event.answer.complete = complete;
        event.answer.created = 7;  // by the model's clock
        if (kind == FlightEvent::Kind::failed) {
            event.problem.status = 502;
        }
        errands_.on_model(std::move(event));
    }

    void answer(const std::string& text, FlightId flight = 1)
    {
        model(FlightEvent::Kind::answered, text, flight);
    }

    std::int64_t time_s() override { return now_; }

    bool look_up(std::size_t cache, FlightId flight, const Key& key) override
    {
        if (down_) {
            return false;
        }
        if (no_memory_) {
            throw std::bad_alloc();
        }
        log_ += " get(" + std::to_string(cache) + "," + std::to_string(flight) +
                "," + static_cast<char>(key[0]) + ")";
        return true;
    }

    void store(std::size_t cache, const Key& key, int expire_s,
               const Answer& answer) override
    {
        log_ += " set(" + std::to_string(cache) + "," +
                static_cast<char>(key[0]) + "," + answer.text + "," +
                std::to_string(expire_s) + ")";
        EXPECT_EQ(answer.created, now_);
    }

    void ask(ModelCall&& call) override
    {
        log_ += " model(" + call.question + (call.listen ? ",listen)" : ")");
    }

    void listen(FlightId flight) override
    {
        log_ += " listen(" + std::to_string(flight) + ")";
    }

    void cancel(FlightId flight) override
    {
        log_ += " cancel(" + std::to_string(flight) + ")";
    }

    void tell(FlightEvent&& event) override
    {
        log_ += " " + std::to_string(event.flight);
        switch (event.kind) {
            case FlightEvent::Kind::piece:
                log_ += "+" + event.piece;
                break;
            case FlightEvent::Kind::hit:
                log_ += "=" + event.answer.text + ",hit," +
                        std::to_string(event.ttl_s);
                break;
            case FlightEvent::Kind::answered:
                log_ += "=" + event.answer.text;
                break;
            case FlightEvent::Kind::failed:
                log_ += "!" + std::to_string(event.problem.status);
        }
    }

    // Since the last call.
    std::string log() { return std::exchange(log_, ""); }

    std::int64_t now_ = 1'000'000;
    bool down_ = false;
    bool no_memory_ = false;
    std::string log_;
    Errands errands_{*this};
};

// take() throws, and the same flight can be taken anew.
TEST_F(ErrandsTest, WithoutMemoryForALookupNothingIsLeftBehind)
{
    no_memory_ = true;
    EXPECT_THROW(take(1), std::bad_alloc);
    EXPECT_EQ(errands_.in_flight(), 0u);

    no_memory_ = false;
    take(1);
    EXPECT_EQ(log(), " get(0,1,1)");
}

TEST_F(ErrandsTest, MissIsAskedToldStored)
{
    take(1);
    EXPECT_EQ(log(), " get(0,1,1)");
    miss(1);
    EXPECT_EQ(log(), " model(q1)");
    answer("hello");
    EXPECT_EQ(log(), " 1=hello set(0,1,hello,100)");
    EXPECT_EQ(errands_.in_flight(), 0u);
}

TEST_F(ErrandsTest, HitIsTold)
{
    take(1);
    log();
    hit(1, "hello");
    EXPECT_EQ(log(), " 1=hello,hit,40");
    EXPECT_EQ(errands_.in_flight(), 0u);
}

TEST_F(ErrandsTest, StaleAnswerIsAMiss)
{
    take(1);
    log();
    hit(1, "old", 101);
    EXPECT_EQ(log(), " model(q1)");
    take(2);
    log();
    hit(2, "just over", 100);
    EXPECT_EQ(log(), " model(q2)");
}

TEST_F(ErrandsTest, WithoutCacheTheModelIsAskedAtOnce)
{
    take(1, Errand::no_cache);
    EXPECT_EQ(log(), " model(q1)");
    answer("hello");
    EXPECT_EQ(log(), " 1=hello");
}

TEST_F(ErrandsTest, CacheThatIsDownIsNotWaitedFor)
{
    down_ = true;
    take(1);
    EXPECT_EQ(log(), " model(q1)");
    down_ = false;
    answer("hello");
    EXPECT_EQ(log(), " 1=hello set(0,1,hello,100)");
}

TEST_F(ErrandsTest, EachUsesItsOwnCache)
{
    take(1, 0);
    take(2, 1);
    EXPECT_EQ(log(), " get(0,1,1) get(1,2,2)");
}

TEST_F(ErrandsTest, IncompleteAnswersAreNotStored)
{
    take(1);
    miss(1);
    log();
    model(FlightEvent::Kind::answered, "cut of", 1, false);
    EXPECT_EQ(log(), " 1=cut of");
}

TEST_F(ErrandsTest, FailuresAreNotStored)
{
    take(1);
    miss(1);
    log();
    model(FlightEvent::Kind::failed, "", 1);
    EXPECT_EQ(log(), " 1!502");
}

TEST_F(ErrandsTest, PiecesPassThrough)
{
    take(1, 0, true);
    miss(1);
    EXPECT_EQ(log(), " get(0,1,1) model(q1,listen)");
    model(FlightEvent::Kind::piece, "hel", 1);
    model(FlightEvent::Kind::piece, "lo", 1);
    EXPECT_EQ(log(), " 1+hel 1+lo");
    answer("hello");
    EXPECT_EQ(log(), " 1=hello set(0,1,hello,100)");
}

TEST_F(ErrandsTest, ListenerThatComesDuringTheLookup)
{
    take(1);
    log();
    errands_.listen(1);
    EXPECT_EQ(log(), "");
    miss(1);
    EXPECT_EQ(log(), " model(q1,listen)");
}

TEST_F(ErrandsTest, ListenerThatComesDuringTheCall)
{
    take(1);
    miss(1);
    log();
    errands_.listen(1);
    EXPECT_EQ(log(), " listen(1)");
}

TEST_F(ErrandsTest, ListenerThatComesTooLate)
{
    take(1);
    hit(1, "hello");
    log();
    errands_.listen(1);
    errands_.cancel(1);
    EXPECT_EQ(log(), "");
}

TEST_F(ErrandsTest, CancelDuringTheLookupAsksNobody)
{
    take(1);
    log();
    errands_.cancel(1);
    EXPECT_EQ(log(), " 1!499");
    miss(1);
    EXPECT_EQ(log(), "");
    EXPECT_EQ(errands_.in_flight(), 0u);
}

TEST_F(ErrandsTest, ARenewedAnswerIsNotLookedUpButKept)
{
    Errand errand;
    errand.call.flight = 1;
    errand.call.question = "q1";
    errand.cache = 0;
    errand.key[0] = '1';
    errand.cache_valid_s = 100;
    errand.look_up = false;
    errands_.take(std::move(errand));
    EXPECT_EQ(log(), " model(q1)");
    answer("hello");
    EXPECT_EQ(log(), " 1=hello set(0,1,hello,100)");
}

TEST_F(ErrandsTest, CancelDuringTheCallEndsWithTheCall)
{
    take(1);
    miss(1);
    log();
    errands_.cancel(1);
    EXPECT_EQ(log(), " cancel(1)");
    model(FlightEvent::Kind::failed, "", 1);
    EXPECT_EQ(log(), " 1!502");
}

TEST_F(ErrandsTest, AReplyOfTheCacheThatComesTooLateChangesNothing)
{
    take(1);
    miss(1);
    log();
    hit(1, "too late");
    EXPECT_EQ(log(), "");
    answer("hello");
    EXPECT_EQ(log(), " 1=hello set(0,1,hello,100)");
}

TEST_F(ErrandsTest, ASecondEndOfACallIsAFaultThatChangesNothing)
{
    InProduction production;
    take(1);
    miss(1);
    answer("hello");
    log();
    answer("again");
    model(FlightEvent::Kind::piece, "x", 1);
    EXPECT_EQ(log(), "");
    EXPECT_EQ(production.violated(), "an answer to what was not asked; ");
}

}  // namespace
}  // namespace chatbot
