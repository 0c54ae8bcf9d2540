#include "reactor/reactor.hpp"

#include <algorithm>
#include <ctime>
#include <iterator>
#include <new>
#include <utility>

#include "openai/events.hpp"
#include "text/invariant.hpp"

namespace chatbot {
namespace {

// So many errands are begun before what they ask for is sent, so that the first
// of a burst does not wait for the last.
constexpr std::size_t orders_at_once = 16;

// A cache keeps no events.  Without memory for them it is a miss.
std::optional<Answer> with_events(std::optional<Answer>&& found) noexcept
try {
    if (found && !found->reply.empty()) {
        found->events = split_reply(found->reply);
    }
    return std::move(found);
} catch (const std::bad_alloc&) {
    return std::nullopt;
}

template <class T>
void append(std::vector<T>& to, std::vector<T>&& from)
{
    if (to.empty()) {
        std::swap(to, from);
        return;
    }
    to.insert(to.end(), std::make_move_iterator(from.begin()),
              std::make_move_iterator(from.end()));
    from.clear();
}

}  // namespace

Reactor::Reactor(const std::vector<RedisSettings>& caches,
                 std::size_t max_connections, std::function<Stop()> stopping,
                 std::function<void()> notify, RedisCache::Measure measure)
    : stopping_(std::move(stopping)),
      notify_(std::move(notify)),
      resolver_([this] { epoll_.wake(); }),
      errands_(*this),
      transfers_(epoll_, resolver_, max_connections,
                 [this](auto&& event) { errands_.on_model(std::move(event)); })
{
    for (const auto& settings : caches) {
        caches_.push_back(std::make_unique<RedisCache>(
            settings, epoll_, resolver_,
            [this](auto flight, auto&& found) {
                errands_.on_lookup(flight, with_events(std::move(found)));
            },
            measure));
    }
}

Reactor::~Reactor() = default;

void Reactor::post(Errand&& errand)
{
    std::list<FlightEvent> end(1);
    auto& order = post(Order::Kind::errand, errand.call.flight);
    order.errand = std::move(errand);
    order.end.swap(end);
}

Reactor::Order& Reactor::post(Order::Kind kind, FlightId flight)
{
    auto& order = posted_.emplace_back();
    order.kind = kind;
    order.flight = flight;
    return order;
}

void Reactor::post_listen(FlightId flight)
{
    post(Order::Kind::listen, flight);
}

void Reactor::post_cancel(FlightId flight)
{
    post(Order::Kind::cancel, flight);
}

void Reactor::flush()
{
    if (posted_.empty()) {
        return;
    }

    bool wake;
    {
        std::lock_guard lock(mutex_);
        append(inbox_, std::move(posted_));
        wake = std::exchange(asleep_, false);
    }
    if (wake) {
        epoll_.wake();
    }
}

Reactor::Events Reactor::take_events()
{
    std::lock_guard lock(mutex_);
    notified_ = false;
    return std::exchange(outbox_, {});
}

bool Reactor::has_work() const
{
    std::lock_guard lock(mutex_);
    return busy() || !inbox_.empty();
}

bool Reactor::busy() const
{
    return errands_.in_flight() != 0 || !orders_.empty() ||
           !told_.events.empty() ||
           std::any_of(caches_.begin(), caches_.end(),
                       [](const auto& cache) { return cache->busy(); });
}

void Reactor::run() noexcept
try {
    const auto end = Clock::now() + max_run;
    auto idle_at = Clock::now() + linger;

    turn(Clock::now());  // a connection that was closed meanwhile is noticed
    for (;;) {
        const auto now = Clock::now();
        if (busy()) {
            idle_at = now + linger;
        }

        const auto stop = stopping_();
        if (stop == Stop::at_once || now >= std::min(end, idle_at) ||
            (stop == Stop::when_done && !busy())) {
            break;
        }
        turn(std::min(now + stop_interval, std::min(end, deadline())));
    }

    std::lock_guard lock(mutex_);
    asleep_ = false;
} catch (const std::exception&) {
    // No memory: the next run goes on.
}

// Waits, moves what is ready, takes what is new.
void Reactor::turn(Clock::time_point until)
{
    {
        std::lock_guard lock(mutex_);
        asleep_ = inbox_.empty();
        if (!asleep_) {
            until = Clock::time_point::min();
        }
    }

    epoll_.wait(until);
    resolver_.take_results();
    take_inbox();

    const auto now = Clock::now();
    transfers_.on_time(now);
    for (const auto& cache : caches_) {
        cache->on_time(now);
    }
    caches_up_ = std::all_of(caches_.begin(), caches_.end(),
                             [](const auto& cache) { return cache->up(); });
    flush_clients();
}

// Orders that were left, since there was no memory, come first.
void Reactor::take_inbox()
{
    {
        std::lock_guard lock(mutex_);
        asleep_ = false;
        if (orders_.empty()) {
            std::swap(orders_, inbox_);
        }
    }

    while (next_order_ < orders_.size()) {
        carry_out(orders_[next_order_++]);
        if (next_order_ % orders_at_once == 0) {
            flush_clients();
        }
    }
    orders_.clear();
    next_order_ = 0;
}

void Reactor::carry_out(Order& order)
{
    switch (order.kind) {
        case Order::Kind::errand:
            begin(order);
            return;
        case Order::Kind::listen:
            errands_.listen(order.flight);
            return;
        case Order::Kind::cancel:
            errands_.cancel(order.flight);
            return;
    }
}

void Reactor::begin(Order& order)
{
    ends_.splice(ends_.end(), order.end);
    try {
        errands_.take(std::move(order.errand));
    } catch (const std::bad_alloc&) {
        FlightEvent event;
        event.flight = order.flight;
        event.problem = out_of_memory();
        tell(std::move(event));
    }
}

// The answers leave first: nobody waits for a store.  A flush may end a call,
// whose answer is then to be stored, or lose a cache, whose lookups are then
// misses: hence twice.
void Reactor::flush_clients()
{
    for (int i = 0; i < 2; i++) {
        transfers_.flush();
        flush_outbox();
        for (const auto& cache : caches_) {
            cache->flush();
        }
    }
}

void Reactor::flush_outbox()
{
    invariant(ends_.size() == errands_.in_flight(),
              "an errand has ended, but not by one event");
    append(told_.notices, transfers_.take_notices());
    for (const auto& cache : caches_) {
        append(told_.notices, cache->take_notices());
    }
    if (told_.events.empty() && told_.notices.empty()) {
        return;
    }

    bool notify;
    {
        std::lock_guard lock(mutex_);
        outbox_.events.splice(outbox_.events.end(), told_.events);
        notify = !std::exchange(notified_, true);
        try {
            append(outbox_.notices, std::move(told_.notices));
        } catch (const std::bad_alloc&) {
            // They are told with the next.
        }
    }
    if (notify) {
        notify_();
    }
}

Clock::time_point Reactor::deadline() const
{
    auto earliest = transfers_.deadline();
    for (const auto& cache : caches_) {
        earliest = std::min(earliest, cache->deadline());
    }
    return earliest;
}

std::int64_t Reactor::time_s()
{
    return std::time(nullptr);
}

bool Reactor::look_up(std::size_t cache, FlightId flight, const Key& key)
{
    return caches_[cache]->look_up(flight, key);
}

void Reactor::store(std::size_t cache, const Key& key, int expire_s,
                    const Answer& answer)
{
    caches_[cache]->store(key, expire_s, answer);
}

void Reactor::ask(ModelCall&& call)
{
    transfers_.ask(std::move(call));
}

void Reactor::listen(FlightId flight)
{
    transfers_.listen(flight);
}

void Reactor::cancel(FlightId flight)
{
    transfers_.cancel(flight);
}

void Reactor::tell(FlightEvent&& event)
{
    if (event.kind == FlightEvent::Kind::piece) {
        told_.events.push_back(std::move(event));
    } else if (invariant(!ends_.empty(), "an errand ends twice")) {
        told_.events.splice(told_.events.end(), ends_, ends_.begin());
        told_.events.back() = std::move(event);
    }
}

}  // namespace chatbot
