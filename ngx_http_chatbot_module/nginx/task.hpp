#pragma once

extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_thread_pool.h>
}

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {

// nginx hands a finished task back under a spin lock that ThreadSanitizer,
// which does not see into nginx, has to be told of.
#ifdef __SANITIZE_THREAD__
inline void tsan_release(void* task)
{
    __tsan_release(task);
}
inline void tsan_acquire(void* task)
{
    __tsan_acquire(task);
}
#else
inline void tsan_release(void*) {}
inline void tsan_acquire(void*) {}
#endif

// The Stopping of a worker process; the flag is set by a signal handler.
[[nodiscard]] inline bool is_stopping()
{
    return ngx_terminate != 0;
}

// An event of our own: a timer, or something to do soon.  Event loop only.
class Event {
public:
    explicit Event(std::function<void()> handler)
        : handler_(std::move(handler))
    {
        // nginx's debug log takes an event's data for a connection.
        connection_.fd = static_cast<ngx_socket_t>(-1);
        connection_.data = this;
        event_.data = &connection_;
        event_.log = ngx_cycle->log;
        event_.handler = [](ngx_event_t* event) noexcept {
            auto c = static_cast<ngx_connection_t*>(event->data);
            auto handler = static_cast<Event*>(c->data)->handler_;
            handler();  // which may destroy the event
        };
    }

    ~Event()
    {
        if (event_.timer_set) {
            ngx_del_timer(&event_);
        }
        if (event_.posted) {
            ngx_delete_posted_event(&event_);
        }
    }

    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;

    // In this turn of the event loop, even where one that was posted posts
    // again.
    void post() { ngx_post_event(&event_, &ngx_posted_events); }

    // In the next turn, so that others have theirs.
    void post_next() { ngx_post_event(&event_, &ngx_posted_next_events); }

    void set_timer(ngx_msec_t in_ms)
    {
        // ngx_add_timer() ignores changes below 300 ms to a timer that is set.
        if (event_.timer_set) {
            ngx_del_timer(&event_);
        }
        ngx_add_timer(&event_, in_ms);
    }

    void cancel_timer()
    {
        if (event_.timer_set) {
            ngx_del_timer(&event_);
        }
    }

    [[nodiscard]] bool timer_set() const { return event_.timer_set; }

    // Whether a worker on its way out waits for this timer.
    void hold_worker(bool hold) { event_.cancelable = !hold; }

private:
    const std::function<void()> handler_;
    ngx_connection_t connection_{};
    ngx_event_t event_{};
};

// Tells the event loop from another thread that there is something to do.
//
// Threads:  raise() on any thread, everything else on the event loop.
class Signal {
public:
    // `handler` is called once for any number of raise() before it.  Throws
    // std::runtime_error where descriptors or nginx's connections are short.
    explicit Signal(std::function<void()> handler)
        : handler_(std::move(handler)),
          fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))
    {
        connection_ =
            fd_ == -1 ? nullptr : ngx_get_connection(fd_, ngx_cycle->log);
        if (!connection_) {
            close(fd_);
            throw std::runtime_error("no connection for an eventfd");
        }

        auto event = connection_->read;
        connection_->data = this;
        event->log = ngx_cycle->log;
        event->handler = [](ngx_event_t* ready) noexcept {
            auto c = static_cast<ngx_connection_t*>(ready->data);
            static_cast<Signal*>(c->data)->on_raised();
        };
        if (ngx_add_event(event, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
            ngx_close_connection(connection_);
            throw std::runtime_error("an eventfd cannot be watched");
        }
    }

    ~Signal() { ngx_close_connection(connection_); }

    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

    void raise() const noexcept
    {
        const std::uint64_t one = 1;
        (void)!write(fd_, &one, sizeof(one));
    }

private:
    // Edge-triggered: the counter need not be read.
    void on_raised() { handler_(); }

    const std::function<void()> handler_;
    const int fd_;
    ngx_connection_t* connection_;
};

// Work that nginx's thread pool does again and again, one at a time.
//
// Threads:  run() is called on a thread of the pool, everything else on the
//           event loop.  Neither function may throw.
class Task {
public:
    Task(ngx_thread_pool_t* pool, std::function<void()> run,
         std::function<void()> finished)
        : pool_(pool),
          run_(std::move(run)),
          finished_(std::move(finished))
    {
        task_.ctx = this;
        task_.handler = [](void* data, ngx_log_t*) noexcept {
            auto task = static_cast<Task*>(data);
            task->run_();
            tsan_release(data);
            task->in_pool_ = false;
        };
        task_.event.data = this;
        task_.event.log = ngx_cycle->log;
        task_.event.handler = [](ngx_event_t* event) noexcept {
            static_cast<Task*>(event->data)->finish();
        };
    }

    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    // Has run() called, then finished().  False: the pool is gone.
    // REQUIRES: !busy().
    [[nodiscard]] bool post()
    {
        if (!pool_) {
            return false;
        }

        invariant(!busy_, "a task is posted twice");
        busy_ = true;
        submit();
        return true;
    }

    [[nodiscard]] bool busy() const { return busy_; }

    // Whether a thread runs it, or will.
    [[nodiscard]] bool in_pool() const { return in_pool_; }

    // The pool is gone, having run all that was posted, but its events will not
    // come any more.  finish_now() takes their place.
    void pool_is_gone() { pool_ = nullptr; }
    void finish_now()
    {
        if (busy_) {
            finish();
        }
    }

private:
    // A pool whose queue is full is tried again.
    void submit()
    {
        if (!pool_) {
            return;
        }

        in_pool_ = true;
        if (ngx_thread_task_post(pool_, &task_) != NGX_OK) {
            in_pool_ = false;
            retry_.set_timer(retry_ms);
        }
    }

    void finish()
    {
        tsan_acquire(this);
        busy_ = false;
        finished_();
    }

    static constexpr ngx_msec_t retry_ms = 20;

    ngx_thread_pool_t* pool_;
    const std::function<void()> run_;
    const std::function<void()> finished_;
    ngx_thread_task_t task_{};
    Event retry_{[this] { submit(); }};
    bool busy_ = false;
    std::atomic<bool> in_pool_ = false;
};

}  // namespace chatbot
