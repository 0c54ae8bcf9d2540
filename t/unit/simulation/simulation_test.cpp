// One seed decides everything: what is asked, in which order things end, who
// leaves, what fails, when the process is killed.  Conductor, Errands,
// CacheHealth and the journal (on a real file system) are the product's own;
// after each step the invariants are checked.
//
//     make simulate SEEDS=1000000
//     make simulate SEED=42        prints the steps of one

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>

#include "simulation/worker.hpp"
#include "text/invariant.hpp"

namespace chatbot::simulation {
namespace {

class Simulation {
public:
    Simulation(std::uint64_t seed, const std::string& dir, bool verbose)
        : world_(seed, dir, verbose)
    {
        settings_.timeout_ms = 2000;
        settings_.models = {"m"};
        const Route route{.model = &settings_, .cache = 0, .journal = 0};
        routes_.assign(5, route);
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
            ++taken_;
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
    std::size_t taken() const { return taken_; }

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
            if (client.state == Client::State::waiting ||
                (client.state == Client::State::left &&
                 !world_.recorded.contains(client.id))) {
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
    std::size_t taken_ = 0;  // steps
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

// A crash tells which seed it was, then goes on as it would have.
char running[64];
struct sigaction former;

void tell_seed(int signal)
{
    (void)!write(STDERR_FILENO, running, std::strlen(running));
    sigaction(signal, &former, nullptr);
}

class SimulationTest : public testing::Test {
protected:
    SimulationTest()
    {
        abort_on_violation(false);
        struct sigaction teller {};
        teller.sa_handler = tell_seed;
        sigaction(SIGSEGV, &teller, &former);
        std::filesystem::remove_all(dir_);
        std::filesystem::create_directory(dir_);
    }
    ~SimulationTest()
    {
        sigaction(SIGSEGV, &former, nullptr);
        abort_on_violation(true);
        std::filesystem::remove_all(dir_);
    }

    std::string run(std::uint64_t seed, bool verbose)
    {
        for (const auto& entry : std::filesystem::directory_iterator(dir_)) {
            std::filesystem::remove(entry.path());
        }
        std::snprintf(running, sizeof(running), "seed %llu crashes\n",
                      static_cast<unsigned long long>(seed));
        Simulation simulation(seed, dir_, verbose);
        auto fault = simulation.run();
        steps_ += simulation.taken();
        if (verbose) {
            std::printf("%s", simulation.steps().c_str());
        }
        return fault;
    }

    std::size_t steps_ = 0;
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
    std::printf("%llu seeds, %zu steps\n",
                static_cast<unsigned long long>(seeds), steps_);
}

}  // namespace
}  // namespace chatbot::simulation
