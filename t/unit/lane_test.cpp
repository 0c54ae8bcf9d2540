#include "lane.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

// The test plays the event loop and the worker thread, and keeps a transcript:
// "." asks for send(), ">ab" is a batch sent, "<ab" is a batch that came back.
class LaneTest : public testing::Test {
protected:
    void push(std::string item) { accepted_ = lane_.push(std::move(item)); }

    bool start(std::vector<std::string>& batch)
    {
        log_ += " >" + text(batch);
        return !start_fails_;
    }

    static std::string text(const std::vector<std::string>& batch)
    {
        std::string text;
        for (auto& item : batch) {
            text += item;
        }
        return text;
    }

    std::string log_;
    bool accepted_ = false;
    bool start_fails_ = false;
    Lane<std::string> lane_{
        3, [this] { log_ += "."; },
        [this](auto& batch) { return start(batch); },
        [this](auto& batch) { log_ += " <" + text(batch); }};
};

TEST_F(LaneTest, WhatCameInOneTurnLeavesTogether)
{
    push("a");
    push("b");
    lane_.send();
    EXPECT_EQ(log_, ".. >ab");
}

TEST_F(LaneTest, WhatWaitedLeavesTogether)
{
    push("a");
    lane_.send();
    push("b");
    push("c");
    lane_.send();  // of no use, a batch is out
    lane_.finished();
    lane_.finished();
    lane_.send();

    EXPECT_EQ(log_, ". >a <a >bc <bc");
    EXPECT_FALSE(lane_.busy());
}

TEST_F(LaneTest, GoesOnWithNothingWaiting)
{
    push("a");
    lane_.send();
    lane_.finished(true);
    push("b");
    lane_.finished(true);
    lane_.finished();

    EXPECT_EQ(log_, ". >a <a > < >b <b");
}

TEST_F(LaneTest, FullLaneRefuses)
{
    for (auto item : {"a", "b", "c"}) {
        push(item);
        EXPECT_TRUE(accepted_);
    }

    push("d");
    EXPECT_FALSE(accepted_);
}

TEST_F(LaneTest, FailedStartGivesItemsBack)
{
    start_fails_ = true;
    push("a");
    lane_.send();
    EXPECT_EQ(log_, ". >a <a");
}

}  // namespace
}  // namespace chatbot
