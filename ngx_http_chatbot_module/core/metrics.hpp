#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chatbot {

// Numbers for Prometheus, in memory that the worker processes share and that
// outlives them: they go on after a reload, and those of a killed worker stay.
//
// There is no lock: each worker adds to cells of its own, which are summed up
// when they are read.  A series that two workers make at the same time is there
// twice, and read as one.
//
// A series keeps its cells for as long as the memory is there.  So after a
// reload, equal series go on, new ones are added, and those whose labels are no
// longer configured stay as they are.
//
// Threads:  one thread of each process; any number of processes.  add() and
//           observe() on any thread.
// Memory:   bounded.  Once a family has max_series, further label values are
//           counted as "other".
class Metrics {
public:
    // What grows only.  The names of histograms and their bounds are those of
    // OpenTelemetry's conventions for generative AI.
    enum class Family : std::uint32_t {
        requests,
        limited,
        calls,
        retries,
        tokens,
        records,
        rows,
        rejected,
        models_passed_over,
        members_left_out,
        request_duration,
        call_duration,
        first_token,
        redis_duration,
        breakers,  // not counted, but set by each process: see set_breaker()
        count_
    };

    // What goes up and down, told by each process for itself.
    enum class Gauge : std::uint32_t {
        in_flight,
        streams,
        shipped_bytes,   // of files of the journal that are still there
        oldest_since_s,  // seconds since the epoch; 0: nothing waits
        redis_down,
        postgres_down,
        journal_failing,
        count_
    };

    using Labels = std::vector<std::pair<std::string_view, std::string_view>>;

    // The cells of one series.
    struct Series {
        Family family;
        std::uint32_t cell;
    };

    // The bytes that the memory must have.  It is zero when it is new.
    [[nodiscard]] static std::size_t size();

    // `worker` tells workers that run together apart, `pid` is the process'.
    Metrics(void* memory, std::size_t worker, int pid);

    [[nodiscard]] Series series(Family family, const Labels& labels = {});

    void add(Series counter, std::uint64_t n = 1);
    void observe(Series histogram, std::chrono::microseconds duration);
    void set(Gauge gauge, std::int64_t value);

    // This process' breaker of a server: open until then, when it is half open,
    // in seconds since the epoch; 0: closed.
    void set_breaker(Series breaker, std::int64_t until_s);

    // The sum of what living processes tell.
    [[nodiscard]] std::int64_t total(Gauge gauge, bool (*alive)(int pid)) const;

    // Appends the families and the other gauges as text.  `alive` tells whether
    // a process is; what others told of themselves does not count.
    void write(std::string& out, std::int64_t now_s,
               bool (*alive)(int pid)) const;

    static constexpr std::size_t max_series = 100;  // of a family

private:
    struct Memory;
    struct Process;

    template <class Use>
    void for_each(Family family, Use use) const;
    [[nodiscard]] const std::uint32_t* find(Family family,
                                            const std::string& text) const;
    [[nodiscard]] std::uint64_t sum(std::uint32_t cell) const;
    [[nodiscard]] Process& own() const;
    [[nodiscard]] std::vector<const Process*> alive_ones(
        bool (*alive)(int pid)) const;
    [[nodiscard]] static std::int64_t sum_of(
        const std::vector<const Process*>& processes, Gauge gauge);
    void write_family(std::string& out, Family family) const;
    void write_gauges(std::string& out, std::int64_t now_s,
                      const std::vector<const Process*>& alive) const;
    void write_breakers(std::string& out, std::int64_t now_s,
                        const std::vector<const Process*>& alive) const;

    Memory& memory_;
    const std::size_t worker_;
    std::size_t process_ = 0;
    std::map<std::pair<Family, std::string>, std::uint32_t> known_;
};

}  // namespace chatbot
