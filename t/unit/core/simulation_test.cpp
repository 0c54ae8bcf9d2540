// One seed decides everything: what is asked, in which order things end, who
// leaves, what fails, when the process is killed.  Conductor, Errands,
// CacheHealth and the journal (on a real file system) are the product's own;
// after each step the invariants are checked.
//
//     make simulate SEEDS=1000000
//     make simulate SEED=42        prints the steps of one

#include "simulation.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "journal/journal.hpp"
#include "text/invariant.hpp"

namespace chatbot::simulation {
namespace {

constexpr std::uint64_t never = ~std::uint64_t{0};
constexpr std::size_t max_in_flight = 12;

class Worker;

class Client final : public Waiter {
public:
    enum class State { waiting, left, answered, killed };

    void on_text() override;
    void on_answer(const Reply& reply, CacheStatus status) override;

    Worker* worker = nullptr;
    std::string id;
    std::string question;
    bool stream = false;
    bool slow = false;
    bool in_ask = false;
    State state = State::waiting;
    FlightId flight = 0;
    Conductor::Seat* seat = nullptr;
    std::string read;
};

// A worker process.
class Worker final : public Conductor::Services {
public:
    Worker(World& world, std::deque<Client>& clients,
           const std::vector<Route>& routes)
        : world_(world),
          clients_(clients),
          routes_(routes)
    {
        auto orphans = find_orphans(world.dir, "log", journal_.vacancies());
        world.check(orphans.errors.empty(), "an orphan cannot be adopted");
        journal_.adopt(std::move(orphans.segments));
    }

    // What may happen next; the one chosen happens.
    void step();

    // Until nothing is left to do.
    void finish();

    // The worker exits.
    void shut_down();

    void check_invariants();

    void leave(Client& client)
    {
        world_.say(client.id + " leaves");
        client.state = Client::State::left;
        conductor_.leave(client.seat);
    }

    void ask();

    Thread& thread() { return thread_; }
    World& world() { return world_; }

private:
    struct Flight {
        std::size_t route;
        std::string question;
        std::uint64_t deadline_ms;
        bool open;          // can be joined
        bool waits = true;  // has neither ended nor reached its deadline
    };

    std::uint64_t now_ms() override { return world_.now_ms; }

    void set_timer(std::uint64_t when_ms) override { timer_ms_ = when_ms; }
    void settle_soon() override { settle_ = true; }

    void send(Errand&& errand) override
    {
        ++sent_;
        const auto flight = errand.call.flight;
        const auto& route = routes_[asked_route_];
        for (const auto& [id, other] : flights_) {
            world_.check(!other.open || other.route != asked_route_ ||
                             other.question != errand.call.question,
                         "an equal question is in flight");
        }
        flights_[flight] = {
            .route = asked_route_,
            .question = errand.call.question,
            .deadline_ms = world_.now_ms + 1250 +
                           static_cast<unsigned>(route.model->timeout_ms),
            .open = route.cache_lock && !errand.call.question.empty()};
        last_flight_ = flight;
        if (world_.lives()) {
            thread_.inbox.push_back(
                {Thread::Order::Kind::errand, flight, std::move(errand)});
        }
    }

    void listen(FlightId flight) override
    {
        thread_.inbox.push_back({Thread::Order::Kind::listen, flight, {}});
    }

    void cancel(FlightId flight) override
    {
        flights_.at(flight).open = false;
        thread_.inbox.push_back({Thread::Order::Kind::cancel, flight, {}});
    }

    bool reserve(std::size_t, std::size_t bytes) override
    {
        if (!world_.lives() || !world_.room || !journal_.reserve(bytes)) {
            return false;
        }
        ++reserved_;
        return true;
    }

    void release(std::size_t, std::size_t bytes) override
    {
        world_.check(reserved_ > 0, "more is released than was reserved");
        --reserved_;
        journal_.release(bytes);
    }

    bool record(std::size_t, std::string_view lines) override;
    void note(std::string_view lines);

    void run_loop();
    void run_thread();
    void run_log();
    void commit();
    void fail_something();
    void pass(std::uint64_t ms);
    void on_timer();
    void deliver();
    void settle();

    World& world_;
    std::deque<Client>& clients_;
    const std::vector<Route>& routes_;

    Thread thread_{world_};
    Journal journal_{world_.dir, "log", std::uint64_t{1} << 30};
    Conductor conductor_{*this, 1, max_in_flight};

    std::uint64_t timer_ms_ = never;
    bool settle_ = false;
    int reserved_ = 0;
    int sent_ = 0;
    std::size_t asked_route_ = 0;
    FlightId last_flight_ = 0;
    std::map<FlightId, Flight> flights_;

    bool shipping_ = false;
    std::string lines_;  // out
};

void Client::on_text()
{
    auto& world = worker->world();
    if (!world.lives() ||
        !world.check(!in_ask, "a waiter is called from within ask()")) {
        return;
    }
    world.check(state == State::waiting, "told of text after the end");
    world.check(stream, "told of text without having asked for it");
    const auto text = Conductor::text(seat);
    world.check(!text.empty(), "told of text that is not there");
    world.check(text.starts_with(read), "the text changed");
    if (!slow) {
        read = text;
    }
    if (world.random.one_in(16)) {
        worker->leave(*this);  // its connection is found broken
    }
}

void Client::on_answer(const Reply& reply, CacheStatus status)
{
    auto& world = worker->world();
    if (!world.lives()) {
        return;
    }
    world.say(id + " is answered");
    world.check(!in_ask, "a waiter is called from within ask()");
    world.check(state == State::waiting, "answered a second time");
    state = State::answered;

    const bool unrecorded =
        reply.problem &&
        reply.problem.detail.find("recorded") != std::string::npos;
    const auto row = world.recorded.find(id);
    world.check(unrecorded == (row == world.recorded.end()),
                "answered without a record");
    if (reply.problem || !world.fault.empty()) {
        return;
    }

    const auto& text = reply.answer->text;
    world.check(answers(text, question), "the answer to another question");
    world.check(text.starts_with(read), "what was read is no prefix");
    world.check(row->second.find(text) != std::string::npos,
                "another answer is recorded");
    world.check(reply.hit == (status == CacheStatus::hit), "hit or not?");
    world.check(!reply.hit || reply.ttl_s > 0, "a hit that is stale");

    if (world.random.one_in(8)) {
        worker->ask();  // the next request of the same connection
    }
}

void Worker::ask()
{
    static const char* const questions[] = {"one", "two", "three", "four", ""};

    auto& client = clients_.emplace_back();
    client.worker = this;
    client.id = "c" + std::to_string(clients_.size());
    client.question = questions[world_.random.below(5)];
    client.stream = world_.random.one_in(2);
    client.slow = world_.random.one_in(3);
    asked_route_ = world_.random.below(routes_.size());
    const auto& route = routes_[asked_route_];
    world_.say(client.id + " asks \"" + client.question + "\" of route " +
               std::to_string(asked_route_) +
               (client.stream ? ", stream" : ""));

    FlightId open = 0;
    for (const auto& [id, flight] : flights_) {
        if (flight.open && flight.route == asked_route_ &&
            flight.question == client.question) {
            open = id;
        }
    }

    Record record;
    record.request_id = client.id;
    record.request_text = client.question;
    sent_ = 0;
    client.in_ask = true;
    const auto before = reserved_;
    client.seat = conductor_.ask(client, route,
                                 client.question.empty()
                                     ? std::nullopt
                                     : std::optional(key_of(client.question)),
                                 record, {.stream = client.stream});
    client.in_ask = false;

    const bool refused =
        reserved_ == before || conductor_.in_flight() > max_in_flight;
    client.flight = refused ? 0 : open ? open : last_flight_;
    world_.check(world_.killed || sent_ == (refused || open ? 0 : 1),
                 "an errand too many, or none");
    world_.check(!refused || settle_, "a refusal that nobody will tell");
}

bool Worker::record(std::size_t, std::string_view lines)
{
    if (world_.until_kill == 1 && world_.random.one_in(2)) {
        // Killed within write(2): some lines are there, and half of one.
        const auto cut = world_.random.below(lines.size());
        const auto whole = lines.substr(0, lines.rfind('\n', cut) + 1);
        if (whole.size() <= cut && !whole.empty() && journal_.append(whole)) {
            note(whole);
            (void)world_.lives();
            world_.journal.tear(lines.substr(whole.size(), cut - whole.size()));
            return true;
        }
    }
    if (!world_.lives() || !world_.disk || !journal_.append(lines)) {
        return false;
    }
    note(lines);
    return true;
}

std::string_view id_of(std::string_view line)
{
    constexpr std::string_view name = "\"request_id\":\"";
    auto at = line.find(name);
    if (at == line.npos) {
        return {};
    }
    auto id = line.substr(at + name.size());
    return id.substr(0, id.find('"'));
}

template <class Function>
void for_each_line(std::string_view lines, const Function& function)
{
    while (!lines.empty()) {
        const auto line = lines.substr(0, lines.find('\n'));
        function(line);
        lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    }
}

void Worker::note(std::string_view lines)
{
    for_each_line(lines, [&](auto line) {
        auto id = std::string(id_of(line));
        world_.say("recorded " + id);
        world_.check(world_.recorded.try_emplace(id, line).second,
                     "a request is recorded twice");
    });
}

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
        if (client.state != Client::State::waiting || !client.stream) {
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
    while (world_.postgres_up && !world_.killed && world_.fault.empty() &&
           journal_.backlog() > 0) {
        run_log();
    }
}

class Simulation {
public:
    Simulation(std::uint64_t seed, const std::string& dir, bool verbose)
        : world_(seed, dir, verbose)
    {
        settings_.timeout_ms = 2000;
        settings_.models = {"m"};
        const Route route{.model = &settings_, .cache = 0, .journal = 0};
        routes_.assign(4, route);
        routes_[1].cache_valid_s = 1;
        routes_[2].cancel_abandoned = true;
        routes_[3].cache_lock = false;
    }

    // Returns what does not hold; empty if all is well.
    std::string run()
    {
        start();
        const auto steps = 40 + world_.random.below(160);
        for (std::size_t i = 0; i < steps && well(); ++i) {
            worker_->step();
            check();
            if (world_.random.one_in(256)) {
                worker_->shut_down();
                world_.killed ? die() : restart();
            } else if (world_.killed) {
                die();
            }
        }
        if (well()) {
            worker_->finish();
        }
        check();
        worker_.reset();
        check_end();
        return world_.fault;
    }

    const std::string& steps() const { return world_.steps; }

private:
    bool well() const { return world_.fault.empty(); }

    void start()
    {
        world_.killed = false;
        world_.until_kill = 0;
        // How far an adopted segment was shipped is not known.
        world_.unsure = world_.table;
        worker_ = std::make_unique<Worker>(world_, clients_, routes_);
    }

    void restart()
    {
        worker_.reset();
        start();
    }

    void die()
    {
        for (auto& client : clients_) {
            if (client.state == Client::State::waiting) {
                client.state = Client::State::killed;
            }
        }
        worker_.reset();
        world_.journal.restore(world_.dir);
        start();
    }

    void check()
    {
        if (!world_.killed) {
            worker_->check_invariants();
        }
        const auto violation = take_violation();
        world_.check(violation.empty(), violation.c_str());
    }

    void check_end()
    {
        if (!well()) {
            return;
        }
        world_.check(world_.table.size() == world_.recorded.size(),
                     "a record is lost");
        world_.check(std::filesystem::is_empty(world_.dir),
                     "something is left in the journal");
    }

    World world_;
    ModelSettings settings_;
    std::vector<Route> routes_;
    std::deque<Client> clients_;
    std::unique_ptr<Worker> worker_;
};

std::uint64_t from_environment(const char* name, std::uint64_t otherwise)
{
    const char* value = std::getenv(name);
    return value && *value ? std::strtoull(value, nullptr, 10) : otherwise;
}

class SimulationTest : public testing::Test {
protected:
    SimulationTest()
    {
        abort_on_violation(false);
        std::filesystem::remove_all(dir_);
        std::filesystem::create_directory(dir_);
    }
    ~SimulationTest()
    {
        abort_on_violation(true);
        std::filesystem::remove_all(dir_);
    }

    std::string run(std::uint64_t seed, bool verbose)
    {
        for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
            std::filesystem::remove(entry.path());
        }
        Simulation simulation(seed, dir_, verbose);
        auto fault = simulation.run();
        if (verbose) {
            std::printf("%s", simulation.steps().c_str());
        }
        return fault;
    }

    const std::string dir_ =
        (std::filesystem::exists("/dev/shm") ? "/dev/shm/simulate-"
                                             : "/tmp/simulate-") +
        std::to_string(getpid());
};

TEST_F(SimulationTest, NothingIsLostAndNothingDoubled)
{
    const auto seeds = from_environment("SIMULATE_SEEDS", 2000);
    const auto first = from_environment("SIMULATE_SEED", 1);
    for (auto seed = first; seed < first + seeds; ++seed) {
        const auto fault = run(seed, seeds == 1);
        if (!fault.empty()) {
            ADD_FAILURE() << "seed " << seed << ": " << fault;
            run(seed, true);
            return;
        }
    }
}

}  // namespace
}  // namespace chatbot::simulation
