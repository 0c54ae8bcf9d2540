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
           std::to_string(s.port) + "|" + std::to_string(s.db) + "|" + s.path +
           (s.tls ? "|tls" : "");
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
    EXPECT_EQ(parse("rediss://:p@a:2/1"), "|p|a|2|1||tls");
    EXPECT_EQ(parse("unix:/run/r.sock"), "|||6379|0|/run/r.sock");
}

// Whether `url` is refused with words that hold `part`, and without "s3cret".
testing::AssertionResult refused(const std::string& url,
                                 const std::string& part)
{
    const auto said = parse(url);
    if (said.starts_with("!") && said.find(part) != said.npos &&
        said.find("s3cret") == said.npos) {
        return testing::AssertionSuccess();
    }
    return testing::AssertionFailure() << url << " gives " << said;
}

TEST(RedisUrlTest, Scheme)
{
    const auto scheme = "neither redis://, rediss:// nor unix:";
    EXPECT_TRUE(refused("http://a", scheme));
    EXPECT_TRUE(refused("://a", scheme));
    for (auto none : {"", "a", "a:6379", "redis:a", "redis:/a"}) {
        EXPECT_TRUE(refused(none, "no \"redis://\""));
    }
    for (auto several : {"redis+cluster", "redis-cluster", "redis+sentinel",
                         "rediss+sentinel", "redis-sentinel"}) {
        EXPECT_TRUE(refused(std::string(several) + "://:s3cret@a:1,b:2/0",
                            "cluster and sentinel are not supported"));
    }
}

TEST(RedisUrlTest, Tls)
{
    RedisSettings s;
    EXPECT_EQ(parse_redis_url("rediss://u:p@a:7/2", s), nullptr);
    EXPECT_TRUE(s.tls);
    EXPECT_EQ(s.host, "a");
    EXPECT_EQ(parse_redis_url("redis://a", s), nullptr);
    EXPECT_FALSE(s.tls);
}

TEST(RedisUrlTest, UnixSocket)
{
    EXPECT_EQ(parse("unix:///run/r.sock"), "|||6379|0|///run/r.sock");
    EXPECT_TRUE(refused("unix:r.sock", "no absolute path"));
    EXPECT_TRUE(refused("unix:", "no absolute path"));
    EXPECT_TRUE(refused("unix:/r.sock?db=1", "\"db\" are not supported"));
    EXPECT_TRUE(refused("unix:/r.sock?password=s3cret", "not supported"));
    EXPECT_TRUE(refused("unix://:s3cret@/r.sock", "user and password are not"));
    EXPECT_TRUE(refused("unix:u:s3cret@/r.sock", "user and password are not"));
}

TEST(RedisUrlTest, RawPassword)
{
    for (auto url : {"redis://:s3cret/x@a", "redis://:/s3cret@a:1/2",
                     "redis://:p@ss/w#s3cret@a", "redis://u:1/s3cret@a/1",
                     "redis://:s3cret/?#@a"}) {
        EXPECT_TRUE(refused(url, "a \"/\" is written \"%2F\""));
    }
    for (auto bad : {"%", "%4", "%4x", "%x4", "%+4"}) {
        EXPECT_TRUE(refused("redis://:s3cret" + std::string(bad) + "@a",
                            "a \"%\" is written \"%25\""));
    }
    for (auto url : {"redis://s3cret@a", "redis://u:@a", "redis://@a"}) {
        EXPECT_TRUE(refused(url, "is written \":password@host\""));
    }

    // without a "/" they can only mean one thing
    EXPECT_EQ(parse("redis://:p@s:s?w#d@a"), "|p@s:s?w#d|a|6379|0|");
}

TEST(RedisUrlTest, Host)
{
    for (auto none : {"redis://", "redis://:1", "redis://[]", "redis:///1",
                      "redis://:s3cret@", "redis://:s3cret@/1"}) {
        EXPECT_TRUE(refused(none, "no host"));
    }
    EXPECT_TRUE(refused("redis://[::1", "invalid IPv6 address"));
    EXPECT_TRUE(refused("redis://::1", "is written \"[::1]\""));
    EXPECT_TRUE(refused("redis://fe80::1:6379", "is written \"[::1]\""));
    EXPECT_TRUE(refused("redis://a b", "invalid host"));
    EXPECT_TRUE(refused("redis://a#b", "invalid host"));
    EXPECT_TRUE(refused("redis://:s3cret@a,b:1", "several hosts"));
    for (auto port : {"", "0", "65536", "x", "1x", "-1", "99999999999"}) {
        EXPECT_TRUE(refused("redis://a:" + std::string(port), "invalid port"));
    }
    EXPECT_TRUE(refused("redis://[::1]x", "invalid port"));
}

TEST(RedisUrlTest, Database)
{
    for (auto db : {"x", "-1", "1/2", "99999999999", "1#"}) {
        EXPECT_TRUE(
            refused("redis://a/" + std::string(db), "invalid database number"));
    }
    for (auto parameters : {"?db=1", "/?db=1", "/0?password=s3cret"}) {
        EXPECT_TRUE(refused("redis://a" + std::string(parameters),
                            "is written \"redis://host/1\""));
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
