#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "journal/journal.hpp"

namespace chatbot {

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

    bool has_room()
    {
        if (!journal_->reserve(1)) {
            return false;
        }
        journal_->release(1);
        return true;
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

inline std::string line(std::size_t size, char c = 'x')
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

inline std::ptrdiff_t descriptors()
{
    fs::directory_iterator it("/proc/self/fd");
    return std::distance(begin(it), end(it));
}

inline std::string content(const fs::path& path)
{
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

}  // namespace chatbot
