#include "redis/url.hpp"

#include <gtest/gtest.h>

#include <string>

namespace chatbot {
namespace {

std::string parse(const std::string& url)
{
    RedisSettings s;
    if (auto wrong = parse_redis_url(url, s)) {
        return std::string("!") + wrong;
    }
    return s.user + "|" + s.password + "|" + s.host + "|" +
           std::to_string(s.port) + "|" + std::to_string(s.db) + "|" + s.path;
}

TEST(RedisUrlTest, Good)
{
    EXPECT_EQ(parse("redis://a"), "||a|6379|0|");
    EXPECT_EQ(parse("redis://a/"), "||a|6379|0|");
    EXPECT_EQ(parse("redis://a:1/15"), "||a|1|15|");
    EXPECT_EQ(parse("redis://:p@a"), "|p|a|6379|0|");
    EXPECT_EQ(parse("redis://u:p@a:2"), "u|p|a|2|0|");
    EXPECT_EQ(parse("redis://u%3A:p%40%2F%25@a"), "u:|p@/%|a|6379|0|");
    EXPECT_EQ(parse("redis://:a:b@c@a"), "|a:b@c|a|6379|0|");
    EXPECT_EQ(parse("redis://[::1]"), "||::1|6379|0|");
    EXPECT_EQ(parse("redis://[::1]:7/2"), "||::1|7|2|");
    EXPECT_EQ(parse("unix:/run/r.sock"), "|||6379|0|/run/r.sock");
}

TEST(RedisUrlTest, Bad)
{
    const auto scheme = "!neither redis://, rediss:// nor unix:";
    EXPECT_EQ(parse(""), scheme);
    EXPECT_EQ(parse("http://a"), scheme);
    EXPECT_EQ(parse("unix:r.sock"), "!no absolute path");
    EXPECT_EQ(parse("redis://"), "!no host");
    EXPECT_EQ(parse("redis://:1"), "!no host");
    EXPECT_EQ(parse("redis://[]"), "!no host");
    EXPECT_EQ(parse("redis://a?b=c"), "!invalid host");
    EXPECT_EQ(parse("redis://[::1"), "!invalid IPv6 address");
    for (auto port : {"", "0", "65536", "x", "1x", "-1", "99999999999"}) {
        EXPECT_EQ(parse("redis://a:" + std::string(port)), "!invalid port");
    }
    EXPECT_EQ(parse("redis://[::1]x"), "!invalid port");
    for (auto db : {"x", "-1", "1/2", "99999999999", "0?a=b"}) {
        EXPECT_EQ(parse("redis://a/" + std::string(db)),
                  "!invalid database number");
    }
    EXPECT_EQ(parse("redis://u@a"), "!no password after the user");
    EXPECT_EQ(parse("redis://u:@a"), "!no password after the user");
    for (auto bad : {"%", "%4", "%4x", "%x4", "%+4"}) {
        EXPECT_EQ(parse("redis://:" + std::string(bad) + "@a"),
                  "!invalid escape in user or password");
    }
}

TEST(RedisUrlTest, BadUrlChangesNothing)
{
    RedisSettings settings;
    settings.host = "h";
    settings.timeout_ms = 7;
    EXPECT_NE(parse_redis_url("redis://a:x", settings), nullptr);
    EXPECT_EQ(settings.host, "h");
    EXPECT_EQ(parse_redis_url("redis://a", settings), nullptr);
    EXPECT_EQ(settings.timeout_ms, 7);
}

}  // namespace
}  // namespace chatbot
