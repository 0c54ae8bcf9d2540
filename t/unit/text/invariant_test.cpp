#include "text/invariant.hpp"

#include <gtest/gtest.h>

namespace chatbot {
namespace {

// Every test of this program ends with a violation.
const bool all_tests_abort = (abort_on_violation(true), true);

// What production does.
class InvariantTest : public testing::Test {
protected:
    void SetUp() override { abort_on_violation(false); }
    void TearDown() override { abort_on_violation(all_tests_abort); }
};

TEST_F(InvariantTest, WhatHoldsIsNotNoted)
{
    auto before = violations();
    EXPECT_TRUE(invariant(true, "never seen"));
    EXPECT_EQ(violations(), before);
    EXPECT_EQ(take_violation(), "");
}

TEST_F(InvariantTest, ViolationIsHandedOutOncePerPlaceAndCountedEachTime)
{
    auto before = violations();
    for (int i = 0; i < 3; i++) {
        EXPECT_FALSE(invariant(false, "one"));
    }
    EXPECT_FALSE(invariant(false, "two"));
    EXPECT_EQ(violations(), before + 4);

    auto first = take_violation();
    EXPECT_EQ(first.substr(0, 7), "one in ");
    EXPECT_NE(first.find("invariant_test.cpp:"), std::string::npos) << first;
    EXPECT_EQ(take_violation().substr(0, 4), "two ");
    EXPECT_EQ(take_violation(), "");
}

TEST_F(InvariantTest, InTestsAViolationAborts)
{
    abort_on_violation(true);
    EXPECT_DEATH(invariant(false, "too much"), "invariant: too much");
}

}  // namespace
}  // namespace chatbot
