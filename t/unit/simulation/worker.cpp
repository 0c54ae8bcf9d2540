#include "simulation/worker.hpp"

#include <algorithm>
#include <iterator>

// What happens in a worker process, one thing at a time.

namespace chatbot::simulation {

void Worker::step()
{
    if (world_.until_kill == 0 && world_.random.one_in(128)) {
        world_.until_kill = 1 + static_cast<int>(world_.random.below(12));
    }
    switch (world_.random.below(8)) {
        case 0:
            ask();
            return;
        case 1:
        case 2:
            run_loop();
            return;
        case 3:
        case 4:
        case 5:
            run_thread();
            return;
        case 6:
            run_log();
            return;
        default:
            fail_something();
    }
}

void Worker::run_loop()
{
    switch (world_.random.below(4)) {
        case 0:
            deliver();
            return;
        case 1:
            settle();
            return;
        case 2:
            pass(world_.random.one_in(4) ? world_.random.below(3000)
                                         : world_.random.below(60));
            return;
        default:
            if (!clients_.empty()) {
                auto& client = clients_[world_.random.below(clients_.size())];
                if (client.state != Client::State::waiting) {
                    return;
                }
                if (world_.random.one_in(2)) {
                    leave(client);
                } else if (client.stream) {
                    client.read = Conductor::text(client.seat);
                }
            }
    }
}

void Worker::run_thread()
{
    auto& thread = thread_;
    if (!thread.inbox.empty() && world_.random.one_in(2)) {
        thread.take_order();
        return;
    }
    if (thread.redis_owes() && world_.random.one_in(2)) {
        world_.redis_up ? thread.redis_replies() : thread.redis_is_lost();
        return;
    }
    if (thread.calls.empty()) {
        return;
    }

    auto it = thread.calls.begin();
    std::advance(it, world_.random.below(thread.calls.size()));
    auto& call = it->second;
    if (call.cancelled) {
        thread.end(it->first, 499);
    } else if (!call.hangs) {
        switch (world_.random.below(5)) {
            case 0:
                thread.end(it->first);
                return;
            case 1:
                if (world_.random.one_in(3)) {
                    thread.end(it->first, 502);
                }
                return;
            default:
                thread.model_writes(call);
        }
    } else if (world_.random.one_in(32)) {
        call.hangs = false;
    }
}

// The log's lane: reads the journal, and takes what it reads to PostgreSQL.
void Worker::run_log()
{
    if (!shipping_) {
        const auto slice = journal_.next_slice();
        shipping_ = !slice.empty();
        if (shipping_) {
            world_.check(read_slice(slice, lines_), "a slice cannot be read");
            if (world_.random.one_in(3)) {
                lines_.resize(lines_.find('\n') + 1);  // a batch of its own
            }
        }
        return;
    }

    shipping_ = false;
    if (!world_.postgres_up) {
        world_.say("postgres: refuses");
        return;
    }
    commit();
}

void Worker::commit()
{
    const bool told = !world_.random.one_in(8);
    world_.say(told ? "postgres: commits" : "postgres: lost while it commits");
    for_each_line(lines_, [&](auto line) {
        const auto id = std::string(id_of(line));
        const auto row = world_.recorded.find(id);
        world_.check(row != world_.recorded.end() && row->second == line,
                     "a row that was never recorded");
        world_.check(
            world_.table.insert(id).second || world_.unsure.contains(id),
            "a row is shipped twice");
        told ? void(world_.unsure.erase(id)) : void(world_.unsure.insert(id));
    });
    if (told) {
        journal_.shipped(lines_.size());
    }
}

void Worker::fail_something()
{
    auto& random = world_.random;
    switch (random.below(12)) {
        case 0:
            world_.redis_up = !world_.redis_up;
            world_.say(world_.redis_up ? "redis is up" : "redis is down");
            return;
        case 1:
            world_.postgres_up = !world_.postgres_up;
            world_.say(world_.postgres_up ? "postgres is up"
                                          : "postgres is down");
            return;
        case 2:
            world_.room = !random.one_in(4);
            return;
        case 3:
            world_.disk = !random.one_in(4);
            world_.say(world_.disk ? "the disk is well" : "the disk is full");
            return;
        default:
            return;
    }
}

void Worker::pass(std::uint64_t ms)
{
    world_.now_ms += ms;
    on_timer();
    thread_.on_time();
}

void Worker::on_timer()
{
    if (timer_ms_ > world_.now_ms) {
        return;
    }
    world_.say("timer");
    timer_ms_ = never;
    bool waits = false;
    for (auto& [id, flight] : flights_) {
        if (flight.deadline_ms <= world_.now_ms) {
            flight.open = flight.waits = false;
        }
        waits = waits || flight.waits;
    }
    conductor_.on_timer();
    world_.check(timer_ms_ == never || timer_ms_ > world_.now_ms,
                 "the timer is busy");
    world_.check(waits || timer_ms_ == never || conductor_.in_flight() > 0,
                 "a timer without a flight");
}

void Worker::deliver()
{
    auto events = std::exchange(thread_.outbox, {});
    for (const auto& event : events) {
        if (event.kind != FlightEvent::Kind::piece) {
            auto& flight = flights_.at(event.flight);
            flight.open = flight.waits = false;
        }
    }
    conductor_.on_events(std::move(events));
}

void Worker::settle()
{
    if (std::exchange(settle_, false)) {
        conductor_.on_settle();
    }
}

void Worker::check_invariants()
{
    auto earliest = never;
    for (const auto& [id, flight] : flights_) {
        if (flight.waits) {
            earliest = std::min(earliest, flight.deadline_ms);
        }
    }
    world_.check(timer_ms_ <= earliest, "a flight without a timer");

    world_.check(conductor_.in_flight() >= static_cast<std::size_t>(reserved_),
                 "more is reserved than is in flight");
    world_.check((conductor_.in_flight() > 0) || reserved_ == 0,
                 "something stays reserved");

    const auto& health = thread_.health;
    world_.check(health.up() || thread_.redis_owes() ||
                     health.probe_at() != Clock::time_point::max(),
                 "a Redis that is down is never asked again");

    for (const auto& client : clients_) {
        if (client.state != Client::State::waiting) {
            continue;
        }
        const auto flight = flights_.find(client.flight);
        world_.check(
            settle_ || (flight != flights_.end() && flight->second.waits),
            "an answer that nobody will tell");
        if (!client.stream) {
            continue;
        }
        const auto text = Conductor::text(client.seat);
        world_.check(client.slow || settle_ || text.empty() ||
                         client.read.size() == text.size(),
                     "a client is not told of text");

        const auto call = thread_.calls.find(client.flight);
        world_.check(!thread_.inbox.empty() || call == thread_.calls.end() ||
                         call->second.what.listen,
                     "nobody listens for a client");
    }
}

void Worker::check_records()
{
    for (const auto& client : clients_) {
        world_.check(client.state == Client::State::killed ||
                         client.unrecordable ||
                         world_.recorded.contains(client.id),
                     "a question is not recorded");
    }
}

void Worker::finish()
{
    world_.redis_up = world_.postgres_up = world_.disk = true;
    world_.until_kill = -1;
    for (auto& [flight, call] : thread_.calls) {
        call.hangs = false;
    }

    for (int turn = 0; turn < 400 && world_.fault.empty(); ++turn) {
        while (!thread_.inbox.empty()) {
            thread_.take_order();
        }
        while (thread_.redis_owes()) {
            thread_.redis_replies();
        }
        while (!thread_.calls.empty()) {
            const auto& call = thread_.calls.begin()->second;
            thread_.end(call.what.flight, call.cancelled ? 499 : 0);
        }
        deliver();
        settle();
        pass(1000);
        check_invariants();
        run_log();
        if (turn > 8 && thread_.idle() && conductor_.in_flight() == 0 &&
            !shipping_ && journal_.backlog() == 0 && timer_ms_ == never) {
            break;
        }
    }

    world_.check(thread_.idle() && thread_.errands.in_flight() == 0,
                 "an errand does not end");
    world_.check(conductor_.in_flight() == 0, "a question does not end");
    world_.check(reserved_ == 0, "something stays reserved");
    world_.check(timer_ms_ == never, "a timer with nothing to do");
    for (const auto& client : clients_) {
        world_.check(client.state != Client::State::waiting,
                     "a waiter is not answered");
    }
    check_records();
}

void Worker::shut_down()
{
    world_.say("shut down");
    for (auto& client : clients_) {
        if (client.state == Client::State::waiting) {
            client.state = Client::State::left;
        }
    }
    conductor_.leave_all();
    deliver();
    conductor_.close();
    world_.check(conductor_.in_flight() == 0, "in flight after the end");
    world_.check(reserved_ == 0, "reserved after the end");
    if (!world_.killed) {
        check_records();
    }
    while (world_.postgres_up && !world_.killed && world_.fault.empty() &&
           journal_.backlog() > 0) {
        run_log();
    }
}

}  // namespace chatbot::simulation
