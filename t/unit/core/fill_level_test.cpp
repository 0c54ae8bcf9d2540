#include "core/fill_level.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

TEST(FillLevelTest, OneLineEachWay)
{
    FillLevel fill;
    std::string told;
    for (unsigned used :
         {0, 99, 100, 102, 99, 150, 179, 180, 200, 172, 169, 200, 10, 0}) {
        const auto change = fill.update(used, 200);
        if (change != FillLevel::Change::none) {
            told += (change == FillLevel::Change::up ? " +" : " -") +
                    std::to_string(fill.level());
        }
    }
    EXPECT_EQ(told, " +50 +75 +90 -75 +90 -0");
}

TEST(FillLevelTest, WithoutAMaximum)
{
    FillLevel fill;
    EXPECT_EQ(fill.update(10, 0), FillLevel::Change::none);
}

}  // namespace
}  // namespace chatbot
