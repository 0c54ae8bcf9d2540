#include "nginx/chatbot.hpp"

#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "text/unicode.hpp"
#include "core/lane.hpp"
#include "openai/transfers.hpp"
#include "nginx/log.hpp"
#include "nginx/task.hpp"

// The life of a worker process: its clients, their lanes, and the conductor
// between them.

namespace chatbot {

namespace {

[[nodiscard]] bool goes_on(const ModelOpenai& model)
{
    return model.in_flight() != 0;
}

[[nodiscard]] bool goes_on(const RedisCache&)
{
    return false;
}

// A lane whose batches are run() by a client in nginx's thread pool.
template <class Client, class Item>
class PooledLane {
public:
    PooledLane(ngx_thread_pool_t* pool, Client& client, std::size_t max_waiting,
               typename Lane<Item>::Done done)
        : task_(
              pool, [this, &client] { client.run(*batch_); },
              [this, &client] { lane_.finished(goes_on(client)); }),
          lane_(
              max_waiting,
              [this](auto& batch) {
                  batch_ = &batch;
                  return task_.post();
              },
              std::move(done))
    {
    }

    [[nodiscard]] bool push(Item&& item) { return lane_.push(std::move(item)); }
    [[nodiscard]] bool busy() const { return lane_.busy(); }
    void pool_is_gone() { task_.pool_is_gone(); }
    void finish_now() { task_.finish_now(); }

private:
    typename Lane<Item>::Batch* batch_ = nullptr;  // while the task is busy
    Task task_;
    Lane<Item> lane_;
};

class Worker final : public Conductor::Services {
public:
    explicit Worker(const MainConf& conf)
        : conductor_(*this, conf.caches.size(), conf.logs.size(),
                     conf.max_in_flight),
          model_lane_(conf.thread_pool, model_, conf.max_in_flight,
                      [this](auto& refused) { on_model(refused); }),
          timer_([this] {
              conductor_.on_timer();
              hold();
          }),
          settle_([this] {
              conductor_.on_settle();
              hold();
          })
    {
        for (std::size_t i = 0; i < conf.caches.size(); ++i) {
            caches_.push_back(std::make_unique<Cache>(*this, conf, i));
        }
        make_logs(conf);
        hold();
    }

    // The thread pool is gone, having run what was posted.
    ~Worker()
    {
        for (auto& cache : caches_) {
            cache->lane.pool_is_gone();
        }
        model_lane_.pool_is_gone();

        conductor_.leave_all();
        for (auto& cache : caches_) {
            cache->lane.finish_now();
        }
        model_lane_.finish_now();
        conductor_.close();

        for (auto& log : logs_) {
            log->close();
        }
    }

    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    Conductor::Seat* ask(Waiter& waiter, const Route& route,
                         std::optional<Key> key, Record record)
    {
        auto seat = conductor_.ask(waiter, route, key, std::move(record));
        hold();
        return seat;
    }

    void leave(Conductor::Seat* seat) { conductor_.leave(seat); }

    std::uint64_t now_ms() override { return ngx_current_msec; }
    std::int64_t time_s() override { return ngx_time(); }

    void set_timer(std::uint64_t when_ms) override
    {
        auto now = now_ms();
        timer_.set_timer(when_ms > now ? when_ms - now : 0);
    }

    void settle_soon() override { settle_.post(); }

    bool ask_model(ModelCall&& call) override
    {
        auto turning = model_lane_.busy();
        if (!model_lane_.push(std::move(call))) {
            return false;
        }
        if (turning) {
            model_.wake();
        }
        return true;
    }

    bool ask_cache(std::size_t cache, CacheItem&& item) override
    {
        return caches_[cache]->lane.push(std::move(item));
    }

    bool has_room(std::size_t journal) override
    {
        return logs_[journal]->has_room();
    }

    bool record(std::size_t journal, std::string_view lines) override
    {
        return logs_[journal]->record(lines);
    }

private:
    struct Cache {
        Cache(Worker& worker, const MainConf& conf, std::size_t index)
            : client(conf.caches[index], is_stopping),
              lane(conf.thread_pool, client, 2 * conf.max_in_flight,
                   [this, &worker, index](auto& batch) {
                       log_notices(client.take_notices());
                       worker.conductor_.on_cache(index, batch);
                       worker.hold();
                   })
        {
        }

        RedisCache client;
        PooledLane<RedisCache, CacheItem> lane;
    };

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
                static_cast<std::uint64_t>(conf.journal_max_size)));
        }
        if (ngx_worker == 0) {  // one of them is enough
            tell_stranded(dir, names);
        }
    }

    void on_model(std::vector<ModelCall>& refused)
    {
        log_notices(model_.take_notices());
        conductor_.on_model(model_.take_events(), refused);
        hold();
    }

    // nginx ends a worker on its way out when no timer holds it.
    void hold()
    {
        timer_.hold_worker(conductor_.in_flight() != 0);
        log_violations();
    }

    Conductor conductor_;
    ModelOpenai model_;
    PooledLane<ModelOpenai, ModelCall> model_lane_;
    std::vector<std::unique_ptr<Cache>> caches_;
    std::vector<std::unique_ptr<LogLane>> logs_;
    Event timer_;
    Event settle_;
};

// Not destroyed where nginx just exits, as the threads are still there.
Worker* worker;

}  // namespace

ngx_int_t init_worker(ngx_cycle_t* cycle)
try {
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

    worker = new Worker(*conf);
    return NGX_OK;
} catch (const std::exception& e) {
    ngx_log_error(NGX_LOG_EMERG, cycle->log, 0, "chatbot: %s", e.what());
    return NGX_ERROR;
}

void exit_worker(ngx_cycle_t*)
{
    delete std::exchange(worker, nullptr);
}

Conductor::Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
                     Record record)
{
    return worker->ask(waiter, route, key, std::move(record));
}

void leave(Conductor::Seat* seat)
{
    if (worker) {
        worker->leave(seat);
    }
}

}  // namespace chatbot
