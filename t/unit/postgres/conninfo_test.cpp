#include "postgres/conninfo.hpp"

#include <gtest/gtest.h>

#include <algorithm>

// Connections are tried by table_test.cpp.

namespace chatbot {
namespace {

TEST(ConninfoTest, IsReadAsLibpqDoes)
{
    for (auto right :
         {"host=db user=chatbot", "host=a,b port=1,65535",
          "postgresql://chatbot:secret@db:5433/logs",
          "postgresql://a:b@c:1,d:2/e", "host=@abstract",
          "postgresql://me:my%40secret@db/logs", "sslmode=require", ""}) {
        EXPECT_EQ(wrong_conninfo(right), "") << right;
    }
}

TEST(ConninfoTest, ReasonsAreLibpqsOwn)
{
    auto wrong = [](const std::string& conninfo) {
        return wrong_conninfo(conninfo);
    };
    EXPECT_EQ(wrong("port=99999"), "invalid port \"99999\"");
    EXPECT_EQ(wrong("host=a,b port=1,0"), "invalid port \"0\"");
    EXPECT_EQ(wrong("host=a,b port=1,2,3"),
              "the number of ports is not that of the hosts");
    EXPECT_EQ(wrong("port=x"), "invalid port");
    for (auto url : {"postgresql+psycopg2://me:secret@db/logs", "mysql://db",
                     "\"postgresql://me:secret@db/logs\""}) {
        EXPECT_EQ(wrong(url),
                  "neither postgresql:// nor postgres:// at the start");
    }
    EXPECT_EQ(wrong("host=db password=a b"), "missing \"=\" after \"...\"");
    EXPECT_EQ(wrong("host=db nonsense=1"),
              "invalid connection option \"nonsense\"");
    EXPECT_EQ(wrong("host=db sslmode=maybe"),
              "invalid sslmode value: \"maybe\"");
    EXPECT_NE(wrong("host=db service=none").find("\"none\" not found"),
              std::string::npos);
}

TEST(ConninfoTest, ReasonsHoldNoPassword)
{
    for (auto conninfo :
         {"host=db password=my secret", "secret",
          "postgresql://me:secret%zz@db", "postgresql://me:secret@db/?x=secret",
          "postgresql://me:my@secret@db/logs",
          "postgresql://me:/secret@db/logs", "password=my secret=x",
          "password=my \"secret", "host=db password=\"my secret\"",
          "\"password=my secret\"", "password=secret sslmode=secret"}) {
        auto reason = wrong_conninfo(conninfo);
        EXPECT_NE(reason, "") << conninfo;
        EXPECT_EQ(reason.find("secret"), std::string::npos) << reason;
    }
}

TEST(ConninfoTest, EnvironmentIsThatOfLibpq)
{
    auto names = libpq_environment();
    for (auto name : {"PGHOST", "PGPASSFILE", "PGSSLMODE", "PGSERVICE",
                      "PGSERVICEFILE", "PGOPTIONS"}) {
        EXPECT_NE(std::find(names.begin(), names.end(), name), names.end())
            << name;
    }
}

TEST(ConninfoTest, DatabasesHaveNames)
{
    EXPECT_EQ(database_name("host=db user=me password=secret"), "db:5432/me");
    EXPECT_EQ(database_name("postgresql://me:secret@db:5433/logs"),
              "db:5433/logs");
    EXPECT_EQ(database_name("dbname=logs"), ":5432/logs");
}

}  // namespace
}  // namespace chatbot
