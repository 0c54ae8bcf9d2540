#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "nginx/metrics.hpp"
#include "openai/policy.hpp"

// What is counted of calls of the model, records and servers.  Labels are names
// of the configuration; any other name, such as one that a client sent, is
// "other".

namespace chatbot {

namespace {

using Family = Metrics::Family;
using std::chrono::milliseconds;

constexpr const char* other = "other";

// A server and the "chatbot_upstream" that it belongs to; the same twice for
// the URL of a "chatbot_pass".
struct Place {
    std::string upstream = other;
    std::string server = other;
};

// The names of the configuration, and what is known of the breakers.
struct Known {
    std::map<std::string, Place> servers;  // by what calls tell
    std::set<std::string> models;

    // The Metrics::set_breaker() of each server, by its groups.
    std::map<std::string, std::map<const void*, std::int64_t>> breakers;
};

Known known;

const Place& place_of(const std::string& server)
{
    static const Place unknown;

    const auto found = known.servers.find(server);
    return found == known.servers.end() ? unknown : found->second;
}

std::string_view known_model(const std::string& model)
{
    return known.models.contains(model) ? std::string_view(model) : other;
}

Metrics::Series of_server(Metrics& all, Family family, const Place& place)
{
    return all.series(family,
                      {{"upstream", place.upstream}, {"server", place.server}});
}

bool is_error(const Record& record)
{
    return std::string_view(record.status) == "error";
}

const char* outcome_of(const Record& record)
{
    if (!is_error(record)) {
        return "ok";
    }
    switch (record.http_status) {
        case NGX_HTTP_SERVICE_UNAVAILABLE:
            return "unavailable";
        case NGX_HTTP_GATEWAY_TIME_OUT:
            return "timeout";
        case NGX_HTTP_CLIENT_CLOSED_REQUEST:
            return "client_left";
        default:
            return "error";
    }
}

void count_tokens(Metrics& all, const Record& record)
{
    const std::pair<const char*, std::int32_t> kinds[] = {
        {"input", record.prompt_tokens},
        {"output", record.completion_tokens},
        {"cached", record.cached_tokens},
        {"reasoning", record.reasoning_tokens}};
    for (auto [kind, n] : kinds) {
        if (n > 0) {
            all.add(all.series(Family::tokens,
                               {{"type", kind},
                                {"model", known_model(record.call.model)}}),
                    static_cast<std::uint64_t>(n));
        }
    }
}

// The question that its flight asked of the model, not one that joined it.
void count_call(Metrics& all, const Record& record)
{
    const auto& call = record.call;
    const auto& place = place_of(call.upstream);
    const auto model = known_model(call.model);

    all.add(all.series(Family::calls, {{"upstream", place.upstream},
                                       {"server", place.server},
                                       {"model", model},
                                       {"outcome", outcome_of(record)}}));
    if (call.attempts > 1) {
        all.add(of_server(all, Family::retries, place),
                static_cast<std::uint64_t>(call.attempts - 1));
    }

    Metrics::Labels labels = {{"gen_ai_operation_name", "chat"},
                              {"gen_ai_provider_name", "openai"},
                              {"gen_ai_request_model", model},
                              {"upstream", place.upstream},
                              {"server", place.server}};
    const auto error = std::to_string(record.http_status);
    if (is_error(record)) {
        labels.emplace_back("error_type", error);
    } else if (call.first_byte_ms >= 0) {
        all.observe(all.series(Family::first_token, labels),
                    milliseconds(call.first_byte_ms));
    }
    all.observe(all.series(Family::call_duration, labels),
                milliseconds(call.duration_ms));
    count_tokens(all, record);
}

Metrics::Series of_model(Metrics& all, Family family, const Place& place,
                         const std::string& model)
{
    return all.series(family, {{"upstream", place.upstream},
                               {"server", place.server},
                               {"model", known_model(model)}});
}

void count_member(Metrics& all, Family family, const Change& change)
{
    all.add(of_model(all, family, place_of(change.server), change.model));
}

// Where several groups have the server, the breaker that is open longest
// counts.
void set_breaker(Metrics& all, const Change& change, std::int64_t until_s)
{
    auto& groups = known.breakers[change.server];
    groups[change.group] = until_s;
    for (auto [group, until] : groups) {
        until_s = std::max(until_s, until);
    }
    all.set_breaker(of_server(all, Family::breakers, place_of(change.server)),
                    until_s);
}

// A counter that begins with 1 is none that grows: to Prometheus, its first
// event has not happened.
void begin_at_zero(Metrics& all)
{
    for (auto family : {Family::limited, Family::rows, Family::rejected}) {
        (void)all.series(family);
    }
    for (auto status : {"success", "cached", "error"}) {
        (void)all.series(Family::records, {{"status", status}});
    }
}

void begin_at_zero(Metrics& all, const ModelServer& server, const Place& place)
{
    (void)of_server(all, Family::retries, place);
    for (const auto& model : server.models) {
        for (auto family :
             {Family::models_passed_over, Family::members_left_out}) {
            (void)of_model(all, family, place, model);
        }
    }
}

}  // namespace

void init_counts(const MainConf& conf)
{
    begin_at_zero(*metrics());

    std::map<std::string, std::string> upstreams;
    for (const auto& [upstream, servers] : conf.upstreams) {
        for (const auto& server : servers) {
            upstreams[server.name] = upstream;
        }
    }

    known.models = conf.model_names;
    for (const auto& settings : conf.models) {
        for (const auto& server : servers_of(settings)) {
            const auto name = told_name(server);
            const auto found = upstreams.find(server.name);
            const auto& place = known.servers[name] = {
                found == upstreams.end() ? name : found->second, name};
            begin_at_zero(*metrics(), server, place);
            if (settings.servers.size() > 1) {
                metrics()->set_breaker(
                    of_server(*metrics(), Family::breakers, place), 0);
            }
        }
    }
}

void count_question(const Record& record, bool durable)
{
    auto all = metrics();
    if (!all) {
        return;
    }

    if (durable) {
        static std::map<std::string, Metrics::Series, std::less<>> series;
        auto it = series.find(record.status);
        if (it == series.end()) {
            it = series
                     .emplace(record.status,
                              all->series(Family::records,
                                          {{"status", record.status}}))
                     .first;
        }
        all->add(it->second);
    }
    const std::string_view cache = record.cache_status;
    if ((cache == to_string(CacheStatus::miss) ||
         cache == to_string(CacheStatus::bypass)) &&
        record.call.attempts > 0) {
        count_call(*all, record);
    }
}

void count_change(const Change& change)
{
    auto all = metrics();
    if (!all) {
        return;
    }

    switch (change.kind) {
        case Change::Kind::none:
            return;
        case Change::Kind::model_passed_over:
            count_member(*all, Family::models_passed_over, change);
            return;
        case Change::Kind::member_left_out:
            count_member(*all, Family::members_left_out, change);
            return;
        case Change::Kind::breaker_opened:
            set_breaker(*all, change, ngx_time() + change.rest_s);
            return;
        case Change::Kind::breaker_closed:
            set_breaker(*all, change, 0);
            return;
    }
}

void count_rows(std::string_view shipped, std::string_view rejected)
{
    auto all = metrics();
    if (!all || shipped.empty()) {
        return;
    }

    const auto lines = [](std::string_view text) {
        return static_cast<std::uint64_t>(
            std::count(text.begin(), text.end(), '\n'));
    };
    const auto out = lines(rejected);
    all->add(all->series(Family::rows), lines(shipped) - out);
    if (out != 0) {
        all->add(all->series(Family::rejected), out);
    }
}

std::function<void(std::chrono::microseconds)> round_trips()
{
    auto all = metrics();
    if (!all) {
        return {};
    }
    return [all, series = all->series(Family::redis_duration)](auto duration) {
        all->observe(series, duration);
    };
}

}  // namespace chatbot
