#include "nginx/log.hpp"

#include <algorithm>
#include <utility>

#include "text/digest.hpp"
#include "text/invariant.hpp"
#include "postgres/connection.hpp"

namespace chatbot {

namespace {

// Nobody waits for a row, since the journal has the record: a batch may gather
// what comes in this time.
constexpr ngx_msec_t linger_ms = 50;

constexpr ngx_msec_t min_backoff_ms = 100;
constexpr ngx_msec_t max_backoff_ms = 5000;

// How often segments of workers that are gone are looked for.
constexpr ngx_msec_t patrol_ms = 5000;

constexpr ngx_msec_t tell_every_ms = 10000;

constexpr std::size_t max_told = 100;

}  // namespace

void log_notices(const std::vector<Notice>& notices)
{
    for (const auto& notice : notices) {
        auto level = notice.level == Notice::Level::error  ? NGX_LOG_ERR
                     : notice.level == Notice::Level::warn ? NGX_LOG_WARN
                                                           : NGX_LOG_NOTICE;
        ngx_log_error(static_cast<ngx_uint_t>(level), ngx_cycle->log, 0,
                      "chatbot: %s", notice.text.c_str());
    }
}

void log_violations()
{
    for (std::string text; !(text = take_violation()).empty();) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "chatbot: internal error: %s", text.c_str());
    }
}

std::vector<SegmentNames> segment_names(const std::vector<LogTarget>& targets)
{
    std::vector<SegmentNames> names;
    auto is_database = [](auto& target) { return !target.conninfo.empty(); };
    auto databases = std::count_if(targets.begin(), targets.end(), is_database);

    for (const auto& target : targets) {
        if (!is_database(target)) {
            names.push_back({"requests", "requests-"});
            continue;
        }

        auto database = database_name(target.conninfo);
        auto own = "log-" + hex(digest({database, target.table})).substr(0, 8);
        names.push_back({own, databases == 1 ? "log-" : own + "-"});
    }
    return names;
}

void tell_stranded(const std::string& dir,
                   const std::vector<SegmentNames>& names)
{
    auto segments = find_abandoned(dir, "log-");
    std::erase_if(segments, [&](std::string_view path) {
        path.remove_prefix(dir.size() + 1);
        return std::any_of(names.begin(), names.end(), [=](auto& name) {
            return path.starts_with(name.orphans);
        });
    });
    if (segments.empty()) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "chatbot: records of a database that is not configured stay "
                  "in the journal, in %uz file(s), \"%s\" first",
                  segments.size(), segments.front().c_str());
}

LogLane::LogLane(ngx_thread_pool_t* pool, const LogTarget& target,
                 std::string dir, const SegmentNames& names,
                 std::uint64_t max_size)
    : dir_(std::move(dir)),
      orphans_(names.orphans),
      ship_(!target.conninfo.empty()),
      journal_(dir_, names.own, max_size, ship_),
      rejects_{.dir = dir_, .max_size = max_size},
      postgres_(target.conninfo, target.table, is_stopping),
      task_(
          pool, [this] { run(); }, [this] { finished(); }),
      timer_([this] { send(); }),
      patrol_([this] {
          patrol_due_ = true;
          send();
      })
{
    patrol_.hold_worker(false);
    (void)tell(journal_.is_writable());
    send();
}

bool LogLane::reserve(std::uint64_t bytes)
{
    return tell(journal_.reserve(bytes));
}

bool LogLane::record(std::string_view lines)
{
    if (!tell(journal_.append(lines))) {
        return false;
    }

    if (ship_ && !task_.busy() && !timer_.timer_set()) {
        wake_in(linger_ms, true);
    }
    return true;
}

// Logs what has become of the journal; returns whether it did what it should.
bool LogLane::tell(bool done)
{
    auto damage = journal_.take_damage();
    if (!damage.empty()) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "chatbot: %s",
                      damage.c_str());
    }
    patrol_due_ |= journal_.take_left_behind();

    if (done || (told_ms_ && ngx_current_msec - told_ms_ < tell_every_ms)) {
        return done;
    }

    told_ms_ = ngx_current_msec;
    ngx_log_error(NGX_LOG_CRIT, ngx_cycle->log, 0,
                  "chatbot: requests are refused, the journal cannot be "
                  "written: %s",
                  journal_.error().c_str());
    return false;
}

void LogLane::wake_in(ngx_msec_t ms, bool hold)
{
    timer_.hold_worker(hold);
    timer_.set_timer(ms);
}

void LogLane::send()
{
    if (task_.busy()) {
        return;
    }

    slice_ = journal_.next_slice();
    (void)tell(true);
    search_max_ = journal_.vacancies();
    search_ = search_max_ != 0 && std::exchange(patrol_due_, false);
    if (slice_.empty() && !search_) {
        return;
    }

    shipped_ = false;    // run() says otherwise, if it comes to that
    (void)task_.post();  // without a pool, close() ships
}

void LogLane::run() noexcept
try {
    lines_.clear();
    rejected_.clear();

    if (search_) {
        search();
    }

    if (slice_.empty()) {
        shipped_ = true;
        return;
    }

    if (!read_slice(slice_, lines_)) {
        notices_.push_back({Notice::Level::error,
                            "the journal in " + dir_ + " cannot be read"});
        return;
    }

    shipped_ = postgres_.insert(lines_, rejected_);
    if (shipped_ && !rejected_.empty()) {
        auto error = set_aside(rejects_, rejected_);
        if (!error.empty()) {
            shipped_ = false;
            notices_.push_back(
                {Notice::Level::error,
                 "refused records cannot be set aside: " + error});
        }
    }
} catch (const std::exception&) {
    shipped_ = false;  // out of memory; tried again like any other failure
}

// Segments that stay where they are, where nothing is shipped, are put in
// order.
void LogLane::search()
{
    if (!ship_) {
        tell_orphan_errors(tidy_orphans(dir_, orphans_));
        return;
    }

    orphans_found_ = find_orphans(dir_, orphans_, search_max_);
    tell_orphan_errors(orphans_found_.errors);
}

// Each error is told once, of the first hundred.
void LogLane::tell_orphan_errors(const std::vector<std::string>& errors)
{
    for (const auto& error : errors) {
        if (told_.size() < max_told && told_.insert(error).second) {
            notices_.push_back(
                {Notice::Level::error, "records are left behind in " + error});
        }
    }
}

void LogLane::finished()
{
    log_notices(std::exchange(notices_, {}));
    log_notices(postgres_.take_notices());
    log_violations();
    if (!ship_) {
        return;
    }

    if (std::exchange(search_, false)) {
        more_orphans_ = orphans_found_.more;
        patrol_.set_timer(patrol_ms);
    }

    if (shipped_) {
        journal_.shipped(lines_.size());
        backoff_ms_ = 0;
    } else {
        backoff_ms_ =
            std::clamp(2 * backoff_ms_, min_backoff_ms, max_backoff_ms);
    }

    // Behind shipped(): what is adopted goes to the front of the queue.
    journal_.adopt(std::exchange(orphans_found_, {}).segments);

    auto vacant = journal_.vacancies() == Journal::max_open;
    patrol_due_ |= vacant && std::exchange(more_orphans_, false);

    auto backlog = journal_.backlog();
    if (shipped_ && (backlog >= max_slice || patrol_due_)) {
        send();
    } else if (backlog > 0) {
        // While PostgreSQL is away, a worker on its way out leaves its journal.
        wake_in(shipped_ ? linger_ms : backoff_ms_, shipped_);
    }
}

void LogLane::close()
{
    task_.pool_is_gone();
    task_.finish_now();

    while (ship_ && backoff_ms_ == 0 && !is_stopping()) {
        slice_ = journal_.next_slice();
        if (slice_.empty()) {
            return;
        }

        shipped_ = false;
        run();
        finished();
    }
}

}  // namespace chatbot
