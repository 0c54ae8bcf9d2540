#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/exchange.hpp"
#include "core/outage.hpp"
#include "postgres/connection.hpp"
#include "postgres/retention.hpp"
#include "postgres/schema.hpp"
#include "postgres/triage.hpp"

namespace chatbot {

// What became of a batch for the time being.
enum class Shipping {
    done,     // committed or rejected
    more,     // on its way: go on with it at once
    waiting,  // none goes in, or PostgreSQL cannot be reached: try again later
};

// Inserts lines of the journal into the table request_logs, batch by batch.
//
// Threads:  ship(), prepare() and clean() on a worker thread, the rest between
//           two of them on the event loop, or else on that thread.
// Time:     each takes some seconds at most (name resolution excepted), and
//           ends early once stopping().
class LogPostgres {
public:
    // `table` may be "schema.table"; it is quoted, not parsed further.
    // Rows are deleted after `keep_s` seconds; 0: never.
    LogPostgres(std::string conninfo, std::string table, Stopping stopping,
                std::int64_t keep_s = 0);
    ~LogPostgres();

    LogPostgres(const LogPostgres&) = delete;
    LogPostgres& operator=(const LogPostgres&) = delete;

    // Inserts whole lines of JSON, each once, however often they come
    // (`request_id` decides).  Those that PostgreSQL refuses for what they are
    // are appended to `rejected` when all is done, with a notice that says why.
    //
    // `sent_before`: another worker may have inserted some of `lines`.
    // `others` are some later lines: whether these could be inserted, or a line
    // that was inserted before, is tried if none of `lines` can.
    // REQUIRES: until it is done, `lines` stays where it is and is not changed;
    // other lines are another batch.
    [[nodiscard]] Shipping ship(std::string_view lines, bool sent_before,
                                std::string_view others,
                                std::string& rejected) noexcept;

    // How many bytes of `lines` make a good batch, as fast as the table is.
    [[nodiscard]] std::size_t batch_size(std::string_view lines) const;

    // Connects, and makes the table if it is not there.
    [[nodiscard]] bool prepare() noexcept;

    // Deletes rows that are too old, for some time at most, if it is time to.
    void clean() noexcept;

    // Gives the connection back, which others may need.
    void rest();

    // How long it has been there, in milliseconds; 0: there is none.
    [[nodiscard]] int connected_ms() const;

    // Whether in the last minute the server had no connection for us, or a
    // pooler had us wait for one: take turns with others.
    [[nodiscard]] bool is_crowded() const;

    // Takes what should be logged since the last call.  That records are
    // refused is told whenever ship() hands some over.
    [[nodiscard]] std::vector<Notice> take_notices();

    static constexpr int connect_timeout_ms = 10000;

private:
    using Clock = std::chrono::steady_clock;

    // The lines that ship() is given until they are done.
    struct Batch {
        Batch(std::string_view all, std::size_t max_trial);

        std::string_view text;
        std::vector<std::string_view> lines;
        Triage triage;
        std::map<std::size_t, std::string> reasons;  // of lines refused
        std::string last_reason;
    };

    // What a statement came to.
    struct Outcome {
        enum class Kind {
            done,
            refused,
            unable,  // refused for the server's state, as it says
            out_of_time,
            down,  // nothing can be inserted now, whatever it is
        };

        Kind kind = Kind::down;
        bool is_new = true;    // done: not all lines were there already
        bool is_lost = false;  // the connection
        std::string code;      // SQLSTATE
        std::string schema;    // of the constraint
        std::string constraint;
        std::string why;
    };

    using Lines = std::vector<std::string_view>;

    bool connect();
    Shipping work(std::string_view others, std::string& rejected);
    bool make(const Triage::Trial& trial, const Lines& others);
    void take_note(const Triage::Trial& trial, const Lines& lines,
                   const Outcome& outcome);
    static Triage::Result result_of(const Outcome& outcome);
    std::string rehearsed(std::size_t other, const Lines& others) const;
    void keep_witness(std::string_view line);
    Outcome attempt(const Lines& lines, bool rehearse);
    bool is_there(const Outcome& outcome);
    Outcome insert_plain(const Lines& lines, bool rehearse);
    Outcome copy(const std::string& rows, bool rehearse);
    Outcome insert(const Lines& lines, const std::string& statement,
                   bool rehearse);
    Outcome outcome_of(const PostgresResult& result);
    std::string limits() const;
    void finish(std::string& rejected);
    bool fail(const std::string& why);
    void tell(Notice::Level level, const std::string& text,
              const char* state = "");

    const std::string conninfo_;
    const Stopping stopping_;
    LogSchema schema_;
    std::optional<Retention> retention_;

    std::unique_ptr<PostgresConnection> connection_;
    Clock::time_point connected_at_;
    Clock::time_point crowded_until_;
    std::size_t first_host_ = 0;  // of the conninfo, to ask first

    std::optional<Batch> batch_;
    std::string witness_;       // a line that was inserted
    int testimonies_ = 0;       // that are left to it
    bool in_round_ = false;     // of trials
    bool sent_before_ = false;  // lines of the batch may be there already
    bool found_ = false;        // some of them are
    bool copies_ = true;        // COPY is a way into this table
    bool selects_ = true;       // we may read what is there
    std::size_t max_trial_ = Triage::no_limit;  // lines
    int trial_ms_;                              // that a trial may take
    int statement_ms_ = 0;                      // that this one may take

    Outage outage_;
    std::string limits_;   // what was told last; empty: none
    std::string keeping_;  // why old rows cannot be deleted, as told
    std::vector<Notice> notices_;
};

}  // namespace chatbot
