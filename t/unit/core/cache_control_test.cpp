#include "core/cache_control.hpp"

#include <gtest/gtest.h>

namespace chatbot {
namespace {

TEST(CacheControlTest, WhatARequestWants)
{
    for (auto value :
         {"", "max-age=60", "max-age=00", "x-no-cache", "no-cachet",
          "public, , max-stale", ",", "no-transform"}) {
        EXPECT_EQ(read_cache_control(value), CacheUse::usual) << value;
    }
    for (auto value : {"no-cache", "No-Cache", "max-age=0", " no-cache ",
                       "no-transform,no-cache", "max-age=0, must-revalidate"}) {
        EXPECT_EQ(read_cache_control(value), CacheUse::renew) << value;
    }
    for (auto value : {"no-store", "no-cache, NO-STORE", "no-store,no-cache"}) {
        EXPECT_EQ(read_cache_control(value), CacheUse::nothing) << value;
    }
}

}  // namespace
}  // namespace chatbot
