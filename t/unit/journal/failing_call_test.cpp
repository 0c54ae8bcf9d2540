// Every system call and every allocation of a journal's life fails once, the
// N-th, N upward until nothing fails any more.  What append() confirmed is
// shipped, once, and no descriptor is left.

#include "journal/failing_call.hpp"

#include <map>
#include <set>

#include "journal/fixture.hpp"
#include "journal/rejects.hpp"

namespace chatbot {
namespace {

using How = FailingCall::How;

constexpr std::uint64_t max_size = 64 * 1024;

class FailingCallTest : public JournalTest,
                        public testing::WithParamInterface<How> {
protected:
    // A worker's life: some is left behind by others, requests are let in,
    // recorded, shipped and rejected.
    void live(Journal& journal)
    {
        (void)journal.is_writable();
        adopt_some(journal);
        constexpr std::string_view names[] = {"r0", "r1", "r2", "r3", "r4",
                                              "r5", "r6", "r7", "r8", "r9"};
        for (std::size_t i = 0; i < std::size(names); i++) {
            record(journal, names[i]);
            if (i == 2 || i == 6) {
                ship_one(journal);
            }
        }
        reject(x1_);
        for (int i = 0; i < 3; i++) {
            ship_one(journal);
        }
        reject(x2_);
        record(journal, "last");
    }

    void record(Journal& journal, std::string_view name)
    {
        char text[3000];
        std::fill(std::begin(text), std::end(text), ' ');
        std::copy(name.begin(), name.end(), text);
        text[sizeof(text) - 1] = '\n';

        if (!journal.reserve(4000)) {
            return;
        }
        journal.release(4000);
        if (journal.append({text, sizeof(text)})) {
            confirmed_.push_back(name);
        }
    }

    // What the thread does.
    void adopt_some(Journal& journal)
    {
        Orphans found;
        try {
            found = find_orphans(dir_, "db-", journal.vacancies());
        } catch (const std::bad_alloc&) {
        }
        journal.adopt(std::move(found.segments));
    }

    bool ship_one(Journal& journal)
    {
        auto slice = journal.next_slice();
        if (slice.empty()) {
            return false;
        }

        std::string lines;
        try {
            if (!read_slice(slice, lines)) {
                return true;
            }
        } catch (const std::bad_alloc&) {
            return true;
        }
        batches_.push_back(std::move(lines));
        journal.shipped(batches_.back().size());
        return true;
    }

    void reject(std::string_view line)
    {
        try {
            if (set_aside({.dir = dir_, .max_size = max_size}, line).empty()) {
                rejected_.push_back(line.substr(0, 2));
            }
        } catch (const std::bad_alloc&) {
        }
    }

    // The first words of lines, and how often they come.
    static void count(const std::string& lines, std::map<std::string, int>& in)
    {
        std::istringstream stream(lines);
        for (std::string text; std::getline(stream, text);) {
            in[text.substr(0, text.find(' '))]++;
        }
    }

    // The next worker ships what was left.
    void finish()
    {
        Journal journal(dir_, "db", max_size);
        do {
            adopt_some(journal);
            while (ship_one(journal)) {
            }
        } while (journal.take_left_behind());
    }

    void clean_up()
    {
        for (const auto& file : files()) {
            fs::remove(file);
        }
        confirmed_.clear();
        rejected_.clear();
        batches_.clear();
    }

    // These have room, so that they need no memory while calls fail.
    std::vector<std::string_view> confirmed_;
    std::vector<std::string_view> rejected_;
    const std::string x1_ = "x1 " + line(3000);
    const std::string x2_ = "x2 " + line(3000);
    std::vector<std::string> batches_;
};

TEST_P(FailingCallTest, NothingIsLostOrDoubled)
{
    journal_.reset();
    unsigned n = 0;
    std::set<std::string> names;

    for (bool happened = true; happened;) {
        clean_up();
        confirmed_.reserve(100);
        rejected_.reserve(100);
        batches_.reserve(100);
        std::ofstream(dir_ + "/db-1-1.jsonl") << "o1\no2\n{\"torn";
        std::ofstream(dir_ + "/db-1-2.jsonl") << "o3\n";
        auto before = descriptors();
        {
            Journal journal(dir_, "db", max_size);
            FailingCall call(++n, GetParam());
            live(journal);
            happened = FailingCall::happened();
        }
        names.insert(FailingCall::name());
        SCOPED_TRACE(std::string(FailingCall::name()) + ", call " +
                     std::to_string(n));
        EXPECT_EQ(descriptors(), before);
        if (GetParam() == How::interrupted) {
            EXPECT_EQ(confirmed_.size(), 11u);
            EXPECT_EQ(rejected_.size(), 2u);
        }

        finish();
        std::map<std::string, int> shipped;
        for (const auto& lines : batches_) {
            count(lines, shipped);
        }
        for (const auto& name : confirmed_) {
            EXPECT_EQ(shipped[std::string(name)], 1) << name;
        }
        for (const auto* name : {"o1", "o2", "o3"}) {
            EXPECT_EQ(shipped[std::string(name)], 1) << name;
        }
        for (const auto& [name, times] : shipped) {
            EXPECT_LE(times, 1) << name;
        }

        std::map<std::string, int> set_aside;
        for (const auto& file : files()) {
            EXPECT_EQ(file.filename().string().substr(0, 8), "rejected");
            count(content(file), set_aside);
        }
        for (const auto& name : rejected_) {
            EXPECT_EQ(set_aside[std::string(name)], 1) << name;
        }
        if (HasFailure()) {
            break;
        }
    }

    EXPECT_GT(confirmed_.size(), 9u);
    EXPECT_GT(n, 50u);
    if (GetParam() != How::out_of_memory) {
        EXPECT_TRUE(names.contains("write"));
        EXPECT_TRUE(names.contains("flock"));
        EXPECT_EQ(names.contains("rename"), GetParam() != How::interrupted);
    }
}

INSTANTIATE_TEST_SUITE_P(Hows, FailingCallTest,
                         testing::Values(How::no_space, How::io_error,
                                         How::interrupted, How::partly,
                                         How::out_of_memory));

}  // namespace
}  // namespace chatbot
