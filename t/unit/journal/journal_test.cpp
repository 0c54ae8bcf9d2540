#include "journal/journal.hpp"

#include "journal/fixture.hpp"

namespace chatbot {
namespace {

TEST_F(JournalTest, WhatIsAppendedIsShippedInOrder)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ASSERT_TRUE(journal_->append("b\nc\n"));
    EXPECT_EQ(journal_->backlog(), 6u);

    EXPECT_EQ(ship(), "a\nb\nc\n");
    EXPECT_EQ(journal_->backlog(), 0u);
    EXPECT_TRUE(journal_->next_slice().empty());
}

TEST_F(JournalTest, SliceStaysAsItWasWhileLinesAreAppended)
{
    ASSERT_TRUE(journal_->append("a\n"));
    Slice slice = journal_->next_slice();
    ASSERT_TRUE(journal_->append("b\n"));

    std::string lines;
    ASSERT_TRUE(read_slice(slice, lines));
    EXPECT_EQ(lines, "a\n");
    journal_->shipped(lines.size());
    EXPECT_EQ(ship(), "b\n");
}

TEST_F(JournalTest, WhatIsNotShippedComesAgain)
{
    ASSERT_TRUE(journal_->append("a\n"));

    EXPECT_EQ(read(), "a\n");
    EXPECT_EQ(read(), "a\n");
}

TEST_F(JournalTest, InPeaceTheFileIsEmpty)
{
    ASSERT_TRUE(journal_->append("a\n"));
    EXPECT_EQ(sizes(), "2");

    ship();
    EXPECT_EQ(sizes(), "0");

    ASSERT_TRUE(journal_->append("b\n"));
    EXPECT_EQ(ship(), "b\n");
}

TEST_F(JournalTest, MuchThatIsShippedIsRemovedAtOnce)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ship();
    ASSERT_TRUE(journal_->append(line(Journal::usual_segment / 16)));
    ship();

    EXPECT_EQ(sizes(), "0");
}

TEST_F(JournalTest, OnlyTheOwnerMayReadAndTheGroup)
{
    ASSERT_TRUE(journal_->append("a\n"));

    EXPECT_EQ(fs::status(files().at(0)).permissions() & fs::perms(07137),
              fs::perms::none);
}

TEST_F(JournalTest, LargeBacklogComesInSlicesOfWholeLines)
{
    std::string text;
    for (int i = 0; i < 3000; i++) {
        text += line(1000, static_cast<char>('a' + i % 26));
        ASSERT_TRUE(journal_->append(text.substr(text.size() - 1000)));
    }

    std::string first = ship();
    EXPECT_LE(first.size(), max_slice);
    EXPECT_EQ(first.size() % 1000, 0u);
    EXPECT_TRUE(first + ship_all() == text);
}

TEST_F(JournalTest, LineLargerThanASliceComesWhole)
{
    std::string large = line(3 * max_slice);
    ASSERT_TRUE(journal_->append(large + "a\n"));

    EXPECT_TRUE(ship_all() == large + "a\n");
}

TEST_F(JournalTest, LineLargerThanASegmentGetsItsOwn)
{
    std::string large = line(2 * Journal::usual_segment);
    ASSERT_TRUE(journal_->append("a\n"));
    ASSERT_TRUE(journal_->append(large));
    ASSERT_TRUE(journal_->append("b\n"));

    EXPECT_EQ(files().size(), 3u);
    EXPECT_TRUE(ship_all() == "a\nb\n" + large);
}

TEST_F(JournalTest, FullSegmentIsFollowedByAnotherAndRemovedOnceShipped)
{
    const auto half = Journal::usual_segment / 2;
    for (char c : {'a', 'b', 'c'}) {
        ASSERT_TRUE(has_room());
        ASSERT_TRUE(journal_->append(line(half, c)));
    }
    EXPECT_EQ(files().size(), 2u);

    // The old and the new by turns.
    std::string all = line(half, 'a') + line(half, 'c') + line(half, 'b');
    EXPECT_TRUE(ship_all() == all);
    EXPECT_EQ(sizes(), "0");
}

TEST_F(JournalTest, JournalWithoutPostgresKeepsNoDescriptors)
{
    open(64 * 1024 * 1024, false);
    auto before = descriptors();
    for (int i = 0; i < 4; i++) {
        ASSERT_TRUE(journal_->append(line(Journal::usual_segment)));
    }

    EXPECT_EQ(files().size(), 4u);
    EXPECT_EQ(descriptors(), before + 1);
}

TEST_F(JournalTest, LargeJournalHasLargeSegments)
{
    open(4 * Journal::usual_segments * Journal::usual_segment);
    for (int i = 0; i < 4; i++) {
        ASSERT_TRUE(journal_->append(line(Journal::usual_segment)));
    }

    EXPECT_EQ(files().size(), 1u);
}

TEST_F(JournalTest, IdleJournalTakesNoBlocks)
{
    ASSERT_TRUE(journal_->is_writable());
    EXPECT_EQ(allocated(), 0u);

    ASSERT_TRUE(journal_->reserve(1000));
    EXPECT_LE(allocated(), 128u * 1024);
    journal_->release(1000);
    ASSERT_TRUE(journal_->append("a\n"));
    ship();
    EXPECT_EQ(allocated(), 0u);
}

TEST_F(JournalTest, ReservationsAreKeptAcrossSegments)
{
    open(Journal::usual_segment);
    const auto segment = Journal::usual_segment / 4;
    ASSERT_TRUE(journal_->reserve(2 * segment));
    for (int i = 0; i < 3; i++) {
        ASSERT_TRUE(journal_->append(line(segment)));
        EXPECT_GE(allocated(), 2 * segment);
    }
}

// What is written and what is reserved is at most max_size, whatever the order.
TEST_F(JournalTest, ReservationsAndRecordsFillMaxSize)
{
    open(100'000);
    std::vector<std::uint64_t> sizes{10'000, 20'000, 30'000};
    for (auto size : sizes) {
        ASSERT_TRUE(journal_->reserve(size));
    }
    ASSERT_TRUE(journal_->reserve(40'000));
    EXPECT_FALSE(journal_->reserve(1));
    EXPECT_EQ(journal_->error().find(dir_ + ": its max_size is reached"), 0u);

    for (auto size : sizes) {
        journal_->release(size);
        EXPECT_TRUE(journal_->append(line(size))) << size;
    }
    EXPECT_FALSE(has_room());

    journal_->release(40'000);
    EXPECT_TRUE(journal_->append(line(10'000)));
    EXPECT_TRUE(wait_for([&] { return journal_->reserve(15'000); }));
}

TEST_F(JournalTest, ReleasedRoomCanBeReservedAtOnce)
{
    open(100'000);
    ASSERT_TRUE(journal_->reserve(90'000));
    EXPECT_FALSE(journal_->reserve(50'000));
    journal_->release(90'000);
    EXPECT_TRUE(journal_->reserve(50'000));
}

TEST_F(JournalTest, WhatWasLetInIsWrittenBeyondMaxSize)
{
    open(100'000);
    ASSERT_TRUE(journal_->reserve(1000));
    journal_->release(1000);
    for (int i = 0; i < 10; i++) {
        EXPECT_TRUE(journal_->append(line(100'000))) << journal_->error();
    }

    EXPECT_FALSE(has_room());
    EXPECT_EQ(ship_all().size(), 1'000'000u);
    EXPECT_TRUE(wait_for([&] { return journal_->reserve(1000); }));
}

TEST_F(JournalTest, ReleasingMoreThanWasReservedIsAnInternalError)
{
    EXPECT_DEATH(journal_->release(1), "more is released than was reserved");
}

TEST_F(JournalTest, MaxSizeIsARefusalUntilSomethingIsShipped)
{
    open(64 * 1024);
    std::string text;
    while (journal_->reserve(500)) {
        journal_->release(500);
        text += line(500, static_cast<char>('a' + text.size() / 500 % 26));
        ASSERT_LE(text.size(), 64u * 1024);
        ASSERT_TRUE(journal_->append(text.substr(text.size() - 500)));
    }
    EXPECT_GE(text.size(), 48u * 1024);
    EXPECT_EQ(journal_->error().find(dir_ + ": its max_size is reached"), 0u);

    EXPECT_EQ(ship().substr(0, 1), "a");
    EXPECT_TRUE(has_room());
}

TEST_F(JournalTest, MaxSizeCountsWhatOthersHave)
{
    open(64 * 1024);
    std::ofstream(dir_ + "/other-1-1.jsonl") << line(60 * 1024);

    EXPECT_TRUE(journal_->reserve(1000));
    EXPECT_FALSE(journal_->reserve(4000));
}

TEST_F(JournalTest, MaxSizeCountsWhatOthersReserved)
{
    open(256 * 1024);
    Journal other(dir_, "db", 256 * 1024);
    ASSERT_TRUE(other.reserve(100 * 1024));
    if (allocated() == 0) {
        GTEST_SKIP() << "this file system reserves nothing";
    }

    EXPECT_FALSE(journal_->reserve(160 * 1024));
    EXPECT_TRUE(wait_for([&] { return journal_->reserve(140 * 1024); }));
    EXPECT_FALSE(other.reserve(30 * 1024));
    EXPECT_LE(allocated(), 256u * 1024);
}

TEST_F(JournalTest, NothingIsLeftBehindOnceAllIsShipped)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ship();
    ASSERT_TRUE(journal_->append("b\n"));
    ship();

    journal_.reset();
    EXPECT_EQ(sizes(), "");
}

}  // namespace
}  // namespace chatbot
