// Every system call of libpq and of the journal, and every allocation, of a
// log's life fails once, the N-th, N upward until nothing fails any more: a
// record that the journal has becomes one row, or one line of what is set
// aside, also one that a worker left behind which is gone.

#include "journal/failing_call.hpp"

#include <algorithm>
#include <set>

#include "journal/fixture.hpp"
#include "log/fixture.hpp"

namespace chatbot {
namespace {

using How = FailingCall::How;

class LogFailingCallTest : public LogShipperTest,
                           public testing::WithParamInterface<How> {
protected:
    // Fails each call of the life of a log.
    void fail_each()
    {
        std::set<std::string> names;
        unsigned n = 0;
        bool failed = true;
        while (failed && n < 5000 && !HasFailure()) {
            begin();
            const auto before = descriptors();
            {
                const FailingCall failing(++n, GetParam());
                run(2);
                for (int i = 0; i < 10; i++) {
                    run();
                }
                failed = FailingCall::happened();
            }
            names.insert(FailingCall::name());
            SCOPED_TRACE(std::string(FailingCall::name()) + ", call " +
                         std::to_string(n));
            check_end(before);
        }
        EXPECT_GT(n, 20u);
        EXPECT_LT(n, 5000u);
        if (GetParam() != How::out_of_memory) {
            EXPECT_TRUE(names.contains("recv"));
        }
    }

    void begin()
    {
        sql("delete from " + table());
        shipper_.reset();
        journal_.reset();
        for (const auto& file : fs::directory_iterator(dir_)) {
            fs::remove(file);
        }
        std::ofstream(dir_ + "/log-1-1.jsonl") << record("left") << "{\"torn";
        start();
        ASSERT_TRUE(journal_->append(record("a") + bad_ + record("b")));
    }

    // Whatever failed, the rest of the log's life makes up for it.
    void check_end(std::ptrdiff_t descriptors_before)
    {
        run(1);
        for (int i = 0; i < 100 && ids() != "a b left"; i++) {
            run();
        }
        EXPECT_EQ(ids(), "a b left");
        EXPECT_EQ(journal_->backlog(), 0u);
        const auto lines = set_aside_lines();
        EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1) << lines;

        shipper_->postgres().rest();
        EXPECT_EQ(descriptors(), descriptors_before);
    }
};

TEST_P(LogFailingCallTest, NothingIsLostOrDoubled)
{
    EXPECT_EQ(insert(line("first")), "+");  // makes the table
    fail_each();
}

INSTANTIATE_TEST_SUITE_P(Hows, LogFailingCallTest,
                         testing::Values(How::io_error, How::interrupted,
                                         How::partly, How::out_of_memory));

// No index refuses a line that is sent again.
class LogWithoutIndexFailingCallTest : public LogFailingCallTest {};

TEST_P(LogWithoutIndexFailingCallTest, NothingIsLostOrDoubled)
{
    make_old_table();
    sql("alter table " + table() + " add column request_id text");
    connect_with("insert, select");
    settings_.conninfo += " user=" + name_ + " password=secret";
    fail_each();
    sql("drop owned by " + name_);
}

INSTANTIATE_TEST_SUITE_P(Hows, LogWithoutIndexFailingCallTest,
                         testing::Values(How::io_error, How::out_of_memory));

}  // namespace
}  // namespace chatbot
