#include "journal/rejects.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include "journal/fixture.hpp"

namespace chatbot {
namespace {

using RejectsTest = JournalTest;

TEST_F(RejectsTest, RejectsAreAppended)
{
    const Rejects rejects{dir_, 64 * 1024};
    EXPECT_EQ(set_aside(rejects, "a\n"), "");
    EXPECT_EQ(set_aside(rejects, "b\nc\n"), "");

    EXPECT_EQ(content(dir_ + "/rejected.jsonl"), "a\nb\nc\n");
    EXPECT_NE(set_aside({dir_ + "/missing", 64 * 1024}, "a\n"), "");
    EXPECT_EQ(find_orphans(dir_, "", 10).segments.size(), 0u);
}

TEST_F(RejectsTest, TornRejectDoesNotSpoilTheNext)
{
    std::ofstream(dir_ + "/rejected.jsonl") << "a\n{\"torn";

    EXPECT_EQ(set_aside({dir_, 64 * 1024}, "b\n"), "");
    EXPECT_EQ(content(dir_ + "/rejected.jsonl"), "a\nb\n");
}

TEST_F(RejectsTest, FullFileIsRenamedAndAllTogetherAreBounded)
{
    const Rejects rejects{dir_, 256 * 1024};
    const auto reject = line(5000);
    std::size_t n = 0;
    std::string error;
    while ((error = set_aside(rejects, reject)).empty()) {
        ++n;
        ASSERT_LT(n, 100u);
    }

    EXPECT_GE(n, 10u);
    EXPECT_LE(n * reject.size(), rejects.max_size / 4);
    EXPECT_NE(error.find("quarter of max_size"), std::string::npos) << error;
    EXPECT_GE(files().size(), n / 4);
    for (const auto& file : files()) {
        EXPECT_LE(fs::file_size(file), rejects.max_size / 16);
    }

    // They are held, until there is room.
    fs::remove(dir_ + "/rejected.jsonl");
    EXPECT_EQ(set_aside(rejects, reject), "");
}

// Else it would hold up all others for good.
TEST_F(RejectsTest, OneLargeLineIsSetAside)
{
    EXPECT_EQ(set_aside({dir_, 64 * 1024}, line(100 * 1024)), "");
}

TEST_F(RejectsTest, TheyCountAsTheJournals)
{
    ASSERT_EQ(set_aside({dir_, 64 * 1024}, line(15 * 1024)), "");
    open(64 * 1024);

    EXPECT_FALSE(journal_->reserve(50 * 1024));
    EXPECT_TRUE(wait_for([&] { return journal_->reserve(40 * 1024); }));
}

TEST_F(RejectsTest, RenamedToASegmentTheyAreTakenInAgain)
{
    ASSERT_EQ(set_aside({dir_, 64 * 1024}, "a\n"), "");
    EXPECT_EQ(adopt(), 0u);

    fs::rename(dir_ + "/rejected.jsonl", dir_ + "/db-again.jsonl");
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), "a\n");
    EXPECT_EQ(sizes(), "");
}

// Whoever holds the file's lock, or put something else in its place, holds up
// nobody.
TEST_F(RejectsTest, FileThatCannotBeHadIsNotWaitedFor)
{
    const Rejects rejects{dir_, 64 * 1024};
    const auto path = dir_ + "/rejected.jsonl";
    ASSERT_EQ(set_aside(rejects, "a\n"), "");
    int fd = ::open(path.c_str(), O_RDONLY);
    ASSERT_EQ(flock(fd, LOCK_SH), 0);

    EXPECT_EQ(set_aside(rejects, "b\n"), "");
    close(fd);
    EXPECT_EQ(set_aside(rejects, "c\n"), "");
    EXPECT_EQ(content(path), "a\nc\n");
    EXPECT_EQ(sizes(), "2,4");

    fs::remove(path);
    ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
    EXPECT_EQ(set_aside(rejects, "d\n"), "");
    fs::remove(path);
    fs::create_symlink("elsewhere", path);
    EXPECT_EQ(set_aside(rejects, "e\n"), "");
    EXPECT_FALSE(fs::exists(dir_ + "/elsewhere"));
}

}  // namespace
}  // namespace chatbot
