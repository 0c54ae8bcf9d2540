#include <sys/resource.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "nginx/former.hpp"
#include "nginx/log.hpp"
#include "nginx/metrics.hpp"
#include "nginx/notices.hpp"
#include "nginx/request.hpp"
#include "nginx/task.hpp"
#include "reactor/reactor.hpp"
#include "text/digest.hpp"

// The life of a worker process: its conductor, the reactor's thread, and the
// logs.

namespace chatbot {

namespace {

// Calls of the model by HTTP/1.1 get a quarter of the descriptors that a
// process may have, or half of a large number, less some for files; clients get
// the rest.
std::size_t max_connections()
{
    constexpr std::size_t others = 64;
    constexpr std::size_t many_clients = 8192;

    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) == -1 ||
        limit.rlim_cur == RLIM_INFINITY) {
        return std::numeric_limits<std::size_t>::max();
    }
    const auto descriptors = static_cast<std::size_t>(limit.rlim_cur);
    const auto clients =
        std::max(descriptors / 2, std::min(descriptors / 4 * 3, many_clients));
    return std::max(descriptors - clients, 2 * others) - others;
}

void warn_of_limit(ngx_uint_t max_in_flight)
{
    auto most = max_connections();
    if (most < max_in_flight) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "chatbot: \"chatbot_max_in_flight\" %ui is more than the "
                      "limit of open files allows: at most %uz calls by "
                      "HTTP/1.1 are made at once, others wait; see "
                      "\"worker_rlimit_nofile\"",
                      max_in_flight, most);
    }
}

// When the reactor's thread shall leave: nginx waits for it before it exits.
Reactor::Stop stop_reactor()
{
    return is_stopping() ? Reactor::Stop::at_once
           : ngx_exiting ? Reactor::Stop::when_done
                         : Reactor::Stop::no;
}

constexpr ngx_msec_t probe_ms = 2000;

class Worker final : public Conductor::Services {
public:
    explicit Worker(const MainConf& conf)
        : conductor_(*this, conf.logs.size(), conf.max_in_flight),
          signal_([this] { on_signal(); }),
          reactor_(
              conf.caches, max_connections(), stop_reactor,
              [this] { signal_.raise(); }, round_trips()),
          task_(
              conf.thread_pool, [this] { reactor_.run(); },
              [this] { on_returned(); }),
          flush_([this] { flush(); }),
          timer_([this] {
              conductor_.on_timer();
              hold();
          }),
          settle_([this] {
              conductor_.on_settle();
              hold();
          }),
          probe_([this] { run_reactor(); })
    {
        probe_.hold_worker(false);
        make_logs(conf);
        hold();
    }

    // Whether no thread uses this any more.  The thread pool is gone by now,
    // but nginx does not wait for its threads where their queue is full.
    [[nodiscard]] bool threads_are_done() const
    {
        return !task_.in_pool() &&
               std::none_of(logs_.begin(), logs_.end(),
                            [](auto& log) { return log->in_pool(); });
    }

    // REQUIRES: threads_are_done().
    ~Worker()
    {
        task_.pool_is_gone();

        conductor_.leave_all();
        task_.finish_now();
        on_signal();
        conductor_.close();

        for (auto& log : logs_) {
            log->close();
        }
        log_violations();
    }

    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
              Record&& record, AskOptions&& options)
    {
        auto seat = conductor_.ask(waiter, route, key, std::move(record),
                                   std::move(options));
        hold();
        return seat;
    }

    void leave(Seat* seat) { conductor_.leave(seat); }

    void record_refused(const Route& route, const Record& record)
    {
        std::string line;
        append_line(line, record);
        auto journal = route.journal;
        if (journal != Route::none && reserve(journal, line.size())) {
            release(journal, line.size());
            (void)this->record(journal, line);
        }
    }

    std::uint64_t now_ms() override { return ngx_current_msec; }

    void set_timer(std::uint64_t when_ms) override
    {
        auto now = now_ms();
        timer_.set_timer(when_ms > now ? when_ms - now : 0);
    }

    void settle_soon() override { settle_.post_next(); }

    void send(Errand&& errand) override
    {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                       "chatbot errand of flight %uL", errand.call.flight);
        reactor_.post(std::move(errand));
        flush_.post();
    }

    void listen(FlightId flight) override
    {
        reactor_.post_listen(flight);
        flush_.post();
    }

    void cancel(FlightId flight) override
    {
        reactor_.post_cancel(flight);
        flush_.post();
    }

    bool reserve(std::size_t journal, std::size_t bytes) override
    {
        return logs_[journal]->reserve(bytes);
    }

    void release(std::size_t journal, std::size_t bytes) override
    {
        logs_[journal]->release(bytes);
    }

    bool record(std::size_t journal, std::string_view lines) override
    {
        return logs_[journal]->record(lines);
    }

    void settled(const Record& record, bool durable) override
    {
        count_question(record, durable);
    }

    // Whether the journals take records.
    [[nodiscard]] bool can_record()
    {
        return std::all_of(logs_.begin(), logs_.end(),
                           [](auto& log) { return log->can_record(); });
    }

private:
    void make_logs(const MainConf& conf)
    {
        if (!conf.journal) {
            return;
        }

        std::string dir(view(conf.journal->name));
        auto names = segment_names(conf.logs);
        for (std::size_t i = 0; i < names.size(); ++i) {
            logs_.push_back(std::make_unique<LogLane>(
                conf.thread_pool, conf.logs[i], dir, names[i],
                static_cast<std::uint64_t>(conf.journal_max_size),
                [this] { tell_logs(); }));
        }
        tell_logs();
        if (ngx_worker == 0) {  // one of them is enough
            tell_stranded(dir, names);
            watch_.emplace(dir,
                           static_cast<std::uint64_t>(conf.journal_max_size));
        }
    }

    // For "chatbot_metrics"; a log that is just being made is not there yet.
    void tell_logs() const
    {
        auto all = metrics();
        if (!all) {
            return;
        }

        LogState state;
        for (const auto& log : logs_) {
            const auto each = log->state();
            state.shipped_bytes += each.shipped_bytes;
            state.waits |= each.waits;
            state.failing |= each.failing;
            if (each.oldest_s != 0) {
                state.oldest_s = state.oldest_s == 0
                                     ? each.oldest_s
                                     : std::min(state.oldest_s, each.oldest_s);
            }
        }

        using Gauge = Metrics::Gauge;
        all->set(Gauge::shipped_bytes,
                 static_cast<std::int64_t>(state.shipped_bytes));
        all->set(Gauge::oldest_since_s, state.oldest_s);
        all->set(Gauge::postgres_down, state.waits);
        all->set(Gauge::journal_failing, state.failing);
    }

    // At the end of a turn of the event loop: all that it brought goes to the
    // reactor at once.
    void flush()
    {
        reactor_.flush();
        run_reactor();
    }

    void run_reactor()
    {
        if (!task_.busy()) {
            (void)task_.post();  // without a pool, ~Worker() tells the end
        }
    }

    void on_signal()
    {
        auto [events, notices] = reactor_.take_events();
        log_notices(notices);
        for (const auto& notice : notices) {
            count_change(notice.change);
        }
        for (const auto& event : events) {
            ngx_log_debug2(NGX_LOG_DEBUG_HTTP, ngx_cycle->log, 0,
                           "chatbot event of flight %uL: %s", event.flight,
                           to_string(event.kind));
        }
        conductor_.on_events(std::move(events));
        hold();
    }

    void on_returned()
    {
        if (reactor_.has_work()) {
            (void)task_.post();
        }
        hold();
    }

    // A worker on its way out exits when no timer holds it.  A Redis that is
    // down is probed even if no question comes.
    void hold()
    {
        timer_.hold_worker(conductor_.in_flight() != 0);
        if (!reactor_.caches_up() && !probe_.timer_set()) {
            probe_.set_timer(probe_ms);
        }
        log_violations();
        if (auto all = metrics()) {
            all->set(Metrics::Gauge::in_flight,
                     static_cast<std::int64_t>(conductor_.in_flight()));
            all->set(Metrics::Gauge::redis_down, !reactor_.caches_up());
        }
    }

    Conductor conductor_;
    Signal signal_;
    Reactor reactor_;
    Task task_;
    std::vector<std::unique_ptr<LogLane>> logs_;
    Event flush_;
    Event timer_;
    Event settle_;
    Event probe_;
    std::optional<JournalWatch> watch_;
};

// Not destroyed where nginx just exits, as the threads are still there.
Worker* worker;

}  // namespace

ngx_int_t init_worker(ngx_cycle_t* cycle)
try {
    watch_former_journals();

    auto conf = main_conf(cycle);
    if (!conf || conf->routes.empty() ||
        (ngx_process != NGX_PROCESS_WORKER &&
         ngx_process != NGX_PROCESS_SINGLE)) {
        return NGX_OK;
    }

    if (!ngx_event_actions.notify) {
        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "chatbot: threads need the \"epoll\", \"kqueue\" or "
                      "\"eventport\" event method");
        return NGX_ERROR;
    }

    if (ngx_worker == 0) {
        warn_of_limit(conf->max_in_flight);
    }
    init_metrics(*conf);
    worker = new Worker(*conf);
    return NGX_OK;
} catch (const std::exception& e) {
    ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "chatbot: %s", e.what());
    return NGX_ERROR;
}

void exit_worker(ngx_cycle_t*)
{
    constexpr int max_waits = 2000;

    auto leaving = std::exchange(worker, nullptr);
    for (int i = 0; leaving && !leaving->threads_are_done(); i++) {
        if (i == max_waits) {
            return;  // what was recorded is safe
        }
        ngx_msleep(1);
    }
    delete leaving;
}

Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
          Record&& record, AskOptions&& options)
{
    return worker->ask(waiter, route, key, std::move(record),
                       std::move(options));
}

AnswerNames& answer_names()
{
    static AnswerNames names(
        hex(digest({std::to_string(ngx_pid), std::to_string(ngx_time())}))
            .substr(0, 12) +
        "-");
    return names;
}

std::string ill_health()
{
    return worker && !worker->can_record()
               ? "the journal cannot be written or is full"
               : "";
}

void leave(Seat* seat)
{
    if (worker) {
        worker->leave(seat);
    }
}

void record_refused(const Route& route, const Record& record)
{
    if (worker) {
        worker->record_refused(route, record);
    }
}

}  // namespace chatbot
