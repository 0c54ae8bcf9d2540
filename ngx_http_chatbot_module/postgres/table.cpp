#include "postgres/table.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <utility>

#include "core/record.hpp"
#include "postgres/conninfo.hpp"
#include "text/json.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

// How long a trial may take before it is made with fewer lines.  More as long
// as nothing goes in, and for a verdict.
constexpr int min_trial_ms = 1000;
constexpr int max_trial_ms = 8000;
constexpr int verdict_factor = 4;

// What the server's own time limits are exceeded by, before we leave.
constexpr int grace_ms = 1000;

// How long ship() works on a batch before it returns.
constexpr milliseconds work_time(4000);

constexpr std::chrono::seconds crowded_time(60);

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

// A transaction whose client is gone holds its locks no longer than this (but
// for one that waits for the rest of a COPY: that ends with TCP's keepalive).
// Such limits are set for the transaction only, as others may share the session
// (pgbouncer).
constexpr const char* begin =
    "begin; set local idle_in_transaction_session_timeout = 9000; ";

// Looks for deferred constraints before it takes all back.
constexpr const char* take_back = "set constraints all immediate; rollback";

// Whether the code tells of the server's state: no connection, no resources,
// shutting down, no access, read-only.  A trigger may use the same codes, for
// example when it writes to another server.
bool is_about_server(std::string_view code)
{
    for (std::string_view prefix : {"08", "28", "3D", "53", "57P", "58"}) {
        if (code.starts_with(prefix)) {
            return true;
        }
    }
    return code == "25006";
}

// Whether it was refused for want of time, or because of what others did
// meanwhile.
bool is_about_time(std::string_view code)
{
    return code == "57014" || code == "55P03" || code.starts_with("40");
}

// Whether the server hung up with this error.
bool is_last_word(const PostgresResult& result)
{
    auto severity = error_field(result, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity == "FATAL" || severity == "PANIC";
}

// Whether the sequence of `id` is behind the ids that are there: "Key (id)=(1)
// already exists.", in any language.
bool is_behind(const PostgresResult& result)
{
    std::string_view detail = error_field(result, PG_DIAG_MESSAGE_DETAIL);
    detail.remove_prefix(std::min(detail.find('('), detail.size()));
    return error_field(result, PG_DIAG_SQLSTATE) == "23505" &&
           detail.starts_with("(id)=(");
}

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

// The line ends stay: no JSON string reaches across one, so that a torn line
// cannot swallow the next.
std::string json_array(const std::vector<std::string_view>& lines)
{
    std::string array = "[";
    for (auto line : lines) {
        array += array.size() == 1 ? "" : ",";
        array += line;
    }
    return array + "]";
}

bool append_rows(std::string& rows, const std::vector<std::string_view>& lines,
                 const RecordColumns& columns)
{
    return std::all_of(lines.begin(), lines.end(), [&](auto line) {
        return append_row(rows, line, columns);
    });
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
        batch_.emplace(lines, max_trial_);
    }

    auto shipping = connect() ? work(others, rejected) : Shipping::waiting;
    if (shipping == Shipping::waiting) {
        // The table may be another next time.
        rest();
    }
    return shipping;
} catch (...) {  // no memory
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
            tell(Notice::Level::warn, why + "; connections are taken in turns");
        }
        crowded_until_ = Clock::now() + crowded_time;
        return false;
    }

    connected_at_ = Clock::now();
    copies_ = selects_ = true;
    if (!schema_.prepare(*connection)) {
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
    Outcome outcome = attempt(lines, rehearse);
    const bool fast = Clock::now() - start < milliseconds(trial_ms_ / 4);

    if (outcome.kind == Outcome::Kind::down) {
        in_round_ = false;
        return fail(outcome.why);
    }
    if (outcome.kind == Outcome::Kind::done) {
        if (!rehearse) {
            keep_witness(lines.back());
            testimonies_ = outcome.is_new ? max_testimonies : testimonies_;
        }
        batch_->triage.report(trial, result_of(outcome), fast);
        if (rehearse && trial.lines.front() == 0 && batch_->triage.accuses()) {
            testimonies_--;
        }
        return true;
    }

    if (!rehearse) {
        batch_->last_reason = outcome.why;
    }
    if (trial.single() && !rehearse) {
        batch_->reasons[trial.lines.front()] = outcome.why;
    }
    batch_->triage.report(trial, result_of(outcome), fast);
    return !outcome.is_lost || fail(outcome.why);
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

// Lines that may be there already are inserted in a way that looks, which may
// need more rights than we have.
LogPostgres::Outcome LogPostgres::attempt(const Lines& lines, bool rehearse)
{
    const auto& statements = schema_.statements();
    const bool looks = selects_ && !rehearse &&
                       (sent_before_ || statements.always_new) &&
                       statements.insert_new != statements.insert;
    if (!looks) {
        return insert_plain(lines, rehearse);
    }

    Outcome outcome = insert(lines, statements.insert_new, false);
    if (outcome.kind == Outcome::Kind::refused && outcome.code == "42501" &&
        lines.size() == 1) {
        outcome = insert_plain(lines, false);
        selects_ = outcome.kind != Outcome::Kind::done;
    } else if (lines.size() == 1 && is_there(outcome)) {
        outcome.kind = Outcome::Kind::done;
        outcome.is_new = false;
    }
    return outcome;
}

// Whether a line was refused because it is there already.
bool LogPostgres::is_there(const Outcome& outcome)
{
    return outcome.code == "23505" &&
           LogSchema::is_own_key(*connection_, outcome.schema,
                                 outcome.constraint);
}

// COPY is half the work for the server.
LogPostgres::Outcome LogPostgres::insert_plain(const Lines& lines,
                                               bool rehearse)
{
    const auto& statements = schema_.statements();
    Outcome outcome;
    std::string rows;
    if (copies_ && !statements.copy.empty() &&
        append_rows(rows, lines, statements.columns)) {
        outcome = copy(rows, rehearse);
        copies_ =
            outcome.kind != Outcome::Kind::refused ||
            !(outcome.code.starts_with("42") || outcome.code.starts_with("0A"));
    } else {
        outcome = insert(lines, statements.insert, rehearse);
    }

    if (!copies_ && outcome.kind == Outcome::Kind::refused && !rows.empty()) {
        outcome = insert(lines, statements.insert, rehearse);
    }
    if (rehearse || !is_there(outcome)) {
        return outcome;
    }

    // Some of it is there already: which is looked for, or found by halving.
    if (!std::exchange(sent_before_, true)) {
        return attempt(lines, false);
    }
    if (lines.size() == 1) {
        outcome.kind = Outcome::Kind::done;
        outcome.is_new = false;
    }
    return outcome;
}

LogPostgres::Outcome LogPostgres::copy(const std::string& rows, bool rehearse)
{
    const auto& statement = schema_.statements().copy;
    if (!rehearse) {
        const auto sql = limits() + statement;
        return outcome_of(connection_->copy(sql, rows));
    }

    const auto sql = begin + limits() + statement;
    Outcome outcome = outcome_of(connection_->copy(sql, rows));
    if (outcome.kind == Outcome::Kind::done) {
        outcome = outcome_of(connection_->query(take_back));
    }
    if (outcome.kind != Outcome::Kind::done) {
        (void)connection_->query("rollback");
    }
    return outcome;
}

LogPostgres::Outcome LogPostgres::insert(const Lines& lines,
                                         const std::string& statement,
                                         bool rehearse)
{
    const auto& statements = schema_.statements();
    const bool turns =
        statements.take_turns && statement == statements.insert_new;
    PostgresResult result =
        connection_->query(begin + limits() + (turns ? lock_turns : ""));
    if (!succeeded(result)) {
        auto outcome = outcome_of(result);
        (void)connection_->query("rollback");
        return outcome;
    }

    const std::string array = json_array(lines);
    result = connection_->query(statement, &array);
    const bool is_new = !result || *PQcmdTuples(result.get()) != '0' ||
                        statement == statements.insert;
    if (succeeded(result)) {  // checks what was deferred
        result = connection_->query(rehearse ? take_back : "commit");
    }

    Outcome outcome = outcome_of(result);
    outcome.is_new = is_new;
    if (outcome.kind != Outcome::Kind::done) {
        (void)connection_->query("rollback");
    }
    return outcome;
}

LogPostgres::Outcome LogPostgres::outcome_of(const PostgresResult& result)
{
    Outcome outcome;
    if (succeeded(result)) {
        outcome.kind = Outcome::Kind::done;
        return outcome;
    }

    outcome.code = error_field(result, PG_DIAG_SQLSTATE);
    outcome.schema = error_field(result, PG_DIAG_SCHEMA_NAME);
    outcome.constraint = error_field(result, PG_DIAG_CONSTRAINT_NAME);
    outcome.why = connection_->why(result);
    outcome.is_lost = outcome.code.empty() || is_last_word(result);
    sent_before_ |= outcome.is_lost;
    if ((outcome.is_lost && stopping_()) || is_behind(result)) {
        outcome.kind = Outcome::Kind::down;
    } else if (outcome.code.empty()) {
        outcome.kind = Outcome::Kind::out_of_time;
    } else if (is_about_server(outcome.code)) {
        outcome.kind = Outcome::Kind::unable;
    } else {
        outcome.kind = is_about_time(outcome.code) ? Outcome::Kind::out_of_time
                                                   : Outcome::Kind::refused;
    }
    return outcome;
}

// Sooner for a lock, so that the error says so.
std::string LogPostgres::limits() const
{
    return "set local statement_timeout = " + std::to_string(statement_ms_) +
           "; set local lock_timeout = " +
           std::to_string(statement_ms_ * 3 / 4) + "; ";
}

void LogPostgres::finish(std::string& rejected)
{
    const auto& triage = batch_->triage;
    std::string refused;
    std::string why;
    std::size_t n = 0;
    for (std::size_t i = 0; i < batch_->lines.size(); i++) {
        if (triage.is_rejected(i)) {
            why = batch_->reasons[i];
            append_refused(refused, batch_->lines[i], why);
            n++;
        }
    }
    rejected += refused;

    if (n != 0) {
        tell(Notice::Level::error,
             "records refused: " + std::to_string(n) + ", " + why);
    }
    if (!std::exchange(failure_, "").empty()) {
        tell(Notice::Level::notice, "is back");
    }
    max_trial_ = triage.max_trial();
    if (max_trial_ == Triage::no_limit) {
        trial_ms_ = std::max(trial_ms_ / 2, min_trial_ms);
    }
    batch_.reset();
}

// Returns false, for the caller to return.
bool LogPostgres::fail(const std::string& why)
{
    if (!stopping_() && why != failure_) {
        failure_ = why;
        tell(Notice::Level::error, why);
    }
    return false;
}

void LogPostgres::tell(Notice::Level level, const std::string& text)
{
    notices_.push_back(
        {level, "PostgreSQL (" + database_name(conninfo_) + "): " + text});
}

}  // namespace chatbot
