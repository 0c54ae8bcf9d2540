#include "journal/journal.hpp"
#include "journal/rejects.hpp"

#include <fnmatch.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

namespace chatbot {
namespace {

namespace fs = std::filesystem;

// The test plays the event loop and the log lane: ship() reads what comes next,
// tells the journal that it is committed, and returns it.
class JournalTest : public testing::Test {
protected:
    void SetUp() override
    {
        const char* tmp = std::getenv("TMPDIR");
        dir_ = std::string(tmp ? tmp : "/tmp") + "/chatbot-XXXXXX";
        ASSERT_NE(mkdtemp(dir_.data()), nullptr);
        open();
    }

    void TearDown() override
    {
        journal_.reset();
        fs::remove_all(dir_);
    }

    void open(std::uint64_t max_size = 64 * 1024 * 1024, bool ships = true)
    {
        journal_ = std::make_unique<Journal>(dir_, "db", max_size, ships);
    }

    std::string read()
    {
        std::string lines;
        EXPECT_TRUE(read_slice(journal_->next_slice(), lines));
        return lines;
    }

    std::string ship()
    {
        std::string lines = read();
        journal_->shipped(lines.size());
        return lines;
    }

    std::string ship_all()
    {
        std::string all;
        while (!journal_->next_slice().empty()) {
            all += ship();
        }
        return all;
    }

    std::size_t adopt()
    {
        auto found = find_orphans(dir_, "db-", journal_->vacancies());
        auto n = found.segments.size();
        journal_->adopt(std::move(found.segments));
        orphan_errors_ = std::move(found.errors);
        return n;
    }

    // Plays a process that appends and is killed before it ships anything.
    void killed_after(std::string_view lines, std::uint64_t reserved = 0)
    {
        pid_t pid = fork();
        if (pid == 0) {
            Journal journal(dir_, "db", 64 * 1024 * 1024);
            if (journal.reserve(reserved) && journal.append(lines)) {
                kill(getpid(), SIGKILL);
            }
            _exit(1);
        }

        int status;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFSIGNALED(status));
    }

    std::vector<fs::path> files() const
    {
        return {fs::directory_iterator(dir_), {}};
    }

    // The sizes of all files, smallest first.
    std::string sizes() const
    {
        std::vector<std::uintmax_t> sizes;
        for (const auto& file : files()) {
            sizes.push_back(fs::file_size(file));
        }
        std::sort(sizes.begin(), sizes.end());

        std::string text;
        for (auto size : sizes) {
            text += (text.empty() ? "" : ",") + std::to_string(size);
        }
        return text;
    }

    // Bytes on the disk, a little more than the sizes.
    std::uint64_t allocated() const
    {
        std::uint64_t bytes = 0;
        for (const auto& file : files()) {
            struct stat st;
            EXPECT_EQ(stat(file.c_str(), &st), 0);
            bytes += static_cast<std::uint64_t>(st.st_blocks) * 512;
        }
        return bytes;
    }

    std::string dir_;
    std::unique_ptr<Journal> journal_;
    std::vector<std::string> orphan_errors_;
};

std::string line(std::size_t size, char c = 'x')
{
    return std::string(size - 1, c) + "\n";
}

// Waits for what the journal looks after once a second.
template <class Condition>
bool wait_for(Condition condition)
{
    for (int i = 0; i < 1000; i++) {
        if (condition()) {
            return true;
        }
        usleep(10 * 1000);
    }
    return false;
}

std::ptrdiff_t descriptors()
{
    fs::directory_iterator it("/proc/self/fd");
    return std::distance(begin(it), end(it));
}

// What a file system without locks does.
bool forbid_flock()
{
    sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_flock, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{std::size(steps), steps};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

std::string content(const fs::path& path)
{
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

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
        ASSERT_TRUE(journal_->has_room());
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

TEST_F(JournalTest, ReservedBlocksAreGivenBack)
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
    EXPECT_EQ(journal_->error(), dir_ + ": its max_size is reached");

    for (auto size : sizes) {
        journal_->release(size);
        EXPECT_TRUE(journal_->append(line(size))) << size;
    }
    EXPECT_FALSE(journal_->has_room());

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

    EXPECT_FALSE(journal_->has_room());
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
    EXPECT_EQ(journal_->error(), dir_ + ": its max_size is reached");

    EXPECT_EQ(ship().substr(0, 1), "a");
    EXPECT_TRUE(journal_->has_room());
}

TEST_F(JournalTest, MaxSizeCountsWhatOthersHave)
{
    open(64 * 1024);
    std::ofstream(dir_ + "/other-1-1.jsonl") << line(60 * 1024);

    EXPECT_TRUE(journal_->reserve(1000));
    EXPECT_FALSE(journal_->reserve(4000));
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

TEST_F(JournalTest, WhatIsNotShippedIsLeftToTheNext)
{
    ASSERT_TRUE(journal_->append("a\n"));
    open();

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship(), "a\n");
    EXPECT_EQ(sizes(), "");
}

TEST_F(JournalTest, LinesOfAKilledProcessAreAdopted)
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

TEST_F(JournalTest, NoSegmentIsAdoptedTwice)
{
    killed_after("a\n");

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(adopt(), 0u);
}

TEST_F(JournalTest, AdoptionDoesNotMixUpTheSliceThatIsOut)
{
    killed_after("orphan\n");
    ASSERT_TRUE(journal_->append("a\n"));

    std::string lines = read();
    adopt();
    journal_->shipped(lines.size());

    EXPECT_EQ(lines, "a\n");
    EXPECT_EQ(ship_all(), "orphan\n");
}

TEST_F(JournalTest, OwnSegmentsAreNoOrphans)
{
    ASSERT_TRUE(journal_->append("a\n"));

    EXPECT_EQ(adopt(), 0u);
}

// The child's segment is looked at while the child lives, and once it is dead.
TEST_F(JournalTest, SegmentsOfALivingProcessAreNoOrphans)
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

TEST_F(JournalTest, OnlySegmentsWithThePrefixAreAdopted)
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

TEST_F(JournalTest, TornLastLineIsCutOff)
{
    std::ofstream(dir_ + "/db-1-1.jsonl") << "a\nb\n{\"torn";

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(sizes(), "4");
    EXPECT_EQ(ship(), "a\nb\n");
}

TEST_F(JournalTest, LargeTornLineIsCutOff)
{
    std::ofstream(dir_ + "/db-1-1.jsonl") << "a\n" << std::string(300000, 'x');

    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship(), "a\n");
}

TEST_F(JournalTest, OrphanWithoutAWholeLineIsRemoved)
{
    std::ofstream(dir_ + "/db-1-1.jsonl") << "{\"torn";
    std::ofstream(dir_ + "/db-1-2.jsonl").flush();

    EXPECT_EQ(adopt(), 0u);
    EXPECT_EQ(sizes(), "");
}

TEST_F(JournalTest, NamesTellWhenAndWho)
{
    ASSERT_TRUE(journal_->append("a\n"));

    ASSERT_EQ(files().size(), 1u);
    auto name = files()[0].filename().string();
    auto pattern =
        "db-2???????T??????Z-" + std::to_string(getpid()) + "-1.jsonl";
    EXPECT_EQ(fnmatch(pattern.c_str(), name.c_str(), 0), 0) << name;
}

TEST_F(JournalTest, NameThatIsThereIsNotUsedAgain)
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
TEST_F(JournalTest, TwoProcessesShareADirectory)
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
                while (!journal_->has_room() || !journal_->append(text)) {
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

TEST_F(JournalTest, MissingDirectoryIsAnError)
{
    Journal journal(dir_ + "/missing", "db", 64 * 1024 * 1024);

    EXPECT_FALSE(journal.has_room());
    EXPECT_FALSE(journal.append("a\n"));
    EXPECT_NE(journal.error().find("No such file"), std::string::npos);
}

TEST_F(JournalTest, SegmentThatWasMovedIsLeftAlone)
{
    open(64 * 1024 * 1024, false);
    ASSERT_TRUE(journal_->append("a\n"));
    const std::string archived = dir_ + "/archived";
    fs::rename(files().front(), archived);

    ASSERT_TRUE(journal_->has_room());
    EXPECT_NE(journal_->take_damage(), "");
    EXPECT_EQ(journal_->take_damage(), "");
    ASSERT_TRUE(journal_->append("b\n"));
    EXPECT_EQ(content(archived), "a\n");
    EXPECT_EQ(sizes(), "2,2");
}

TEST_F(JournalTest, WhoWasLetInNoticesTooThatASegmentWasRemoved)
{
    open(64 * 1024 * 1024, false);
    ASSERT_TRUE(journal_->append("a\n"));
    fs::remove(files().front());

    EXPECT_TRUE(wait_for([&] {
        EXPECT_TRUE(journal_->append("b\n"));
        return !files().empty();
    }));
    EXPECT_EQ(sizes(), "2");
}

TEST_F(JournalTest, SegmentThatWasRemovedIsShipped)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ASSERT_TRUE(journal_->append("b\n"));
    std::string batch = read();
    fs::remove(files().front());

    ASSERT_TRUE(journal_->has_room());
    ASSERT_TRUE(journal_->append("c\n"));
    journal_->shipped(2);
    EXPECT_EQ(batch + "|" + ship_all(), "a\nb\n|b\nc\n");
}

TEST_F(JournalTest, RemovedDirectoryIsAnError)
{
    ASSERT_TRUE(journal_->append("a\n"));
    fs::remove_all(dir_);

    EXPECT_FALSE(journal_->has_room());
    EXPECT_FALSE(journal_->append("b\n"));
    EXPECT_NE(journal_->error().find("No such file"), std::string::npos);
    EXPECT_EQ(ship_all(), "a\n");
}

TEST_F(JournalTest, FileSystemWithoutLocksIsAnError)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(10);
        if (!forbid_flock()) {
            _exit(2);
        }
        open();
        bool ok = !journal_->has_room() &&
                  journal_->error().find("No locks") != std::string::npos;
        _exit(ok ? 0 : 1);
    }

    int status;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2) {
        GTEST_SKIP() << "may not forbid a system call";
    }
    EXPECT_EQ(WEXITSTATUS(status), 0);
    EXPECT_EQ(sizes(), "");
}

// A write that takes only a part is what a disk does that is full.
TEST_F(JournalTest, LineThatDoesNotFitIsNotThereAtAll)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGXFSZ, SIG_IGN);
        open();
        bool ok = journal_->append(line(1000, 'a'));
        rlimit limit{500, 500};
        ok = ok && setrlimit(RLIMIT_FSIZE, &limit) == 0;
        ok = ok && !journal_->append(line(1000, 'b'));
        ok = ok && !journal_->error().empty();
        ok = ok && !journal_->append(line(1000, 'c'));
        _exit(ok ? 0 : 1);
    }

    int status;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(sizes(), "1000");
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), line(1000, 'a'));
}

TEST_F(JournalTest, FullDiskIsARefusalUntilThereIsSpace)
{
    if (mount("tmpfs", dir_.c_str(), "tmpfs", 0, "size=6m") != 0) {
        GTEST_SKIP() << "may not mount a small disk";
    }

    // The disk is full.
    std::ofstream(dir_ + "/ballast") << line(6 * 1024 * 1024);
    EXPECT_FALSE(journal_->has_room());
    EXPECT_NE(journal_->error().find("No space left"), std::string::npos);

    // Whatever others do, the blocks that were reserved are there.
    fs::resize_file(dir_ + "/ballast", 3 * 1024 * 1024);
    EXPECT_TRUE(wait_for([&] { return journal_->reserve(2 * 1024 * 1024); }));
    std::ofstream(dir_ + "/ballast2") << line(6 * 1024 * 1024);
    EXPECT_FALSE(journal_->reserve(2 * 1024 * 1024));
    journal_->release(2 * 1024 * 1024);
    EXPECT_TRUE(journal_->append(line(2 * 1024 * 1024)));

    // A segment is emptied where it is, as there is no room for two.
    EXPECT_EQ(ship_all().size(), 2u * 1024 * 1024);
    EXPECT_TRUE(wait_for([&] { return journal_->reserve(1024 * 1024); }));
    journal_->release(1024 * 1024);
    EXPECT_TRUE(journal_->append(line(1024 * 1024)));

    journal_.reset();
    EXPECT_EQ(umount(dir_.c_str()), 0);
}

TEST_F(JournalTest, RejectsAreAppended)
{
    const Rejects rejects{dir_, 64 * 1024};
    EXPECT_EQ(set_aside(rejects, "a\n"), "");
    EXPECT_EQ(set_aside(rejects, "b\nc\n"), "");

    EXPECT_EQ(content(dir_ + "/rejected.jsonl"), "a\nb\nc\n");
    EXPECT_NE(set_aside({dir_ + "/missing", 64 * 1024}, "a\n"), "");
    EXPECT_EQ(find_orphans(dir_, "", 10).segments.size(), 0u);
}

TEST_F(JournalTest, TornRejectDoesNotSpoilTheNext)
{
    std::ofstream(dir_ + "/rejected.jsonl") << "a\n{\"torn";

    EXPECT_EQ(set_aside({dir_, 64 * 1024}, "b\n"), "");
    EXPECT_EQ(content(dir_ + "/rejected.jsonl"), "a\nb\n");
}

}  // namespace
}  // namespace chatbot
