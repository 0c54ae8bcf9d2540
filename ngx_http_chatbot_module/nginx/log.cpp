#include "nginx/log.hpp"

#include <algorithm>
#include <utility>

#include "nginx/metrics.hpp"
#include "nginx/notices.hpp"
#include "text/invariant.hpp"

namespace chatbot {

namespace {

// Nobody waits for a row, since the journal has the record: a batch may gather
// what comes in this time.
constexpr ngx_msec_t linger_ms = 50;

constexpr ngx_msec_t min_backoff_ms = 100;
constexpr ngx_msec_t max_backoff_ms = 5000;
constexpr ngx_msec_t crowded_backoff_ms = 1000;

// How often segments of workers that are gone are looked for.
constexpr ngx_msec_t patrol_ms = 5000;

constexpr std::size_t max_told = 100;

// How long a connection is kept while there is something to ship, and after
// which pause the next one is asked for; the latter where they are short.
constexpr int turn_ms = 20000;
constexpr int short_turn_ms = 3000;
constexpr ngx_msec_t pause_ms = 300;
constexpr ngx_msec_t long_pause_ms = 500;

// A worker on its way out waits no longer than this for PostgreSQL.
constexpr std::chrono::seconds leave_time(1);

constexpr ngx_msec_t hold_ms = 60000;

// A journal has room for about so many requests at once, however small it is.
constexpr std::uint64_t reservations = 64;

constexpr std::size_t max_recent = 64 * 1024;

// Between a half and the whole of it, so that workers do not come together.
ngx_msec_t jittered(ngx_msec_t ms)
{
    auto half = ms / 2;
    return ms - static_cast<ngx_msec_t>(ngx_random()) % (half + 1);
}

}  // namespace

LogLane::LogLane(ngx_thread_pool_t* pool, const LogTarget& target,
                 std::string dir, const SegmentNames& names,
                 std::uint64_t max_size, std::function<void()> changed)
    : dir_(std::move(dir)),
      orphans_(names.orphans),
      ship_(!target.conninfo.empty()),
      max_reservation_(max_size / reservations),
      journal_(dir_, names.own, max_size, ship_),
      rejects_{.dir = dir_, .max_size = max_size},
      changed_(std::move(changed)),
      postgres_(
          target.conninfo, target.table, [this] { return gives_up(); },
          ngx_worker == 0 ? target.keep_s : 0),
      prepare_(ship_ && ngx_worker == 0),  // one of them is enough
      task_(
          pool, [this] { run(); }, [this] { finished(); }),
      timer_([this] { send(); }),
      patrol_([this] {
          patrol_due_ = true;
          send();
      }),
      hold_([] {})
{
    patrol_.hold_worker(false);
    (void)tell(journal_.is_writable());
    send();
}

bool LogLane::reserve(std::uint64_t bytes)
{
    return tell(journal_.reserve(std::min(bytes, max_reservation_)));
}

void LogLane::release(std::uint64_t bytes)
{
    journal_.release(std::min(bytes, max_reservation_));
}

bool LogLane::can_record()
{
    if (!reserve(Conductor::answer_room)) {
        return false;
    }
    release(Conductor::answer_room);
    return true;
}

bool LogLane::record(std::string_view lines)
{
    if (!tell(journal_.append(lines))) {
        return false;
    }
    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "chatbot recorded: %uz bytes", lines.size());

    changed_();

    if (ship_ && !task_.busy() && (!timer_.timer_set() || lingers_)) {
        linger();
    }
    if (backoff_ms_ != 0 && lines.size() <= max_recent) {
        recent_ = lines;
    }
    return true;
}

void LogLane::tell_damage()
{
    log_line(NGX_LOG_WARN, journal_.take_damage());
    patrol_due_ |= journal_.take_left_behind();
}

// Logs whether the journal does what it should, and returns that.
bool LogLane::tell(bool done)
{
    tell_damage();
    if (done && !failing_) {
        return true;
    }

    failing_ = !done;
    changed_();
    const auto now = std::chrono::steady_clock::now();
    if (failing_) {
        log_line(NGX_LOG_CRIT,
                 outage_.fail("requests are refused, the journal cannot be "
                              "written: " +
                                  journal_.error(),
                              now));
    } else {
        log_line(NGX_LOG_NOTICE,
                 outage_.recover("the journal can be written again", now));
    }
    return done;
}

// Has a batch sent at once if there is one, or else what there is in a while.
void LogLane::linger()
{
    if (journal_.is_behind()) {
        wake_in(0, true);
    } else if (!lingers_) {
        wake_in(linger_ms, true);
        lingers_ = true;
    }
}

void LogLane::wake_in(ngx_msec_t ms, bool hold)
{
    lingers_ = false;
    timer_.hold_worker(hold);
    timer_.set_timer(ms);
}

void LogLane::send()
{
    lingers_ = false;
    if (task_.busy()) {
        return;
    }

    if (lines_.empty()) {
        slice_ = journal_.next_slice();
        changed_();
    }
    tell_damage();
    search_max_ = journal_.vacancies();
    search_ = search_max_ != 0 && std::exchange(patrol_due_, false);
    if (slice_.empty() && !search_) {
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "chatbot batch sent: from %uL, search %d", slice_.from,
                   search_);
    others_ = recent_;
    hold_.hold_worker(true);
    hold_.set_timer(hold_ms);
    (void)task_.post();  // without a pool, close() ships
}

void LogLane::run() noexcept
try {
    leaving_at_.reset();
    shipping_ = Shipping::waiting;
    if (search_) {
        search();
    }

    if (!slice_.empty()) {
        shipping_ = ship();
    } else if (ship_ && prepare_) {
        prepare_ = !postgres_.prepare();
    } else if (!used_) {
        postgres_.rest();
    }
    if (search_ && !ngx_exiting) {
        postgres_.clean();
    }
} catch (const std::exception&) {
    // No memory; tried again like any other failure.
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

Shipping LogLane::ship()
{
    if (lines_.empty() && !read_batch()) {
        notices_.push_back({Notice::Level::error,
                            "the journal in " + dir_ + " cannot be read"});
        return Shipping::waiting;
    }

    if (!decided_) {
        auto shipping =
            postgres_.ship(lines_, adopted_fds_.contains(slice_.fd),
                           backoff_ms_ ? later_lines() : "", rejected_);
        if (shipping != Shipping::done) {
            return shipping;
        }
        decided_ = true;
        prepare_ = false;
    }

    return rejected_.empty() || set_rejected_aside() ? Shipping::done
                                                     : Shipping::waiting;
}

// What cannot be set aside waits, and all of the batch with it; a reason that
// lasts is told once.
bool LogLane::set_rejected_aside()
{
    auto error = set_aside(rejects_, rejected_);
    if (!error.empty() && error != held_for_) {
        notices_.push_back(
            {Notice::Level::error,
             "refused records cannot be set aside, and wait: " + error});
    }
    held_for_ = std::move(error);
    return held_for_.empty();
}

bool LogLane::read_batch()
{
    decided_ = false;
    rejected_.clear();
    if (!read_slice(slice_, lines_)) {
        return false;
    }
    lines_.resize(postgres_.batch_size(lines_));
    return true;
}

// Some lines that come after the batch.
std::string LogLane::later_lines()
{
    std::string lines;
    Slice rest = slice_;
    rest.from += lines_.size();
    if (!rest.empty() && !read_slice(rest, lines)) {
        lines.clear();
    }
    return others_ + lines;
}

// Whether nothing of PostgreSQL is waited for any more.  Called in the thread.
bool LogLane::gives_up()
{
    if (!ngx_exiting || is_stopping()) {
        return is_stopping();
    }

    auto now = std::chrono::steady_clock::now();
    if (!leaving_at_) {
        leaving_at_ = now;
    }
    return now - *leaving_at_ > leave_time;
}

void LogLane::finished()
{
    hold_.hold_worker(false);
    log_notices(std::exchange(notices_, {}));
    log_notices(postgres_.take_notices());
    log_violations();
    if (!ship_) {
        return;
    }

    if (std::exchange(search_, false)) {
        more_orphans_ = orphans_found_.more;
        used_ = false;
        patrol_.set_timer(patrol_ms);
    }
    if (!slice_.empty()) {
        go_on();
    }

    // Behind shipped(): what is adopted goes to the front of the queue.
    for (const auto& segment : orphans_found_.segments) {
        adopted_fds_.insert(segment.file.fd());
    }
    journal_.adopt(std::exchange(orphans_found_, {}).segments);

    auto vacant = journal_.vacancies() == Journal::max_open;
    patrol_due_ |= vacant && std::exchange(more_orphans_, false);
    changed_();
    schedule();
}

// Takes note of what became of the batch.
void LogLane::go_on()
{
    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "chatbot batch %s: %uz rows, %uz bytes refused",
                   shipping_ == Shipping::done ? "committed" : "waits",
                   std::count(lines_.begin(), lines_.end(), '\n'),
                   rejected_.size());
    used_ = true;
    if (shipping_ == Shipping::done) {
        journal_.shipped(lines_.size());
        count_rows(lines_, rejected_);
        lines_.clear();
        slice_ = {};
        backoff_ms_ = 0;
        recent_.clear();
    } else if (shipping_ == Shipping::waiting) {
        backoff_ms_ = std::clamp(
            2 * backoff_ms_, min_backoff_ms,
            postgres_.is_crowded() ? crowded_backoff_ms : max_backoff_ms);
    }
}

LogState LogLane::state() const
{
    return {.shipped_bytes = ship_ ? journal_.shipped() : 0,
            .oldest_s = ship_ ? journal_.oldest() : 0,
            .waits = backoff_ms_ != 0,
            .failing = failing_};
}

// Has the next batch sent at once or in a while.
void LogLane::schedule()
{
    auto backlog = journal_.backlog();
    if (backlog == 0 && lines_.empty()) {
        if (postgres_.is_crowded()) {
            postgres_.rest();
        }
        if (patrol_due_) {
            send();
        }
        return;
    }

    // While PostgreSQL is away, a worker on its way out leaves its journal.
    if (backoff_ms_ != 0) {
        wake_in(jittered(backoff_ms_), false);
        return;
    }

    const bool crowded = postgres_.is_crowded();
    const bool large = journal_.is_behind() || !lines_.empty();
    if (postgres_.connected_ms() > (crowded ? short_turn_ms : turn_ms) ||
        (crowded && !large)) {
        postgres_.rest();
        wake_in(jittered(crowded ? long_pause_ms : pause_ms), true);
    } else if (!large) {
        linger();
    } else if (!ngx_exiting) {
        send();
    } else {
        wake_in(linger_ms, false);
    }
}

void LogLane::close()
{
    task_.pool_is_gone();
    task_.finish_now();
    invariant(journal_.reserved() == 0, "room in the journal stays reserved");

    const auto until = std::chrono::steady_clock::now() + leave_time;
    while (ship_ && backoff_ms_ == 0 && !is_stopping() &&
           std::chrono::steady_clock::now() < until) {
        if (lines_.empty()) {
            slice_ = journal_.next_slice();
        }
        if (slice_.empty()) {
            return;
        }

        run();
        finished();
    }
}

}  // namespace chatbot
