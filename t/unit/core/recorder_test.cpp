#include "core/recorder.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "core/route.hpp"

namespace chatbot {
namespace {

// The test plays the journals, and keeps a transcript.
class RecorderTest : public testing::Test, public Recorder::Services, Waiter {
protected:
    // A question for that journal is answered.
    void settle(const std::string& question, const SharedReply& reply,
                std::size_t journal = 0, bool waits = true)
    {
        Record record;
        record.request_text = question;
        std::list<Seat> seats(1);
        auto& seat = seats.back();
        seat.waiter = waits ? this : nullptr;
        seat.record = record;
        seat.journal = journal;
        seat.reserved = 10;
        seat.since_ms = now_;
        recorder_.add(seats, reply);
        EXPECT_TRUE(seats.empty());
    }

    static SharedReply answer(const std::string& text, bool hit = false)
    {
        auto reply = std::make_shared<Reply>();
        reply->answer.text = text;
        reply->hit = hit;
        return reply;
    }

    std::uint64_t now_ms() override { return now_; }
    void release(std::size_t journal, std::size_t bytes) override
    {
        log_ += " free(" + std::to_string(journal) + "," +
                std::to_string(bytes) + ")";
    }
    bool record(std::size_t journal, std::string_view lines) override
    {
        log_ += " write(" + std::to_string(journal) + "," +
                std::to_string(std::count(lines.begin(), lines.end(), '\n')) +
                ")";
        return journal != full_;
    }
    void settled(const Record& record, bool durable) override
    {
        log_ += " " + record.request_text + ":" + record.status + "," +
                std::to_string(record.http_status) + "," +
                std::to_string(record.duration_ms) + (durable ? "" : ",lost");
    }
    void on_text() override {}
    void on_answer(const SharedReply&, CacheStatus) override {}

    std::string log_;
    std::uint64_t now_ = 1000;
    std::size_t full_ = 9;
    Recorder recorder_{*this, 2};
};

TEST_F(RecorderTest, OneWriteForEachJournal)
{
    EXPECT_TRUE(recorder_.empty());
    settle("a", answer("x"));
    settle("b", answer("x", true), 1);
    settle("c", answer("x"));
    EXPECT_FALSE(recorder_.empty());

    now_ += 7;
    const auto seats = recorder_.record_some();
    EXPECT_EQ(log_,
              " free(0,10) free(1,10) free(0,10) write(0,2) write(1,1)"
              " a:success,200,7 b:cached,200,7 c:success,200,7");
    EXPECT_EQ(seats.size(), 3u);
    EXPECT_EQ(seats.front().stage, Seat::Stage::recorded);
    EXPECT_TRUE(recorder_.empty());
}

TEST_F(RecorderTest, WhatCannotBeRecordedIsRefused)
{
    full_ = 1;
    settle("a", answer("x"));
    settle("b", answer("x"), 1);
    const auto seats = recorder_.record_some();
    EXPECT_EQ(log_,
              " free(0,10) free(1,10) write(0,1) write(1,1)"
              " a:success,200,0 b:success,200,0,lost");
    EXPECT_FALSE(seats.front().reply->problem);
    EXPECT_EQ(seats.back().reply->problem.status, 503);
}

TEST_F(RecorderTest, WithoutAJournalNothingIsWritten)
{
    settle("a", Recorder::refusal(), Route::none);
    (void)recorder_.record_some();
    EXPECT_EQ(log_, " a:error,503,0,lost");
}

TEST_F(RecorderTest, ThoseWhoLeft)
{
    settle("a", answer("x"), 0, false);
    settle("b", answer("x"));
    recorder_.leave_all();
    (void)recorder_.record_some();
    EXPECT_EQ(log_,
              " free(0,10) free(0,10) write(0,2) a:success,499,0"
              " b:success,499,0");
}

TEST_F(RecorderTest, LongAnswersAreRecordedInPortions)
{
    const std::string text(200 * 1024, 'x');
    for (int i = 0; i < 5; i++) {
        settle("a", answer(text));
    }
    EXPECT_EQ(recorder_.record_some().size(), 2u);
    EXPECT_EQ(recorder_.record_some().size(), 2u);
    EXPECT_EQ(recorder_.record_some().size(), 1u);
    EXPECT_TRUE(recorder_.empty());
    EXPECT_TRUE(recorder_.record_some().empty());
}

}  // namespace
}  // namespace chatbot
