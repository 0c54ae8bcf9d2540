#include "postgres/table.hpp"

#include <algorithm>
#include <utility>

#include "core/record.hpp"
#include "postgres/conninfo.hpp"
#include "text/invariant.hpp"
#include "text/json.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

// How long a trial may take before it is made with fewer lines.  More as long
// as nothing goes in, and for a verdict.
constexpr int min_trial_ms = 1000;
constexpr int max_trial_ms = 8000;
constexpr int verdict_factor = 4;

// How long we wait beyond the limits that the server has for a statement.
constexpr int grace_ms = 1000;

// How long ship() works on a batch before it returns.
constexpr milliseconds work_time(4000);

constexpr std::chrono::seconds crowded_time(60);

// A pooler accepts every connection; where it has no server connection for one,
// the reply to its first query is late.
constexpr std::chrono::seconds queueing_time(1);

constexpr std::size_t trials_per_batch = 8;
constexpr std::size_t max_others = 64;

// Of a line that append_line() wrote.
constexpr std::size_t max_witness = 16 * 1024;

// So often the witness may tell that the table is well without any other line
// going in: the fault may be of a kind that it is not affected by.
constexpr int max_testimonies = 8;
constexpr std::string_view time_member = "{\"timestamp\":\"";
constexpr std::size_t time_size =
    std::string_view("{\"timestamp\":\"2026-11-23T06:13:00.123Z\"").size();
constexpr std::string_view id_member = ",\"request_id\":\"";

// Takes the first line, "\n" included, off `lines`, which is not empty.
std::string_view next_line(std::string_view& lines)
{
    std::string_view line = lines.substr(0, lines.find('\n'));
    if (line.size() < lines.size()) {
        line = lines.substr(0, line.size() + 1);
    }
    lines.remove_prefix(line.size());
    return line;
}

std::vector<std::string_view> split(std::string_view text, std::size_t max)
{
    std::vector<std::string_view> lines;
    while (!text.empty() && lines.size() < max) {
        lines.push_back(next_line(text));
    }
    return lines;
}

// Adds the reason as a member, which does no harm if the line is shipped again.
void append_refused(std::string& out, std::string_view line,
                    std::string_view reason)
{
    std::string row;
    if (!append_row(row, line, RecordColumns().set())) {
        out += line;
        out += line.ends_with('\n') ? "" : "\n";
        return;
    }

    out += line.substr(0, line.size() - 2);
    out += ",\"refusal\":";
    append_json(out, reason);
    out += "}\n";
}

}  // namespace

LogPostgres::Batch::Batch(std::string_view all, std::size_t max_trial)
    : text(all),
      lines(split(all, Triage::no_limit)),
      triage(lines.size(), max_trial)
{
}

LogPostgres::LogPostgres(std::string conninfo, std::string table,
                         Stopping stopping, std::int64_t keep_s)
    : conninfo_(std::move(conninfo)),
      stopping_(std::move(stopping)),
      schema_(table),
      trial_ms_(min_trial_ms)
{
    if (keep_s > 0) {
        retention_.emplace(schema_.table(), keep_s);
    }
}

LogPostgres::~LogPostgres() = default;

Shipping LogPostgres::ship(std::string_view lines, bool sent_before,
                           std::string_view others,
                           std::string& rejected) noexcept
try {
    if (!batch_ || batch_->text.data() != lines.data() ||
        batch_->text.size() != lines.size()) {
        in_round_ = false;
        sent_before_ = sent_before;
        found_ = false;
        batch_.emplace(lines, max_trial_);
    }

    auto shipping = connect() ? work(others, rejected) : Shipping::waiting;
    if (shipping == Shipping::waiting) {
        // The table may be another next time.
        rest();
    }
    return shipping;
} catch (...) {           // no memory
    sent_before_ = true;  // it may have been sent
    rest();
    return Shipping::waiting;
}

std::size_t LogPostgres::batch_size(std::string_view lines) const
{
    auto rest = lines;
    if (max_trial_ < Triage::no_limit / trials_per_batch) {
        for (auto n = max_trial_ * trials_per_batch; n > 0 && !rest.empty();
             n--) {
            next_line(rest);
        }
        return lines.size() - rest.size();
    }
    return lines.size();
}

bool LogPostgres::prepare() noexcept
try {
    return connect();
} catch (...) {  // no memory
    rest();
    return false;
}

void LogPostgres::clean() noexcept
try {
    if (!retention_ || !retention_->is_due() || !connect()) {
        return;
    }

    auto error = retention_->work(*connection_);
    if (!error.empty()) {
        rest();
    }
    if (!error.empty() && error != keeping_ && !stopping_()) {
        tell(Notice::Level::error, "old rows cannot be deleted: " + error);
    }
    keeping_ = error;
} catch (...) {  // no memory
    rest();
}

void LogPostgres::rest()
{
    connection_.reset();
}

int LogPostgres::connected_ms() const
{
    auto since =
        std::chrono::duration_cast<milliseconds>(Clock::now() - connected_at_);
    return connection_ ? static_cast<int>(since.count()) : 0;
}

bool LogPostgres::is_crowded() const
{
    return Clock::now() < crowded_until_;
}

std::vector<Notice> LogPostgres::take_notices()
{
    return std::exchange(notices_, {});
}

bool LogPostgres::connect()
{
    if (connection_ && connection_->alive()) {
        return true;
    }

    // Libpq asks no host behind a silent one, so the next try starts there.
    auto& connection = connection_ =
        std::make_unique<PostgresConnection>(stopping_);
    connection->set_deadline(Clock::now() + milliseconds(connect_timeout_ms));
    if (!connection->open(conninfo_, first_host_)) {
        first_host_ = connection->timed_out() ? first_host_ + 1 : 0;
        auto why = connection->why(nullptr);
        if (!connection->too_many()) {
            return fail(why);
        }
        if (!is_crowded()) {
            tell(Notice::Level::warn,
                 why + "; workers take turns with connections");
        }
        crowded_until_ = Clock::now() + crowded_time;
        return false;
    }

    connected_at_ = Clock::now();
    copies_ = selects_ = true;
    const bool prepared = schema_.prepare(*connection);
    if (Clock::now() - connected_at_ > queueing_time) {
        crowded_until_ = Clock::now() + crowded_time;
    }
    if (!prepared) {
        rest();  // the table is looked at anew next time
        return fail(schema_.error());
    }
    if (schema_.limits() != limits_ && !schema_.limits().empty()) {
        tell(Notice::Level::warn, schema_.limits());
    }
    limits_ = schema_.limits();
    return true;
}

// Makes trials until all lines are inserted or rejected, or nothing goes in.
Shipping LogPostgres::work(std::string_view others, std::string& rejected)
{
    auto& triage = batch_->triage;
    auto other_lines = split(others, max_others);
    if (!std::exchange(in_round_, true)) {
        triage.go_on(1 + other_lines.size());
    }

    const auto until = Clock::now() + work_time;
    for (auto trial = triage.next(); !trial.lines.empty();
         trial = triage.next()) {
        if (!make(trial, other_lines)) {
            return Shipping::waiting;
        }
        if (Clock::now() > until) {
            return Shipping::more;
        }
    }

    in_round_ = false;
    if (!triage.finished()) {
        trial_ms_ = std::min(2 * trial_ms_, max_trial_ms);
        fail(batch_->last_reason);
        return Shipping::waiting;
    }

    finish(rejected);
    return Shipping::done;
}

// Returns false if no other trial can be made now.  Where the connection is
// lost, that may be for the lines of this trial: the round goes on later.
bool LogPostgres::make(const Triage::Trial& trial, const Lines& others)
{
    using Kind = Triage::Trial::Kind;
    const bool rehearse = trial.kind == Kind::rehearse;
    std::string other;
    Lines lines;
    if (rehearse) {
        other = rehearsed(trial.lines.front(), others);
        lines.push_back(other);
    } else {
        for (auto i : trial.lines) {
            lines.push_back(batch_->lines[i]);
        }
    }
    if (rehearse && other.empty()) {
        batch_->triage.report(trial, Triage::Result::refused, true);
        return true;
    }

    const auto start = Clock::now();
    statement_ms_ =
        trial_ms_ * (trial.kind == Kind::confirm ? verdict_factor : 1);
    connection_->set_deadline(start +
                              milliseconds(2 * statement_ms_ + grace_ms));
    const auto outcome = attempt(lines, rehearse);
    const bool fast = Clock::now() - start < milliseconds(trial_ms_ / 4);

    if (outcome.kind == Outcome::Kind::down) {
        in_round_ = false;
        return fail(outcome.why);
    }
    if (!rehearse) {
        take_note(trial, lines, outcome);
    }
    batch_->triage.report(trial, result_of(outcome), fast);

    const bool done = outcome.kind == Outcome::Kind::done;
    if (done && rehearse && trial.lines.front() == 0 &&
        batch_->triage.accuses()) {
        testimonies_--;
    }
    return done || !outcome.is_lost || fail(outcome.why);
}

// Of lines of the batch: one that went in may be a witness, and the reasons of
// those that did not are told later.
void LogPostgres::take_note(const Triage::Trial& trial, const Lines& lines,
                            const Outcome& outcome)
{
    if (outcome.kind == Outcome::Kind::done) {
        keep_witness(lines.back());
        testimonies_ = outcome.is_new ? max_testimonies : testimonies_;
        return;
    }

    batch_->last_reason = outcome.why;
    if (trial.single()) {
        batch_->reasons[trial.lines.front()] = outcome.why;
    }
}

Triage::Result LogPostgres::result_of(const Outcome& outcome)
{
    switch (outcome.kind) {
        case Outcome::Kind::done:
            return outcome.is_new ? Triage::Result::inserted
                                  : Triage::Result::known;
        case Outcome::Kind::refused:
            return Triage::Result::refused;
        case Outcome::Kind::unable:
            return Triage::Result::unable;
        default:
            return Triage::Result::out_of_time;
    }
}

// The witness, as it would be if it came now and with the id of another
// request; or else a later line.  Empty if there is none.
std::string LogPostgres::rehearsed(std::size_t other, const Lines& others) const
{
    if (other != 0) {
        return other <= others.size() ? std::string(others[other - 1]) : "";
    }

    auto line = witness_;
    auto suspect = batch_->lines[batch_->triage.first_suspect()];
    auto id = line.find(id_member);
    if (testimonies_ == 0 || id == line.npos ||
        !suspect.starts_with(time_member)) {
        return "";
    }
    line.insert(id + id_member.size(), "rehearsal-");
    return line.replace(0, time_size, suspect.substr(0, time_size));
}

// Preferably one that has a value in most columns.
void LogPostgres::keep_witness(std::string_view line)
{
    bool full = line.find("\"status\":\"success\"") != line.npos;
    if ((full || witness_.empty()) && line.size() <= max_witness &&
        line.starts_with(time_member)) {
        witness_ = line;
    }
}

// Without memory it is repeated: nothing is handed over before all of it can
// be.
void LogPostgres::finish(std::string& rejected)
{
    const auto& triage = batch_->triage;
    invariant(triage.finished(), "a batch is done before its lines are");
    std::string refused = rejected;
    std::string why;
    std::size_t n = 0;
    for (std::size_t i = 0; i < batch_->lines.size(); i++) {
        if (triage.is_rejected(i)) {
            why = batch_->reasons[i];
            append_refused(refused, batch_->lines[i], why);
            n++;
        }
    }
    if (n != 0) {
        tell(Notice::Level::error,
             "records refused: " + std::to_string(n) + ", " + why);
    }
    tell(Notice::Level::notice, outage_.recover("is back", Clock::now()));
    max_trial_ = triage.max_trial();
    if (max_trial_ == Triage::no_limit) {
        trial_ms_ = std::max(trial_ms_ / 2, min_trial_ms);
    }
    rejected.swap(refused);
    batch_.reset();
}

// Returns false, for the caller to return.
bool LogPostgres::fail(const std::string& why)
{
    if (!stopping_()) {
        tell(Notice::Level::error, outage_.fail(why, Clock::now()),
             " fails, records wait in the journal");
    }
    return false;
}

void LogPostgres::tell(Notice::Level level, const std::string& text,
                       const char* state)
{
    if (!text.empty()) {
        notices_.push_back({level, "PostgreSQL (" + database_name(conninfo_) +
                                       ")" + state + ": " + text});
    }
}

}  // namespace chatbot
