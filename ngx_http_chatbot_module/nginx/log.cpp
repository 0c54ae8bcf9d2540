#include "nginx/log.hpp"

#include <algorithm>
#include <utility>

#include "nginx/metrics.hpp"
#include "nginx/notices.hpp"
#include "text/invariant.hpp"

namespace chatbot {

namespace {

// No client waits for a row, since the journal has the record: so a batch takes
// what comes within this time.
constexpr ngx_msec_t linger_ms = 50;

constexpr ngx_msec_t min_backoff_ms = 100;
constexpr ngx_msec_t max_backoff_ms = 5000;
constexpr ngx_msec_t crowded_backoff_ms = 1000;

// How often segments of workers that are gone are looked for.
constexpr ngx_msec_t patrol_ms = 5000;

// After which time without a batch the connection is given back.
constexpr ngx_msec_t idle_ms = 2000;

// How long a connection is kept while there is something to ship, and the pause
// before the next one; the second value of each is for where connections are
// short.
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

// Between a half and the whole of it, so that workers do not connect together.
ngx_msec_t jittered(ngx_msec_t ms)
{
    auto half = ms / 2;
    return ms - static_cast<ngx_msec_t>(ngx_random()) % (half + 1);
}

}  // namespace

LogLane::LogLane(ngx_thread_pool_t* pool, const LogTarget& target,
                 const std::string& dir, const SegmentNames& names,
                 std::uint64_t max_size, std::function<void()> changed)
    : ship_(!target.conninfo.empty()),
      max_reservation_(max_size / reservations),
      journal_(dir, names.own, max_size, ship_),
      changed_(std::move(changed)),
      // One worker is enough to make the table, and to delete rows.
      shipper_({.dir = dir,
                .orphans = names.orphans,
                .max_size = max_size,
                .conninfo = target.conninfo,
                .table = target.table,
                .keep_s = ngx_worker == 0 ? target.keep_s : 0,
                .prepare = ngx_worker == 0},
               [this] { return gives_up(); }),
      task_(
          pool, [this] { run(); }, [this] { finished(); }),
      timer_([this] { send(); }),
      patrol_([this] {
          patrol_due_ = true;
          send();
      }),
      hold_([] {}),
      idle_([this] {
          if (!task_.busy()) {
              shipper_.postgres().rest();
          }
      })
{
    patrol_.hold_worker(false);
    idle_.hold_worker(false);
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

    if (!shipper_.has_batch()) {
        order_.slice = journal_.next_slice();
        changed_();
    }
    tell_damage();
    const auto vacancies = journal_.vacancies();
    order_.orphans =
        vacancies != 0 && std::exchange(patrol_due_, false) ? vacancies : 0;
    if (order_.slice.empty() && order_.orphans == 0) {
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "chatbot batch sent: from %uL, search for %uz",
                   order_.slice.from, order_.orphans);
    order_.later = recent_;
    hold_.hold_worker(true);
    hold_.set_timer(hold_ms);
    (void)task_.post();  // without a pool, close() ships
}

void LogLane::run() noexcept
{
    leaving_at_.reset();
    shipper_.run(order_);
    if (order_.orphans != 0 && !ngx_exiting) {
        shipper_.clean();
    }
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
    log_notices(shipper_.take_notices());
    log_notices(shipper_.postgres().take_notices());
    log_violations();
    if (!ship_) {
        return;
    }

    auto orphans = shipper_.take_orphans();
    if (std::exchange(order_.orphans, 0) != 0) {
        more_orphans_ = orphans.more;
        patrol_.set_timer(patrol_ms);
    }
    if (!order_.slice.empty()) {
        go_on();
    }

    // Behind shipped(): what is adopted goes to the front of the queue.
    journal_.adopt(std::move(orphans.segments));

    auto vacant = journal_.vacancies() == Journal::max_open;
    patrol_due_ |= vacant && std::exchange(more_orphans_, false);
    changed_();
    schedule();
}

// Takes note of what became of the batch.
void LogLane::go_on()
{
    const auto& lines = shipper_.lines();
    const auto& rejected = shipper_.rejected();
    const bool done = shipper_.shipping() == Shipping::done;
    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                   "chatbot batch %s: %uz rows, %uz bytes refused",
                   done ? "committed" : "waits",
                   std::count(lines.begin(), lines.end(), '\n'),
                   rejected.size());
    if (done) {
        journal_.shipped(lines.size());
        count_rows(lines, rejected);
        shipper_.end_batch();
        order_.slice = {};
        backoff_ms_ = 0;
        recent_.clear();
    } else if (shipper_.shipping() == Shipping::waiting) {
        backoff_ms_ =
            std::clamp(2 * backoff_ms_, min_backoff_ms,
                       shipper_.postgres().is_crowded() ? crowded_backoff_ms
                                                        : max_backoff_ms);
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
    auto& postgres = shipper_.postgres();
    if (journal_.backlog() == 0 && !shipper_.has_batch()) {
        if (postgres.is_crowded()) {
            postgres.rest();
        }
        idle_.set_timer(idle_ms);
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

    const bool crowded = postgres.is_crowded();
    const bool large = journal_.is_behind() || shipper_.has_batch();
    if (postgres.connected_ms() > (crowded ? short_turn_ms : turn_ms) ||
        (crowded && !large)) {
        postgres.rest();
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
        if (!shipper_.has_batch()) {
            order_.slice = journal_.next_slice();
        }
        if (order_.slice.empty()) {
            return;
        }

        run();
        finished();
    }
}

}  // namespace chatbot
