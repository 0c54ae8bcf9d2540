#include "journal/segment.hpp"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/file.h>

#include "journal/fixture.hpp"

namespace chatbot {
namespace {

using SegmentTest = JournalTest;

TEST_F(SegmentTest, ReservedBlocksAreGivenBack)
{
    constexpr std::uint64_t reserved = 3 * 1024 * 1024;
    ASSERT_TRUE(journal_->reserve(reserved));
    ASSERT_TRUE(journal_->append("a\n"));
    if (allocated() < reserved) {
        GTEST_SKIP() << "this file system reserves nothing";
    }

    open();
    EXPECT_LT(allocated(), 64u * 1024) << "left behind";

    killed_after("b\n", reserved);
    EXPECT_GT(allocated(), reserved);
    EXPECT_EQ(tidy_orphans(dir_, "db-").size(), 0u);
    EXPECT_LT(allocated(), 64u * 1024) << "killed";
    EXPECT_EQ(sizes(), "2,2");
    EXPECT_EQ(adopt(), 2u) << "closed, not kept";
}

TEST_F(SegmentTest, WhatIsNotShippedIsLeftToTheNext)
{
    ASSERT_TRUE(journal_->append("a\n"));
    open();

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship(), "a\n");
    EXPECT_EQ(sizes(), "");
}

TEST_F(SegmentTest, LinesOfAKilledProcessAreAdopted)
{
    killed_after("a\n");
    killed_after("b\n");
    ASSERT_TRUE(journal_->append("c\n"));

    EXPECT_EQ(adopt(), 2u);
    EXPECT_EQ(journal_->backlog(), 6u);

    std::string all = ship_all();
    EXPECT_EQ(all.size(), 6u);
    EXPECT_EQ(all.substr(2, 2), "c\n") << "new ones do not wait for all old";
    EXPECT_EQ(sizes(), "0");
}

TEST_F(SegmentTest, NoSegmentIsAdoptedTwice)
{
    killed_after("a\n");

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(adopt(), 0u);
}

TEST_F(SegmentTest, AdoptionDoesNotMixUpTheSliceThatIsOut)
{
    killed_after("orphan\n");
    ASSERT_TRUE(journal_->append("a\n"));

    std::string lines = read();
    adopt();
    journal_->shipped(lines.size());

    EXPECT_EQ(lines, "a\n");
    EXPECT_EQ(ship_all(), "orphan\n");
}

TEST_F(SegmentTest, OwnSegmentsAreNoOrphans)
{
    ASSERT_TRUE(journal_->append("a\n"));

    EXPECT_EQ(adopt(), 0u);
}

// The child's segment is looked at while the child lives, and once it is dead.
TEST_F(SegmentTest, SegmentsOfALivingProcessAreNoOrphans)
{
    int ready[2];
    int go[2];
    ASSERT_EQ(pipe(ready), 0);
    ASSERT_EQ(pipe(go), 0);

    pid_t pid = fork();
    if (pid == 0) {
        close(go[1]);
        Journal journal(dir_, "db", 64 * 1024 * 1024);
        char c = journal.append("child\n") ? '+' : '-';
        (void)!write(ready[1], &c, 1);
        (void)!::read(go[0], &c, 1);  // until the parent closes its end
        _exit(0);
    }

    char c;
    ASSERT_EQ(::read(ready[0], &c, 1), 1);
    ASSERT_EQ(c, '+');
    EXPECT_EQ(adopt(), 0u);

    close(go[1]);
    ASSERT_EQ(waitpid(pid, nullptr, 0), pid);
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship(), "child\n");

    for (int fd : {ready[0], ready[1], go[0]}) {
        close(fd);
    }
}

TEST_F(SegmentTest, OnlySegmentsWithThePrefixAreAdopted)
{
    std::ofstream(dir_ + "/other-1-1.jsonl") << "a\n";
    std::ofstream(dir_ + "/db-1-1.txt") << "b\n";
    fs::create_directory(dir_ + "/db-1-2.jsonl");
    fs::create_symlink("other-1-1.jsonl", dir_ + "/db-1-3.jsonl");
    ASSERT_EQ(mkfifo((dir_ + "/db-1-4.jsonl").c_str(), 0600), 0);

    EXPECT_EQ(adopt(), 0u);
    std::sort(orphan_errors_.begin(), orphan_errors_.end());
    EXPECT_EQ(orphan_errors_,
              std::vector({dir_ + "/db-1-2.jsonl: not a regular file",
                           dir_ + "/db-1-3.jsonl: not a regular file",
                           dir_ + "/db-1-4.jsonl: not a regular file"}));
    auto missing = find_orphans(dir_ + "/missing", "db-", 1);
    EXPECT_TRUE(missing.segments.empty() && missing.errors.empty());
}

TEST_F(SegmentTest, TornLastLineIsCutOff)
{
    std::ofstream(dir_ + "/db-1-1.jsonl") << "a\nb\n{\"torn";

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(sizes(), "4");
    EXPECT_EQ(ship(), "a\nb\n");
}

TEST_F(SegmentTest, LargeTornLineIsCutOff)
{
    std::ofstream(dir_ + "/db-1-1.jsonl") << "a\n" << std::string(300000, 'x');

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship(), "a\n");
}

TEST_F(SegmentTest, OrphanWithoutAWholeLineIsRemoved)
{
    std::ofstream(dir_ + "/db-1-1.jsonl") << "{\"torn";
    std::ofstream(dir_ + "/db-1-2.jsonl").flush();

    EXPECT_EQ(adopt(), 0u);
    EXPECT_EQ(sizes(), "");
}

TEST_F(SegmentTest, NamesTellWhenAndWho)
{
    ASSERT_TRUE(journal_->append("a\n"));

    ASSERT_EQ(files().size(), 1u);
    auto name = files()[0].filename().string();
    auto pattern =
        "db-2???????T??????Z-" + std::to_string(getpid()) + "-1.jsonl";
    EXPECT_EQ(fnmatch(pattern.c_str(), name.c_str(), 0), 0) << name;
}

TEST_F(SegmentTest, NameThatIsThereIsNotUsedAgain)
{
    {
        Journal other(dir_, "db", 1024 * 1024);  // counts from 1, too
        ASSERT_TRUE(other.append("old\n"));
    }
    ASSERT_TRUE(journal_->append("new\n"));

    EXPECT_EQ(files().size(), 2u);
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), "old\nnew\n");
}

// Two processes append, ship and adopt at once; no line is lost.
TEST_F(SegmentTest, TwoProcessesShareADirectory)
{
    constexpr int n = 2000;
    int out[2];
    ASSERT_EQ(pipe(out), 0);

    for (char name : {'a', 'b'}) {
        if (fork() == 0) {
            open(400 * 1000);
            auto ship_some = [&] {
                adopt();
                std::string lines = ship();
                return write(out[1], lines.data(), lines.size()) >= 0;
            };

            for (int i = 0; i < n; i++) {
                std::string text = name + std::to_string(i) + "\n";
                while (!has_room() || !journal_->append(text)) {
                    ship_some();
                }
                if (i % 100 == 99) {
                    ship_some();
                }
            }
            _exit(0);  // and leaves what is not shipped
        }
    }
    close(out[1]);

    std::string all;
    char buffer[4096];
    for (ssize_t got; (got = ::read(out[0], buffer, sizeof(buffer))) > 0;) {
        all.append(buffer, static_cast<std::size_t>(got));
    }
    close(out[0]);
    while (wait(nullptr) != -1) {
    }
    adopt();
    all += ship_all();

    std::vector<std::string> lines;
    std::istringstream stream(all);
    for (std::string text; std::getline(stream, text);) {
        lines.push_back(text);
    }
    std::sort(lines.begin(), lines.end());
    lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
    EXPECT_EQ(lines.size(), 2u * n);
}

TEST_F(SegmentTest, SomeAreAdoptedAtATimeOldestFirst)
{
    constexpr std::size_t n = 3 * Journal::max_open;
    for (std::size_t i = 0; i < n; i++) {
        std::ofstream(dir_ + "/db-" + std::to_string(100 + i) + ".jsonl")
            << i << "\n";
    }
    auto before = static_cast<std::size_t>(descriptors());

    auto found = find_orphans(dir_, "db-", journal_->vacancies());
    EXPECT_EQ(found.segments.size(), Journal::max_open);
    EXPECT_TRUE(found.more);
    journal_->adopt(std::move(found.segments));
    EXPECT_EQ(journal_->vacancies(), 0u);
    EXPECT_EQ(static_cast<std::size_t>(descriptors()),
              before + Journal::max_open);
    EXPECT_EQ(ship().substr(0, 2), "0\n");

    std::string all = ship_all();
    while (adopt() != 0) {
        all += ship_all();
    }
    EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), n - 1);
    EXPECT_EQ(sizes(), "");
}

// While PostgreSQL is away for long.
TEST_F(SegmentTest, OwnSegmentsBeyondTheLimitAreLeftToBeAdopted)
{
    open(64 * 1024);
    auto before = static_cast<std::size_t>(descriptors());
    constexpr std::size_t n = 2 * Journal::max_open;
    for (std::size_t i = 0; i < n; i++) {
        ASSERT_TRUE(journal_->append(line(16 * 1024)));
    }
    EXPECT_EQ(files().size(), n);
    EXPECT_LE(static_cast<std::size_t>(descriptors()),
              before + Journal::max_open + 1);
    EXPECT_TRUE(journal_->take_left_behind());

    auto all = ship_all();
    while (adopt() != 0) {
        all += ship_all();
    }
    EXPECT_EQ(all.size(), n * 16 * 1024);
}

// A thread reads it.
TEST_F(SegmentTest, SegmentThatIsReadIsNotClosed)
{
    open(64 * 1024);
    for (std::size_t i = 0; i < Journal::max_open + 1; i++) {
        ASSERT_TRUE(journal_->append(line(16 * 1024)));
    }
    ship();  // an old one: it is the current one's turn
    ASSERT_TRUE(journal_->append(line(16 * 1024)));
    ASSERT_EQ(journal_->vacancies(), 0u);

    auto slice = journal_->next_slice();
    ASSERT_TRUE(journal_->append(line(16 * 1024)));
    std::string lines;
    EXPECT_TRUE(read_slice(slice, lines));
    EXPECT_EQ(lines.size(), 16u * 1024);
}

TEST_F(SegmentTest, SegmentThatSomebodyElseHoldsIsLeftUntilItIsFree)
{
    killed_after("a\n");
    int fd = ::open(files().front().c_str(), O_RDONLY);
    ASSERT_EQ(flock(fd, LOCK_SH), 0);

    EXPECT_EQ(adopt(), 0u);
    EXPECT_EQ(orphan_errors_.size(), 0u);
    close(fd);
    EXPECT_EQ(adopt(), 1u);
}

}  // namespace
}  // namespace chatbot
