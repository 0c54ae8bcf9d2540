// Segments that nobody ships: which of them hold records, and who holds them.

#include <fcntl.h>
#include <sys/file.h>

#include "journal/fixture.hpp"
#include "journal/segment.hpp"

namespace chatbot {
namespace {

class AbandonedTest : public JournalTest {
protected:
    void write(const std::string& name, std::string_view lines)
    {
        std::ofstream(dir_ + "/" + name) << lines;
    }

    // The names of what find_abandoned() finds.
    std::string abandoned() const
    {
        std::string names;
        for (const auto& path : find_abandoned(dir_, "db-")) {
            names +=
                (names.empty() ? "" : " ") + fs::path(path).filename().string();
        }
        return names;
    }
};

TEST_F(AbandonedTest, OldestFirst)
{
    write("db-2.jsonl", "b\n");
    write("db-1.jsonl", "a\n");
    write("db-3.jsonl", "c");
    EXPECT_EQ(abandoned(), "db-1.jsonl db-2.jsonl db-3.jsonl");
}

TEST_F(AbandonedTest, NotWhereThereIsNoRecord)
{
    write("db-1.jsonl", "");
    EXPECT_EQ(abandoned(), "");

    // As an empty segment that is taken over is removed at any moment.
    fs::create_symlink("gone", dir_ + "/db-2.jsonl");
    EXPECT_EQ(abandoned(), "");
}

TEST_F(AbandonedTest, NotWhatIsNoSegment)
{
    write("other-1.jsonl", "a\n");
    write("rejected-1.jsonl", "b\n");
    write("db-1.txt", "c\n");
    fs::create_directory(dir_ + "/db-2.jsonl");
    fs::create_symlink("other-1.jsonl", dir_ + "/db-3.jsonl");
    EXPECT_EQ(abandoned(), "");
    EXPECT_TRUE(find_abandoned(dir_ + "/missing", "db-").empty());
}

TEST_F(AbandonedTest, NotWhatALivingProcessHolds)
{
    EXPECT_FALSE(has_held(dir_, "db-"));

    ASSERT_TRUE(journal_->append("a\n"));
    EXPECT_EQ(abandoned(), "");
    EXPECT_TRUE(has_held(dir_, "db-"));
    EXPECT_FALSE(has_held(dir_, "other-"));

    journal_.reset();
    EXPECT_NE(abandoned(), "");
    EXPECT_FALSE(has_held(dir_, "db-"));
}

TEST_F(AbandonedTest, SomebodyElseWhoLooksIsNoHolder)
{
    write("db-1.jsonl", "a\n");
    const File other = open_file(dir_ + "/db-1.jsonl", O_RDONLY);
    ASSERT_TRUE(try_lock(other, LOCK_SH));
    EXPECT_EQ(abandoned(), "db-1.jsonl");
    EXPECT_FALSE(has_held(dir_, "db-"));
}

TEST_F(AbandonedTest, AnEmptySegmentOfALivingProcessIsHeld)
{
    ASSERT_TRUE(has_room());
    EXPECT_EQ(sizes(), "0");
    EXPECT_EQ(abandoned(), "");
    EXPECT_TRUE(has_held(dir_, "db-"));
}

TEST_F(AbandonedTest, TidyingRemovesWhatIsEmptyAndLeavesTheRest)
{
    write("db-1.jsonl", "");
    write("db-2.jsonl", "{\"torn");
    write("db-3.jsonl", "a\n{\"torn");
    ASSERT_TRUE(journal_->append("of a living process\n"));

    EXPECT_TRUE(tidy_orphans(dir_, "db-").empty());
    EXPECT_EQ(abandoned(), "db-3.jsonl");
    EXPECT_EQ(content(dir_ + "/db-3.jsonl"), "a\n");
    EXPECT_EQ(files().size(), 2u);
}

TEST_F(AbandonedTest, WhatTheFilesOfAJournalTake)
{
    write("db-1.jsonl", "a\n");
    write("db-2.jsonl", "bc\n");
    write("rejected.jsonl", "d\n");
    write("no-segment.txt", "e\n");

    const auto all = usage(dir_, "db-");
    EXPECT_EQ(all.bytes, 5u);
    EXPECT_GE(all.disk, 7u);
    EXPECT_EQ(disk_size(dir_, "", {}), all.disk);
    EXPECT_LT(disk_size(dir_, "", {dir_ + "/db-1.jsonl"}), all.disk);
    EXPECT_FALSE(disk_size(dir_ + "/missing", "", {}));
}

}  // namespace
}  // namespace chatbot
