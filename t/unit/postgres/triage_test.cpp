#include "postgres/triage.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <random>
#include <set>
#include <string>

namespace chatbot {
namespace {

using Result = Triage::Result;
using Trial = Triage::Trial;

// A table that takes lines, but for those that are bad, and at times none.
struct FakeTable {
    std::set<std::size_t> bad;
    std::set<std::size_t> slow;    // bad, too: never inserted in time
    std::set<std::size_t> unable;  // bad, too: told as the server's state
    bool unwell = false;           // refuses rehearsals for its state
    std::size_t fast_enough = 0;   // lines inserted in time; 0: any number
    bool broken = false;           // refuses everything
    std::multiset<std::size_t> rows;
    std::size_t trials = 0;

    bool is_bad(std::size_t line) const
    {
        return bad.contains(line) || slow.contains(line) ||
               unable.contains(line);
    }

    Result insert(const Trial& trial)
    {
        trials++;
        if (trial.kind == Trial::Kind::rehearse && unwell) {
            return Result::unable;
        }
        if (trial.kind == Trial::Kind::rehearse) {
            return broken ? Result::refused : Result::inserted;
        }
        if (fast_enough != 0 && trial.lines.size() > fast_enough) {
            return Result::out_of_time;
        }
        for (auto line : trial.lines) {
            if (broken || bad.contains(line)) {
                return Result::refused;
            }
            if (unable.contains(line)) {
                return Result::unable;
            }
            if (slow.contains(line)) {
                return Result::out_of_time;
            }
        }

        auto is_new = false;
        for (auto line : trial.lines) {
            if (!rows.contains(line)) {
                rows.insert(line);
                is_new = true;
            }
        }
        return is_new ? Result::inserted : Result::known;
    }

    // One round of trials.  Returns whether the batch is finished.
    bool run(Triage& triage, std::size_t others = 0)
    {
        triage.go_on(others);
        for (;;) {
            auto trial = triage.next();
            if (trial.lines.empty()) {
                return triage.finished();
            }
            triage.report(trial, insert(trial), true);
        }
    }
};

std::string rejected(const Triage& triage, std::size_t n)
{
    std::string lines;
    for (std::size_t i = 0; i < n; i++) {
        if (triage.is_rejected(i)) {
            lines += (lines.empty() ? "" : " ") + std::to_string(i);
        }
    }
    return lines;
}

TEST(TriageTest, GoodLinesAreInsertedTogether)
{
    FakeTable table;
    Triage triage(1000);

    EXPECT_TRUE(table.run(triage));
    EXPECT_EQ(table.trials, 1u);
    EXPECT_EQ(table.rows.size(), 1000u);
}

TEST(TriageTest, BadLinesAreSetAside)
{
    FakeTable table;
    table.bad = {3, 4, 9};
    Triage triage(12);

    EXPECT_TRUE(table.run(triage));
    EXPECT_EQ(rejected(triage, 12), "3 4 9");
    EXPECT_EQ(table.rows.size(), 9u);
}

TEST(TriageTest, NoneIsSetAsideAsLongAsNoneGoesIn)
{
    FakeTable table;
    table.broken = true;
    Triage triage(1000);

    for (int round = 0; round < 100; round++) {
        EXPECT_FALSE(table.run(triage, 10));
        EXPECT_LE(table.trials, 100u) << "of round " << round;
        table.trials = 0;
    }
    EXPECT_EQ(rejected(triage, 1000), "");

    table.broken = false;
    EXPECT_TRUE(table.run(triage));
    EXPECT_EQ(rejected(triage, 1000), "");
    EXPECT_EQ(table.rows.size(), 1000u);
    EXPECT_LE(table.trials, 20u);
}

TEST(TriageTest, LastLineIsJudgedByLinesOfLaterBatches)
{
    FakeTable table;
    table.bad = {2};
    Triage triage(3);

    EXPECT_FALSE(table.run(triage)) << "nothing went in after it";
    EXPECT_TRUE(table.run(triage, 1));
    EXPECT_EQ(rejected(triage, 3), "2");
}

TEST(TriageTest, LinesThatWereThereProveNothing)
{
    FakeTable table;
    table.bad = {0};
    table.rows = {1};
    Triage triage(2);

    EXPECT_FALSE(table.run(triage));
    EXPECT_TRUE(table.run(triage, 1));
    EXPECT_EQ(rejected(triage, 2), "0");
}

TEST(TriageTest, OneGoodLineAmongBadOnesIsFound)
{
    FakeTable table;
    for (std::size_t i = 0; i < 1000; i++) {
        table.bad.insert(i);
    }
    table.bad.erase(333);
    Triage triage(1000);

    int rounds = 1;
    while (!table.run(triage, rounds < 20 ? 0 : 1)) {
        ASSERT_LT(++rounds, 30);
    }
    EXPECT_EQ(table.rows, std::multiset<std::size_t>({333}));
}

TEST(TriageTest, SlowTableIsGivenFewerLines)
{
    FakeTable table;
    table.fast_enough = 7;
    Triage triage(1000);

    EXPECT_TRUE(table.run(triage));
    EXPECT_EQ(rejected(triage, 1000), "");
    EXPECT_LT(table.trials, 1000u / 2);

    FakeTable slower;
    slower.fast_enough = 1;
    Triage one_by_one(50);
    EXPECT_TRUE(slower.run(one_by_one));
    EXPECT_EQ(slower.rows.size(), 50u);
    EXPECT_LE(slower.trials, 200u);
}

TEST(TriageTest, SlowLineIsSetAside)
{
    FakeTable table;
    table.slow = {5};
    Triage triage(64);

    EXPECT_TRUE(table.run(triage));
    EXPECT_EQ(rejected(triage, 64), "5");
}

// On a disk that is nearly full short lines may go in and long ones not: it
// takes several rounds to blame these.
TEST(TriageTest, StateOfTheServerIsWaitedForAWhile)
{
    FakeTable table;
    table.unable = {5, 9};
    Triage triage(64);

    int rounds = 0;
    while (!table.run(triage, 1)) {
        EXPECT_EQ(table.rows.size(), 62u);
        EXPECT_EQ(rejected(triage, 64), "");
        ASSERT_LT(++rounds, 10);
    }
    EXPECT_GT(rounds, 3);
    EXPECT_EQ(rejected(triage, 64), "5 9");
}

TEST(TriageTest, LineThatWasExcusedIsInsertedWhenTheServerIsWell)
{
    FakeTable table;
    table.unable = {5, 9};
    Triage triage(64);

    EXPECT_FALSE(table.run(triage));
    table.unable.clear();
    EXPECT_TRUE(table.run(triage));
    EXPECT_EQ(table.rows.size(), 64u);
}

// A server that can do nothing is not asked often.
TEST(TriageTest, ServerThatIsUnableIsAskedLittle)
{
    FakeTable table;
    for (std::size_t i = 0; i < 1000; i++) {
        table.unable.insert(i);
    }
    table.unwell = true;
    Triage triage(1000);

    EXPECT_FALSE(table.run(triage, 64));
    EXPECT_LE(table.trials, 20u);
    table.trials = 0;
    for (int i = 0; i < 10; i++) {
        EXPECT_FALSE(table.run(triage, 64));
    }
    EXPECT_LE(table.trials, 250u);
    EXPECT_EQ(rejected(triage, 1000), "");
}

TEST(TriageTest, TrialsGrowWithTheLogarithm)
{
    for (std::size_t n : {10u, 100u, 1000u, 5000u}) {
        for (std::size_t bad : {1u, 2u, 5u, 30u}) {
            if (2 * bad > n) {
                continue;
            }
            FakeTable table;
            std::mt19937 random(static_cast<unsigned>(n + bad));
            while (table.bad.size() < bad) {
                table.bad.insert(random() % n);
            }
            Triage triage(n);

            int rounds = 0;
            while (!table.run(triage, 3)) {
                ASSERT_LT(++rounds, 10);
            }
            auto log = std::log2(static_cast<double>(n));
            EXPECT_LE(static_cast<double>(table.trials),
                      static_cast<double>(bad) * (log + 6) + 3)
                << bad << " of " << n;
        }
    }
}

// Tables that break, are mended, slow down; lines that are refused.  Each line
// is inserted once or set aside, and a good one is not set aside unless the
// table broke twice.
TEST(TriageTest, Simulation)
{
    for (unsigned seed = 1; seed <= 3000; seed++) {
        SCOPED_TRACE("seed " + std::to_string(seed));
        std::mt19937 random(seed);
        auto below = [&](std::size_t n) { return random() % n; };

        auto n = 1 + below(below(2) ? 20 : 400);
        FakeTable table;
        for (auto bad = below(2) ? below(n + 1) : below(3); bad > 0; bad--) {
            auto kind = below(6);
            (kind == 0   ? table.slow
             : kind == 1 ? table.unable
                         : table.bad)
                .insert(below(n));
        }
        for (auto there = below(2) ? 0 : below(n); there > 0; there--) {
            auto line = below(n);
            if (!table.rows.contains(line) && !table.is_bad(line)) {
                table.rows.insert(line);
            }
        }
        table.fast_enough = below(3) ? 0 : 1 + below(10);

        Triage triage(n, below(2) ? Triage::no_limit : 1 + below(n));
        auto breaks_at = below(2 * n + 2);
        auto mended_at = breaks_at + below(200);
        std::size_t trials = 0;
        std::size_t rounds = 0;
        for (bool finished = false; !finished;) {
            ASSERT_LT(++rounds, 1000u);
            triage.go_on(rounds < 3 ? 0 : 2);
            for (;;) {
                table.broken = trials >= breaks_at && trials < mended_at;
                auto trial = triage.next();
                if (trial.lines.empty()) {
                    break;
                }
                trials++;
                triage.report(trial, table.insert(trial), below(2));
            }
            trials++;  // so that time passes
            finished = triage.finished();
        }

        for (std::size_t line = 0; line < n; line++) {
            auto is_bad = table.is_bad(line);
            ASSERT_EQ(triage.is_rejected(line), is_bad) << line;
            ASSERT_EQ(table.rows.count(line), is_bad ? 0u : 1u) << line;
        }
    }
}

}  // namespace
}  // namespace chatbot
