#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "journal/journal.hpp"
#include "log/shipper.hpp"
#include "postgres/log_fixture.hpp"

namespace chatbot {

namespace fs = std::filesystem;

// The test plays the event loop: a journal on a real file system, and a shipper
// to a real PostgreSQL.
class LogShipperTest : public LogPostgresTest {
protected:
    void SetUp() override
    {
        LogPostgresTest::SetUp();
        const char* tmp = std::getenv("TMPDIR");
        dir_ = std::string(tmp ? tmp : "/tmp") + "/chatbot-XXXXXX";
        ASSERT_NE(mkdtemp(dir_.data()), nullptr);
        settings_ = {.dir = dir_,
                     .orphans = "log-",
                     .max_size = 1024 * 1024,
                     .conninfo = conninfo_,
                     .table = table()};
    }

    void TearDown() override
    {
        shipper_.reset();
        journal_.reset();
        LogPostgresTest::TearDown();
        fs::remove_all(dir_);
    }

    void start()
    {
        journal_ = std::make_unique<Journal>(dir_, "log", settings_.max_size);
        shipper_ = std::make_unique<LogShipper>(
            settings_, [this] { return stopping_.load(); });
    }

    // As a LogLane does: takes what comes next, or goes on with the batch.
    // Returns whether a batch is done.
    bool run(std::size_t orphans = 0)
    {
        if (!shipper_->has_batch()) {
            order_.slice = journal_->next_slice();
        }
        order_.orphans = orphans;
        shipper_->run(order_);

        const bool done =
            !order_.slice.empty() && shipper_->shipping() == Shipping::done;
        if (done) {
            journal_->shipped(shipper_->lines().size());
            shipper_->end_batch();
            order_.slice = {};
        }
        journal_->adopt(shipper_->take_orphans().segments);
        return done;
    }

    std::string ids()
    {
        return sql("select request_id from " + table() + " order by 1");
    }

    // What is set aside.
    std::string set_aside_lines() const
    {
        std::ostringstream all;
        for (const auto& file : fs::directory_iterator(dir_)) {
            if (file.path().filename().string().starts_with("rejected")) {
                all << std::ifstream(file.path()).rdbuf();
            }
        }
        return all.str();
    }

    // Letters of the levels and texts.
    std::string told()
    {
        std::string text;
        for (const auto& notice : shipper_->take_notices()) {
            text += "EWN"[static_cast<int>(notice.level)];
            text += " " + notice.text + "\n";
        }
        return text;
    }

    std::string dir_;
    LogShipper::Settings settings_;
    LogShipper::Order order_;
    std::unique_ptr<Journal> journal_;
    std::unique_ptr<LogShipper> shipper_;
    const std::string bad_ = record("bad", "Hi", "a status that is too long");
};

}  // namespace chatbot
