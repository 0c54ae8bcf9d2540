#include "postgres/connection.hpp"

#include <gtest/gtest.h>

// Connections are tried by log_postgres_test.cpp.

namespace chatbot {
namespace {

TEST(ConninfoTest, IsReadAsLibpqDoes)
{
    EXPECT_TRUE(valid_conninfo("host=db user=chatbot"));
    EXPECT_TRUE(valid_conninfo("postgresql://chatbot:secret@db:5433/logs"));
    EXPECT_FALSE(valid_conninfo("host=db nonsense"));
    EXPECT_FALSE(valid_conninfo("postgresql://db/logs?nonsense=1"));
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
