#include "core/lane.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

// The test plays the event loop and the worker thread, and keeps a transcript:
// ">ab" is a batch sent, "<ab" is a batch that came back.
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
        3, [this](auto& batch) { return start(batch); },
        [this](auto& batch) { log_ += " <" + text(batch); }};
};

TEST_F(LaneTest, IdleLaneSendsAtOnce)
{
    push("a");
    EXPECT_EQ(log_, " >a");
}

TEST_F(LaneTest, WhatWaitedLeavesTogether)
{
    push("a");
    push("b");
    push("c");
    lane_.finished();
    lane_.finished();

    EXPECT_EQ(log_, " >a <a >bc <bc");
    EXPECT_FALSE(lane_.busy());
}

TEST_F(LaneTest, GoesOnWithNothingWaiting)
{
    push("a");
    lane_.finished(true);
    push("b");
    lane_.finished(true);
    lane_.finished();

    EXPECT_EQ(log_, " >a <a > < >b <b");
}

TEST_F(LaneTest, FullLaneRefuses)
{
    push("a");  // out, so it does not count
    for (auto item : {"b", "c", "d"}) {
        push(item);
        EXPECT_TRUE(accepted_);
    }

    push("e");
    EXPECT_FALSE(accepted_);
}

TEST_F(LaneTest, FailedStartGivesItemsBack)
{
    start_fails_ = true;
    push("a");
    EXPECT_EQ(log_, " >a <a");
}

}  // namespace
}  // namespace chatbot
