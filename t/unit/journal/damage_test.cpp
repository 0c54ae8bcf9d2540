// What somebody else, or the disk, does to a journal.

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cerrno>

#include "journal/fixture.hpp"

namespace chatbot {
namespace {

using DamageTest = JournalTest;

// Makes a system call fail in this process from now on.
bool forbid(unsigned call, unsigned error)
{
    sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{std::size(steps), steps};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// Has a child process do something that returns whether it went well; 0: it
// did, 2: the child may not do what it takes.
template <class Run>
int in_child(Run run)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(10);
        _exit(run());
    }

    int status;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status);
}

constexpr int not_allowed = 2;

TEST_F(DamageTest, MissingDirectoryIsAnError)
{
    Journal journal(dir_ + "/missing", "db", 64 * 1024 * 1024);

    EXPECT_FALSE(journal.reserve(1));
    EXPECT_FALSE(journal.append("a\n"));
    EXPECT_NE(journal.error().find("No such file"), std::string::npos);
}

TEST_F(DamageTest, SegmentThatWasMovedIsLeftAlone)
{
    open(64 * 1024 * 1024, false);
    ASSERT_TRUE(journal_->append("a\n"));
    const std::string archived = dir_ + "/archived";
    fs::rename(files().front(), archived);

    ASSERT_TRUE(has_room());
    EXPECT_NE(journal_->take_damage(), "");
    EXPECT_EQ(journal_->take_damage(), "");
    ASSERT_TRUE(journal_->append("b\n"));
    EXPECT_EQ(content(archived), "a\n");
    EXPECT_EQ(sizes(), "2,2");
}

TEST_F(DamageTest, WhoWasLetInNoticesTooThatASegmentWasRemoved)
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

TEST_F(DamageTest, SegmentThatWasRemovedIsShipped)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ASSERT_TRUE(journal_->append("b\n"));
    std::string batch = read();
    fs::remove(files().front());

    ASSERT_TRUE(has_room());
    ASSERT_TRUE(journal_->append("c\n"));
    journal_->shipped(2);
    EXPECT_EQ(batch + "|" + ship_all(), "a\nb\n|b\nc\n");
}

TEST_F(DamageTest, RemovedDirectoryIsAnError)
{
    ASSERT_TRUE(journal_->append("a\n"));
    fs::remove_all(dir_);

    EXPECT_FALSE(has_room());
    EXPECT_FALSE(journal_->append("b\n"));
    EXPECT_NE(journal_->error().find("No such file"), std::string::npos);
    EXPECT_EQ(ship_all(), "a\n");
}

TEST_F(DamageTest, FileSystemWithoutLocksIsAnError)
{
    auto status = in_child([&] {
        if (!forbid(SYS_flock, ENOLCK)) {
            return not_allowed;
        }
        open();
        bool told = !has_room() && !journal_->is_writable() &&
                    journal_->error().find("No locks") != std::string::npos;
        return told ? 0 : 1;
    });
    if (status == not_allowed) {
        GTEST_SKIP() << "may not forbid a system call";
    }
    EXPECT_EQ(status, 0);
    EXPECT_EQ(sizes(), "");
}

// Where blocks cannot be allocated ahead, but there is room to write, it is
// written; max_size holds all the same.
TEST_F(DamageTest, FileSystemThatAllocatesNothingAheadWillDo)
{
    for (unsigned error : {EOPNOTSUPP, ENOSPC}) {
        auto status = in_child([&] {
            if (!forbid(SYS_fallocate, error)) {
                return not_allowed;
            }
            open(64 * 1024);
            std::size_t n = 0;
            while (journal_->reserve(1000)) {
                ++n;
            }
            for (std::size_t i = 0; i < n; ++i) {
                journal_->release(1000);
                if (!journal_->append(line(1000))) {
                    return 1;
                }
            }
            return n > 55 && n < 66 && !journal_->reserve(1000) ? 0 : 1;
        });
        if (status == not_allowed) {
            GTEST_SKIP() << "may not forbid a system call";
        }
        EXPECT_EQ(status, 0) << error;
        for (const auto& file : files()) {
            fs::remove(file);
        }
    }
}

// A write that takes only a part is what a disk does that is full.
TEST_F(DamageTest, LineThatDoesNotFitIsNotThereAtAll)
{
    auto status = in_child([&] {
        signal(SIGXFSZ, SIG_IGN);
        open();
        bool ok = journal_->append(line(1000, 'a'));
        rlimit limit{500, 500};
        ok = ok && setrlimit(RLIMIT_FSIZE, &limit) == 0;
        ok = ok && !journal_->append(line(1000, 'b'));
        ok = ok && !journal_->error().empty();
        ok = ok && !journal_->append(line(1000, 'c'));
        return ok ? 0 : 1;
    });
    EXPECT_EQ(status, 0);
    EXPECT_EQ(sizes(), "1000");
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), line(1000, 'a'));
}

TEST_F(DamageTest, DirectoryThatCannotBeWrittenIsToldAtOnce)
{
    ASSERT_TRUE(journal_->is_writable());
    EXPECT_EQ(sizes(), "") << "nothing is left by asking";

    auto status = in_child([&] {
        if (geteuid() != 0 || chmod(dir_.c_str(), 0500) != 0 ||
            setuid(65534) != 0) {
            return not_allowed;
        }
        open();
        bool told = !journal_->is_writable() &&
                    journal_->error().find("denied") != std::string::npos;
        return told ? 0 : 1;
    });
    if (status == not_allowed) {
        GTEST_SKIP() << "is not root";
    }
    EXPECT_EQ(status, 0);
}

// logrotate's copytruncate: the file is emptied, and goes on being written to.
TEST_F(DamageTest, FileThatIsEmptiedIsReadAnew)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ASSERT_TRUE(journal_->append("b\n"));
    read();
    journal_->shipped(2);
    fs::resize_file(files().front(), 0);
    ASSERT_TRUE(journal_->append("c\n"));

    EXPECT_EQ(ship_all(), "");
    auto told = journal_->take_damage();
    EXPECT_NE(told.find("it has 2 bytes, 6 were written"), std::string::npos)
        << told;
    EXPECT_TRUE(journal_->take_left_behind());
    EXPECT_FALSE(journal_->take_left_behind());

    ASSERT_TRUE(journal_->append("d\n"));
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), "c\nd\n");
    EXPECT_EQ(sizes(), "0");
}

TEST_F(DamageTest, FileThatIsEmptiedIsNoticedWhereNothingIsShipped)
{
    open(64 * 1024 * 1024, false);
    ASSERT_TRUE(journal_->append("a\n"));
    fs::resize_file(files().front(), 0);

    EXPECT_TRUE(wait_for([&] {
        EXPECT_TRUE(journal_->append("b\n"));
        return files().size() == 2;
    }));
    EXPECT_NE(journal_->take_damage(), "");
    for (const auto& file : files()) {
        EXPECT_EQ(content(file).find('\0'), std::string::npos);
    }
}

// While a thread reads it: it keeps its descriptor until it is done.
TEST_F(DamageTest, FileThatIsCutWhileItIsReadIsReadAnew)
{
    ASSERT_TRUE(journal_->append("a\nb\nc\n"));
    auto slice = journal_->next_slice();
    fs::resize_file(files().front(), 4);

    std::string lines;
    EXPECT_FALSE(read_slice(slice, lines));
    EXPECT_TRUE(wait_for([&] {
        EXPECT_TRUE(journal_->reserve(1));
        return files().size() == 2 || !journal_->take_damage().empty();
    }));
    EXPECT_FALSE(read_slice(slice, lines)) << "the file is still open";
    journal_->shipped(6);

    EXPECT_EQ(ship_all(), "");
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), "a\nb\n");
}

TEST_F(DamageTest, FileInTheQueueThatIsCutIsReadAnew)
{
    killed_after("a\nb\n");
    ASSERT_EQ(adopt(), 1u);
    fs::resize_file(files().front(), 3);

    EXPECT_EQ(ship_all(), "");
    EXPECT_NE(journal_->take_damage(), "");
    EXPECT_TRUE(journal_->take_left_behind());
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), "a\n");
}

// What somebody else wrote into it is read, too; PostgreSQL will refuse it.
TEST_F(DamageTest, FileThatSomebodyElseWroteToIsReadAnew)
{
    ASSERT_TRUE(journal_->append("a\n"));
    ASSERT_TRUE(journal_->append("b\n"));
    std::ofstream(files().front(), std::ios::app) << "junk\n";
    ASSERT_TRUE(journal_->append("c\n"));

    EXPECT_EQ(ship_all(), "");
    EXPECT_EQ(adopt(), 1u);
    EXPECT_EQ(ship_all(), "a\nb\njunk\nc\n");
}

TEST_F(DamageTest, MoreIsNeverShippedThanWasWritten)
{
    ASSERT_TRUE(journal_->append("a\n"));
    read();
    EXPECT_DEATH(journal_->shipped(3), "more is shipped than was written");
}

TEST_F(DamageTest, FullDiskIsARefusalUntilThereIsSpace)
{
    if (mount("tmpfs", dir_.c_str(), "tmpfs", 0, "size=6m") != 0) {
        GTEST_SKIP() << "may not mount a small disk";
    }

    // The disk is full.
    std::ofstream(dir_ + "/ballast") << line(6 * 1024 * 1024);
    EXPECT_FALSE(has_room());
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

}  // namespace
}  // namespace chatbot
