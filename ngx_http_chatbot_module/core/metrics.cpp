#include "core/metrics.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <iterator>
#include <span>

#include "core/exposition.hpp"
#include "text/invariant.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_workers = 64;
constexpr std::size_t max_cells = 8192;
constexpr std::size_t spill = 32;  // more than a series has
constexpr std::size_t max_breakers = 128;
constexpr std::size_t max_entries = 1024;
constexpr std::size_t max_processes = 256;
constexpr std::size_t max_labels = 512;  // bytes

// In seconds.
constexpr double duration_bounds[] = {0.01,  0.02,  0.04,  0.08, 0.16,
                                      0.32,  0.64,  1.28,  2.56, 5.12,
                                      10.24, 20.48, 40.96, 81.92};
constexpr double token_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06,
                                   0.08,  0.1,   0.25, 0.5,  0.75, 1.0,
                                   2.5,   5.0,   7.5,  10.0};
constexpr double redis_bounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025,
                                   0.005,  0.01,    0.025,  0.05,  0.1,
                                   0.25,   0.5,     1.0};

struct About {
    const char* name;
    const char* help;
    std::span<const double> bounds;  // of a histogram; else empty
};

constexpr About families[] = {
    {"chatbot_requests_total", "Requests that were answered.", {}},
    {"chatbot_limited_total", "Requests that limit_req refused.", {}},
    {"chatbot_upstream_calls_total",
     "Questions asked of a model, retries apart.",
     {}},
    {"chatbot_upstream_retries_total", "HTTP requests beyond the first.", {}},
    {"chatbot_tokens_total", "Tokens, as the model told them.", {}},
    {"chatbot_records_total", "Records that were made durable.", {}},
    {"chatbot_log_rows_total",
     "Records that PostgreSQL has taken; what was sent again counts again.",
     {}},
    {"chatbot_log_rejected_total", "Records that were set aside.", {}},
    {"chatbot_upstream_models_passed_over_total",
     "How often a model turned out not to be served; it is passed over for an "
     "hour.",
     {}},
    {"chatbot_upstream_members_left_out_total",
     "How often a member of the request turned out not to be taken; it is left "
     "out for an hour.",
     {}},
    {"gen_ai_server_request_duration_seconds",
     "From the request to its answer.", duration_bounds},
    {"gen_ai_client_operation_duration_seconds",
     "How long the model took, retries included.", duration_bounds},
    {"gen_ai_server_time_to_first_token_seconds",
     "Until the model's first text.", token_bounds},
    {"chatbot_redis_duration_seconds", "How long Redis took for a lookup.",
     redis_bounds},
    {"chatbot_upstream_breakers",
     "Workers whose breaker of a server is in that state.",
     {}},
};
static_assert(std::size(families) ==
              static_cast<std::size_t>(Metrics::Family::count_));

const About& about(Metrics::Family family)
{
    return families[static_cast<std::size_t>(family)];
}

// A histogram has a cell for each bound, one for what is above, and the sum in
// microseconds.
std::uint32_t cells_of(Metrics::Family family)
{
    auto bounds = about(family).bounds.size();
    return bounds == 0 ? 1 : static_cast<std::uint32_t>(bounds) + 2;
}

std::string text_of(const Metrics::Labels& labels, bool others)
{
    std::string text;
    for (auto [name, value] : labels) {
        append_label(text, name, others ? "other" : value);
    }
    return text;
}

constexpr std::int64_t closed = 1;  // 0: this process has no such breaker

// How many breakers are in each state.
struct Breakers {
    int closed = 0;
    int open = 0;
    int half_open = 0;

    void count(std::int64_t until_s, std::int64_t now_s)
    {
        closed += until_s == chatbot::closed;
        open += until_s > now_s;
        half_open += until_s > chatbot::closed && until_s <= now_s;
    }

    [[nodiscard]] int all() const { return closed + open + half_open; }
};

}  // namespace

// What a process tells of itself.
struct Metrics::Process {
    std::atomic<int> pid;  // 0: free
    std::atomic<std::int64_t> gauges[static_cast<int>(Gauge::count_)];
    std::atomic<std::int64_t> breakers[max_breakers + spill];

    [[nodiscard]] std::int64_t of(Gauge gauge) const
    {
        return gauges[static_cast<int>(gauge)];
    }
};

// All zero at first.
struct Metrics::Memory {
    struct Entry {
        std::atomic<bool> ready;  // the rest is written
        Family family;
        std::uint32_t cell;  // of a breaker: its index
        char labels[max_labels];
    };

    std::atomic<std::uint32_t> entries_made;
    std::atomic<std::uint32_t> cells_made;
    std::atomic<std::uint32_t> breakers_made;
    Entry entries[max_entries];
    Process processes[max_processes];
    std::atomic<std::uint64_t> cells[max_workers][max_cells + spill];
};

std::size_t Metrics::size()
{
    return sizeof(Memory);
}

Metrics::Metrics(void* memory, std::size_t worker, int pid)
    : memory_(*static_cast<Memory*>(memory)),
      worker_(worker % max_workers)
{
    // A free place, or else that of another process: then gauges are wrong.
    process_ = static_cast<std::size_t>(pid) % max_processes;
    for (std::size_t i = 0; i < max_processes; ++i) {
        auto at = (process_ + i) % max_processes;
        int free = 0;
        if (memory_.processes[at].pid.compare_exchange_strong(free, pid)) {
            process_ = at;
            break;
        }
    }
    own().pid = pid;
    for (auto& gauge : own().gauges) {
        gauge = 0;
    }
    for (auto& breaker : own().breakers) {
        breaker = 0;
    }
}

Metrics::Process& Metrics::own() const
{
    return memory_.processes[process_];
}

// Calls `use` with each entry of that family.
template <class Use>
void Metrics::for_each(Family family, Use use) const
{
    auto made = std::min<std::size_t>(memory_.entries_made, max_entries);
    for (std::size_t i = 0; i < made; ++i) {
        const auto& entry = memory_.entries[i];
        if (entry.ready && entry.family == family) {
            use(entry);
        }
    }
}

const std::uint32_t* Metrics::find(Family family, const std::string& text) const
{
    const std::uint32_t* cell = nullptr;
    for_each(family, [&](const auto& entry) {
        cell = !cell && text == entry.labels ? &entry.cell : cell;
    });
    return cell;
}

Metrics::Series Metrics::series(Family family, const Labels& labels)
{
    auto text = text_of(labels, false);
    auto known = known_.find({family, text});
    if (known != known_.end()) {
        return {family, known->second};
    }

    const auto last = known_.lower_bound(
        {static_cast<Family>(static_cast<std::uint32_t>(family) + 1), ""});
    const auto of_family = static_cast<std::size_t>(
        std::distance(known_.lower_bound({family, ""}), last));
    if (of_family >= max_series || text.size() >= max_labels) {
        text = text_of(labels, true);
    }

    if (auto cell = find(family, text)) {
        return {family, known_[{family, text}] = *cell};
    }

    // If there is no room, it is counted in cells that are never shown.
    const bool is_breaker = family == Family::breakers;
    auto& used = is_breaker ? memory_.breakers_made : memory_.cells_made;
    const auto room = is_breaker ? max_breakers : max_cells;
    auto n = cells_of(family);
    auto cell = used.fetch_add(n);
    auto index = memory_.entries_made.fetch_add(1);
    if (cell + n > room || index >= max_entries) {
        return {family, static_cast<std::uint32_t>(room)};
    }

    auto& entry = memory_.entries[index];
    entry.family = family;
    entry.cell = cell;
    std::memcpy(entry.labels, text.c_str(), text.size() + 1);
    entry.ready = true;
    return {family, known_[{family, text}] = cell};
}

void Metrics::add(Series counter, std::uint64_t n)
{
    if (!invariant(counter.cell < max_cells, "a metric without a cell")) {
        return;
    }
    memory_.cells[worker_][counter.cell].fetch_add(n,
                                                   std::memory_order_relaxed);
}

void Metrics::observe(Series histogram, std::chrono::microseconds duration)
{
    auto bounds = about(histogram.family).bounds;
    auto us = std::max<std::int64_t>(0, duration.count());
    auto bound = std::lower_bound(bounds.begin(), bounds.end(),
                                  static_cast<double>(us) / 1e6);
    auto bucket = static_cast<std::uint32_t>(bound - bounds.begin());

    add({histogram.family, histogram.cell + bucket});
    add({histogram.family, histogram.cell + cells_of(histogram.family) - 1},
        static_cast<std::uint64_t>(us));
}

void Metrics::set(Gauge gauge, std::int64_t value)
{
    own().gauges[static_cast<std::size_t>(gauge)].store(
        value, std::memory_order_relaxed);
}

void Metrics::set_breaker(Series breaker, std::int64_t until_s)
{
    own().breakers[breaker.cell].store(std::max(until_s, closed),
                                       std::memory_order_relaxed);
}

std::uint64_t Metrics::sum(std::uint32_t cell) const
{
    std::uint64_t n = 0;
    for (const auto& worker : memory_.cells) {
        n += worker[cell].load(std::memory_order_relaxed);
    }
    return n;
}

void Metrics::write_family(std::string& out, Family family) const
{
    std::map<std::string, std::vector<std::uint64_t>> all;
    const auto n = cells_of(family);
    for_each(family, [&](const auto& entry) {
        auto& counts = all[entry.labels];
        counts.resize(n);
        for (std::uint32_t cell = 0; cell < n; ++cell) {
            counts[cell] += sum(entry.cell + cell);
        }
    });

    const auto& what = about(family);
    append_head(out, what.name, what.help,
                what.bounds.empty() ? "counter" : "histogram");
    for (const auto& [labels, counts] : all) {
        if (what.bounds.empty()) {
            append_value(out, what.name, labels,
                         static_cast<std::int64_t>(counts[0]));
        } else {
            append_histogram(out, what.name, labels, what.bounds, counts);
        }
    }
}

// What the others have left is free for new ones.
std::vector<const Metrics::Process*> Metrics::alive_ones(
    bool (*alive)(int pid)) const
{
    std::vector<const Process*> found;
    for (auto& process : memory_.processes) {
        int pid = process.pid;
        if (pid != 0 && alive(pid)) {
            found.push_back(&process);
        } else {
            process.pid.compare_exchange_strong(pid, 0);
        }
    }
    return found;
}

std::int64_t Metrics::sum_of(const std::vector<const Process*>& processes,
                             Gauge gauge)
{
    std::int64_t sum = 0;
    for (const auto* process : processes) {
        sum += process->of(gauge);
    }
    return sum;
}

std::int64_t Metrics::total(Gauge gauge, bool (*alive)(int pid)) const
{
    return sum_of(alive_ones(alive), gauge);
}

void Metrics::write_gauges(std::string& out, std::int64_t now_s,
                           const std::vector<const Process*>& alive) const
{
    std::int64_t oldest_s = now_s;
    for (const auto* process : alive) {
        auto since = process->of(Gauge::oldest_since_s);
        oldest_s = since ? std::min(oldest_s, since) : oldest_s;
    }
    const auto of = [&](Gauge gauge) { return sum_of(alive, gauge); };

    append_gauge(out, "chatbot_in_flight", "Questions without an answer yet.",
                 of(Gauge::in_flight));
    append_gauge(out, "chatbot_streams", "Streams to clients that are open.",
                 of(Gauge::streams));
    append_gauge(out, "chatbot_redis_up",
                 "1 unless a worker knows that Redis is down.",
                 of(Gauge::redis_down) == 0);
    append_gauge(out, "chatbot_postgres_up",
                 "1 unless a worker's records wait for PostgreSQL.",
                 of(Gauge::postgres_down) == 0);
    append_gauge(out, "chatbot_journal_writable",
                 "1 unless a worker refuses requests, since it cannot record "
                 "them.",
                 of(Gauge::journal_failing) == 0);
    append_gauge(out, "chatbot_log_oldest_seconds",
                 "For how long the oldest record has waited for PostgreSQL.",
                 now_s - oldest_s);
}

// Servers that no worker has any more are left out.
void Metrics::write_breakers(std::string& out, std::int64_t now_s,
                             const std::vector<const Process*>& alive) const
{
    std::map<std::string, Breakers> all;
    for_each(Family::breakers, [&](const auto& entry) {
        for (const auto* process : alive) {
            all[entry.labels].count(process->breakers[entry.cell], now_s);
        }
    });

    const auto& what = about(Family::breakers);
    append_head(out, what.name, what.help, "gauge");
    for (const auto& [labels, breakers] : all) {
        if (breakers.all() == 0) {
            continue;
        }
        const std::pair<const char*, int> states[] = {
            {"closed", breakers.closed},
            {"open", breakers.open},
            {"half_open", breakers.half_open}};
        for (auto [state, n] : states) {
            auto with_state = labels;
            append_label(with_state, "state", state);
            append_value(out, what.name, with_state, n);
        }
    }
}

void Metrics::write(std::string& out, std::int64_t now_s,
                    bool (*alive)(int pid)) const
{
    for (std::uint32_t i = 0; i < std::size(families); ++i) {
        if (auto family = static_cast<Family>(i); family != Family::breakers) {
            write_family(out, family);
        }
    }
    const auto processes = alive_ones(alive);
    write_gauges(out, now_s, processes);
    write_breakers(out, now_s, processes);
}

}  // namespace chatbot
