#include "log/shipper.hpp"

#include "log/fixture.hpp"

namespace chatbot {
namespace {

TEST_F(LogShipperTest, LinesOfTheJournalBecomeRows)
{
    start();
    EXPECT_FALSE(run()) << "nothing to ship";
    ASSERT_TRUE(journal_->append(record("a") + record("b")));
    EXPECT_TRUE(run());
    EXPECT_EQ(ids(), "a b");
    EXPECT_FALSE(shipper_->has_batch());
    EXPECT_EQ(journal_->backlog(), 0u);
    EXPECT_EQ(told(), "");
}

TEST_F(LogShipperTest, SegmentsOfWorkersThatAreGoneAreShippedOnce)
{
    EXPECT_EQ(insert(record("a")), "+");
    start();
    std::ofstream(dir_ + "/log-1-1.jsonl") << record("a") << record("b");
    std::ofstream(dir_ + "/log-1-2.jsonl") << record("c") << "{\"torn";
    std::ofstream(dir_ + "/other-1-1.jsonl") << record("d");

    EXPECT_FALSE(run());
    EXPECT_FALSE(run(1));
    EXPECT_TRUE(run(1)) << "one was looked for";
    EXPECT_TRUE(run());
    EXPECT_EQ(ids(), "a b c");
}

TEST_F(LogShipperTest, TheTableIsMadeBeforeThereIsARecord)
{
    settings_.prepare = true;
    start();
    EXPECT_FALSE(run());
    EXPECT_EQ(count(), "0");

    shipper_->postgres().rest();
    EXPECT_FALSE(run());
    EXPECT_EQ(shipper_->postgres().connected_ms(), 0) << "once";
}

TEST_F(LogShipperTest, ABatchWaitsUntilWhatIsRefusedIsSetAside)
{
    start();
    std::ofstream(dir_ + "/rejected-full.jsonl")
        << std::string(settings_.max_size / 4, 'x');
    ASSERT_TRUE(journal_->append(record("a") + bad_ + record("b")));
    EXPECT_FALSE(run());
    EXPECT_EQ(ids(), "a b") << "no other record waits";
    EXPECT_TRUE(shipper_->has_batch());
    EXPECT_NE(told().find("cannot be set aside"), std::string::npos);

    ASSERT_TRUE(journal_->append(record("c")));
    EXPECT_FALSE(run());
    EXPECT_EQ(told(), "") << "told once";

    fs::remove(dir_ + "/rejected-full.jsonl");
    EXPECT_TRUE(run());
    EXPECT_EQ(shipper_->rejected(), set_aside_lines());
    EXPECT_NE(set_aside_lines().find("\"request_id\":\"bad\""),
              std::string::npos);
    EXPECT_TRUE(run());
    EXPECT_EQ(ids(), "a b c");
    EXPECT_EQ(shipper_->rejected(), "");
}

// A line that is alone cannot be told from a table that takes none.
TEST_F(LogShipperTest, LaterLinesShowThatALineIsAtFault)
{
    start();
    ASSERT_TRUE(journal_->append(bad_));
    EXPECT_FALSE(run());
    EXPECT_FALSE(run());

    order_.later = record("later");
    EXPECT_TRUE(run());
    EXPECT_NE(shipper_->rejected(), "");
    EXPECT_EQ(ids(), "") << "that was a rehearsal";
}

TEST_F(LogShipperTest, SoDoLaterLinesOfTheSameSegment)
{
    start();
    ASSERT_TRUE(journal_->append(bad_));
    EXPECT_FALSE(run());

    ASSERT_TRUE(journal_->append(record("later")));
    order_.slice.to = journal_->backlog();
    EXPECT_TRUE(run());
    EXPECT_NE(shipper_->rejected(), "");
    EXPECT_TRUE(run());
    EXPECT_EQ(ids(), "later");
}

TEST_F(LogShipperTest, AJournalThatCannotBeReadIsTold)
{
    start();
    order_.slice = {.fd = -1, .from = 0, .to = 7};
    shipper_->run(order_);
    EXPECT_EQ(shipper_->shipping(), Shipping::waiting);
    EXPECT_FALSE(shipper_->has_batch());
    EXPECT_EQ(told(), "E the journal in " + dir_ + " cannot be read\n");
}

TEST_F(LogShipperTest, AnOrphanThatCannotBeReadIsToldOnce)
{
    start();
    fs::create_symlink("nowhere", dir_ + "/log-1-1.jsonl");
    EXPECT_FALSE(run(1));
    EXPECT_EQ(told(), "E records are left behind in " + dir_ +
                          "/log-1-1.jsonl: not a regular file\n");
    EXPECT_FALSE(run(1));
    EXPECT_EQ(told(), "");
}

// The journal is the whole log.
TEST_F(LogShipperTest, WithoutADatabaseSegmentsStayAndArePutInOrder)
{
    settings_.conninfo.clear();
    settings_.prepare = true;
    start();
    std::ofstream(dir_ + "/log-1-1.jsonl") << "{}\n{\"torn";
    EXPECT_FALSE(run(1));
    EXPECT_EQ(fs::file_size(dir_ + "/log-1-1.jsonl"), 3u);
    EXPECT_TRUE(journal_->next_slice().empty());
    EXPECT_EQ(told(), "");
}

}  // namespace
}  // namespace chatbot
