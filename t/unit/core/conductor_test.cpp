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

// The test plays all services and keeps a transcript of what the conductor
// wants done and of what its waiters are told.
class ConductorTest : public testing::Test, public Conductor::Services {
protected:
    void TearDown() override
    {
        if (conductor_.in_flight() == 0) {
            EXPECT_EQ(reserved_, 0);
        }
    }

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
        client.seat = conductor_.ask(client, route, key_of(text),
                                     std::move(record), {.stream = stream});
    }

    void leave(const std::string& name)
    {
        conductor_.leave(clients_[name].seat);
    }

    void tell(FlightEvent::Kind kind, const std::string& text, FlightId flight)
    {
        FlightEvent event;
        event.flight = flight;
        event.kind = kind;
        if (kind != FlightEvent::Kind::hit) {
            event.call = {.duration_ms = 7,
                          .first_byte_ms = 3,
                          .attempts = 2,
                          .upstream = "east",
                          .upstream_request_id = "req_1"};
        }
        if (kind == FlightEvent::Kind::piece) {
            event.piece = text;
        } else if (kind == FlightEvent::Kind::failed) {
            event.problem = {502, text, "", 0};
        } else {
            event.answer.text = text;
            event.ttl_s = kind == FlightEvent::Kind::hit ? 3540 : 0;
        }
        std::list<FlightEvent> events;
        events.push_back(std::move(event));
        conductor_.on_events(std::move(events));
    }

    void hit(const std::string& text, FlightId flight = 1)
    {
        tell(FlightEvent::Kind::hit, text, flight);
    }
    void answer(const std::string& text, FlightId flight = 1)
    {
        tell(FlightEvent::Kind::answered, text, flight);
    }
    void piece(const std::string& text, FlightId flight = 1)
    {
        tell(FlightEvent::Kind::piece, text, flight);
    }
    void fail(const std::string& text, FlightId flight = 1)
    {
        tell(FlightEvent::Kind::failed, text, flight);
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
    void set_timer(std::uint64_t when_ms) override { timer_ = when_ms; }
    void settle_soon() override { log_ += " soon"; }

    void send(Errand&& errand) override
    {
        log_ += " errand" + std::to_string(errand.call.flight) + "(" +
                errand.call.question +
                (errand.cache == Errand::no_cache
                     ? ",no cache"
                     : "," + std::to_string(errand.cache) + "," +
                           std::to_string(errand.cache_valid_s)) +
                (errand.call.listen ? ",listen)" : ")");
    }

    void listen(FlightId flight) override
    {
        log_ += " listen" + std::to_string(flight);
    }

    void cancel(FlightId flight) override
    {
        log_ += " cancel" + std::to_string(flight);
    }

    bool reserve(std::size_t journal, std::size_t bytes) override
    {
        EXPECT_GE(bytes, Conductor::answer_room);
        EXPECT_LT(journal, 2u);
        if (no_room_) {
            return false;
        }
        ++reserved_;
        return true;
    }

    void release(std::size_t, std::size_t bytes) override
    {
        EXPECT_GE(bytes, Conductor::answer_room);
        EXPECT_GE(--reserved_, 0) << "released twice";
    }

    bool record(std::size_t journal, std::string_view lines) override
    {
        if (journal_full_ && journal == 0) {
            return false;
        }
        while (!lines.empty()) {
            auto line = lines.substr(0, lines.find('\n'));
            lines.remove_prefix(line.size() + 1);
            last_line_ = line;
            if (line.size() > 1024) {
                log_ += " long row";
                continue;
            }
            auto json = parse_json(line);
            log_ += " row(" +
                    std::string(*string_member(json.get(), "request_id")) +
                    "," + std::string(*string_member(json.get(), "status")) +
                    "," +
                    std::to_string(static_cast<int>(
                        *number_member(json.get(), "http_status"))) +
                    ")";
        }
        return true;
    }

    // Since the last call.
    std::string log() { return std::exchange(log_, ""); }

    struct Client final : Waiter {
        // Pulls what is new, unless the client is slow.
        void on_text() override
        {
            slow ? void(*log += " " + name + "~") : pull();
        }

        void pull()
        {
            auto text = Conductor::text(seat).substr(offset);
            *log += " " + name + "+" + std::string(text);
            offset += text.size();
        }

        void on_answer(const SharedReply& shared, CacheStatus status) override
        {
            reply = shared;
            *log +=
                " " + name + "=" +
                (reply->problem ? std::to_string(reply->problem.status)
                                : reply->answer.text + "," + to_string(status));
            ttl_s = reply->ttl_s;
            upstream_ms = reply->call.duration_ms;
            seat = nullptr;
        }

        std::string name;
        std::string* log = nullptr;
        Seat* seat = nullptr;
        bool slow = false;
        std::size_t offset = 0;
        int ttl_s = 0;
        int upstream_ms = 0;
        SharedReply reply;
    };

    ModelSettings settings_;
    Route route_{.model = &settings_, .cache = 0, .journal = 0};
    Route other_{.model = &settings_,
                 .cache = 1,
                 .journal = 1,
                 .cache_valid_s = 60};  // shares nothing with it
    bool no_room_ = false;
    bool journal_full_ = false;
    int reserved_ = 0;
    std::uint64_t now_ = 1000;
    std::uint64_t timer_ = 0;
    std::string log_;
    std::string last_line_;  // of the journal
    std::map<std::string, Client> clients_;
    Conductor conductor_{*this, 2, 3};
};

TEST_F(ConductorTest, AnswerIsRecordedThenTold)
{
    ask("a", "hi");
    EXPECT_EQ(log(), " errand1(hi,0,3600)");
    answer("hello");
    EXPECT_EQ(log(), " row(a,success,200) a=hello,MISS");
    EXPECT_EQ(clients_["a"].upstream_ms, 7);
    EXPECT_EQ(conductor_.in_flight(), 0u);
}

TEST_F(ConductorTest, HitIsRecordedAndAnswered)
{
    ask("a", "hi");
    log();
    hit("hello");
    EXPECT_EQ(log(), " row(a,cached,200) a=hello,HIT");
    EXPECT_EQ(clients_["a"].ttl_s, 3540);
    EXPECT_EQ(clients_["a"].upstream_ms, -1);
}

TEST_F(ConductorTest, EqualQuestionsAreAskedOnce)
{
    ask("a", "hi");
    ask("b", "hi");
    ask("c", "hi");
    EXPECT_EQ(log(), " errand1(hi,0,3600)");
    answer("hello");
    EXPECT_EQ(log(),
              " row(a,success,200) row(b,success,200) row(c,success,200)"
              " a=hello,MISS b=hello,COLLAPSED c=hello,COLLAPSED");
}

TEST_F(ConductorTest, WaitersShareOneAnswer)
{
    ask("a", "hi");
    ask("b", "hi");
    answer("hello");
    EXPECT_EQ(clients_["a"].reply, clients_["b"].reply);
}

TEST_F(ConductorTest, EqualQuestionsHitTogether)
{
    ask("a", "hi");
    ask("b", "hi");
    log();
    hit("hello");
    EXPECT_EQ(log(),
              " row(a,cached,200) row(b,cached,200) a=hello,HIT b=hello,HIT");
}

TEST_F(ConductorTest, EqualQuestionsOfTwoRoutesAreTwo)
{
    ask("a", "hi");
    ask(other_, "b", "hi");
    EXPECT_EQ(log(), " errand1(hi,0,3600) errand2(hi,1,60)");
}

TEST_F(ConductorTest, WithoutKeyEachIsLikeNoOther)
{
    ask("a", "");
    ask("b", "");
    EXPECT_EQ(log(), " errand1(,no cache) errand2(,no cache)");
    answer("hello");
    EXPECT_EQ(log(), " row(a,success,200) a=hello,BYPASS");
}

TEST_F(ConductorTest, WithoutLockEachAsksForItself)
{
    route_.cache_lock = false;
    ask("a", "hi");
    ask("b", "hi");
    EXPECT_EQ(log(), " errand1(hi,0,3600) errand2(hi,0,3600)");
}

TEST_F(ConductorTest, AfterTheAnswerTheFlightIsOver)
{
    ask("a", "hi");
    answer("hello");
    log();
    ask("b", "hi");
    EXPECT_EQ(log(), " errand2(hi,0,3600)");
}

TEST_F(ConductorTest, FailureIsRecordedToo)
{
    ask("a", "hi");
    log();
    fail("no");
    EXPECT_EQ(log(), " row(a,error,502) a=502");
}

// What the call of the model was like is most wanted where it failed.
TEST_F(ConductorTest, TheCallIsRecordedOnFailureToo)
{
    const std::string call =
        R"("first_byte_ms":3,"attempts":2,"upstream":"east",)"
        R"("upstream_request_id":"req_1")";
    ask("a", "hi");
    fail("no");
    EXPECT_NE(last_line_.find(call), std::string::npos) << last_line_;

    ask("b", "hi");
    answer("hello", 2);
    EXPECT_NE(last_line_.find(call), std::string::npos) << last_line_;

    ask("c", "hi");
    hit("hello", 3);
    EXPECT_EQ(last_line_.find("upstream"), std::string::npos) << last_line_;
}

TEST_F(ConductorTest, FlightOfAClientThatLeftGoesOn)
{
    ask("a", "hi");
    leave("a");
    ask("b", "hi");
    EXPECT_EQ(log(), " errand1(hi,0,3600)");
    answer("hello");
    EXPECT_EQ(log(),
              " row(a,success,499) row(b,success,200) b=hello,COLLAPSED");
}

TEST_F(ConductorTest, AbandonedFlightIsCancelledWhereThatIsWished)
{
    route_.cancel_abandoned = true;
    ask("a", "hi");
    ask("b", "hi");
    log();
    leave("a");
    EXPECT_EQ(log(), "");
    leave("b");
    EXPECT_EQ(log(), " cancel1");

    ask("c", "hi");
    EXPECT_EQ(log(), " errand2(hi,0,3600)") << "nobody joins a flight given up";
    fail("The client left.", 1);
    EXPECT_EQ(log(), " row(a,error,499) row(b,error,499)");
    answer("hello", 2);
    EXPECT_EQ(log(), " row(c,success,200) c=hello,MISS");
}

TEST_F(ConductorTest, TheModelHasTheLastWordOnTime)
{
    settings_.timeout_ms = 5000;
    ask("a", "hi");
    log();
    pass(6249);
    EXPECT_EQ(log(), "");
    pass(1);
    EXPECT_EQ(log(), " row(a,error,504) a=504");
    answer("late");
    EXPECT_EQ(log(), "");
    EXPECT_EQ(timer_, 0u) << "no timer without a flight that waits";
}

TEST_F(ConductorTest, ALateAnswerLeavesTheNextFlightAlone)
{
    settings_.timeout_ms = 5000;
    ask("a", "hi");
    pass(6250);
    ask("b", "hi");
    answer("late", 1);
    ask("c", "hi");
    log();
    answer("hello", 2);
    EXPECT_EQ(log(),
              " row(b,success,200) row(c,success,200) b=hello,MISS"
              " c=hello,COLLAPSED");
}

TEST_F(ConductorTest, TheTimerFollowsTheEarliestFlight)
{
    settings_.timeout_ms = 5000;
    ask("a", "one");
    EXPECT_EQ(timer_, now_ + 6250);
    pass(1000);
    ask("b", "two");
    answer("hello", 1);
    log();
    pass(5250);
    EXPECT_EQ(log(), "");
    EXPECT_EQ(timer_, now_ + 1000);
    pass(1000);
    EXPECT_EQ(log(), " row(b,error,504) b=504");
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
    EXPECT_EQ(reserved_, 3);
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
    hit("hello", 1);
    hit("hello", 2);
    EXPECT_EQ(log(), " a=503 row(b,cached,200) b=hello,HIT");
}

TEST_F(ConductorTest, PiecesGoToThoseWhoStream)
{
    ask("a", "hi", true);
    ask("b", "hi");
    EXPECT_EQ(log(), " errand1(hi,0,3600,listen)");
    piece("hel");
    piece("lo");
    EXPECT_EQ(log(), " a+hel a+lo");
    answer("hello");
    EXPECT_EQ(log(),
              " row(a,success,200) row(b,success,200) a=hello,MISS"
              " b=hello,COLLAPSED");
}

TEST_F(ConductorTest, TheFirstListenerHasTheReactorListen)
{
    ask("a", "hi");
    log();
    ask("b", "hi", true);
    ask("c", "hi", true);
    EXPECT_EQ(log(), " listen1");
    piece("hello");
    EXPECT_EQ(log(), " b+hello c+hello");
}

TEST_F(ConductorTest, WhoeverJoinsGetsWhatWasWrittenButNotWithinAsk)
{
    ask("a", "hi", true);
    piece("hel");
    log();
    ask("b", "hi", true);
    EXPECT_EQ(log(), " soon");
    conductor_.on_settle();
    const std::string told = log();
    EXPECT_NE(told.find(" b+hel"), told.npos) << told;
    piece("lo");
    EXPECT_EQ(log(), " a+lo b+lo");
}

TEST_F(ConductorTest, SlowClientDelaysNobodyAndLosesNothing)
{
    ask("a", "hi", true);
    ask("b", "hi", true);
    clients_["a"].slow = true;
    log();
    piece("hel");
    piece("lo");
    EXPECT_EQ(log(), " a~ b+hel a~ b+lo");
    clients_["a"].pull();
    EXPECT_EQ(log(), " a+hello");
}

TEST_F(ConductorTest, ClientThatLeftIsNotTold)
{
    ask("a", "hi", true);
    piece("hel");
    ask("b", "hi", true);
    leave("a");
    leave("b");
    log();
    conductor_.on_settle();
    piece("lo");
    answer("hello");
    EXPECT_EQ(log(), " row(a,success,499) row(b,success,499)");
}

// One answer of a megabyte is written for each of these, which would hold up
// the event loop for a second.
TEST_F(ConductorTest, LongAnswersAreRecordedInPortions)
{
    constexpr int count = 300;
    Conductor conductor(*this, 2, count);
    std::vector<Client> clients(count);
    std::string log;
    for (auto& client : clients) {
        client.log = &log;
        Record record;
        record.request_id = "x";
        conductor.ask(client, route_, key_of("hi"), std::move(record));
    }

    FlightEvent event;
    event.flight = 1;
    event.kind = FlightEvent::Kind::answered;
    event.answer.text.assign(1024 * 1024, 'x');
    std::list<FlightEvent> events;
    events.push_back(std::move(event));
    log_.clear();
    conductor.on_events(std::move(events));

    int turns = 1;
    while (conductor.in_flight() > 0) {
        EXPECT_TRUE(log_.ends_with(" soon"));
        log_.clear();
        log.clear();
        const auto before = conductor.in_flight();
        conductor.on_settle();
        EXPECT_EQ(before - conductor.in_flight(), 1u) << "in one turn";
        ++turns;
    }
    EXPECT_EQ(turns, count);
    EXPECT_EQ(reserved_, 0);
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
