#include "nginx/metrics.hpp"

#include <cerrno>
#include <csignal>

#include <algorithm>
#include <array>
#include <exception>
#include <optional>
#include <string>

#include "core/exposition.hpp"
#include "nginx/content.hpp"
#include "nginx/output.hpp"
#include "nginx/request.hpp"
#include "nginx/segments.hpp"

// "chatbot_metrics" and "chatbot_health": what an operator, Prometheus and
// Docker ask.

namespace chatbot {

namespace {

using Family = Metrics::Family;

constexpr std::size_t zone_overhead = 256 * 1024;  // of nginx's slab allocator

std::optional<Metrics> this_workers;
int streams;

std::size_t zone_size()
{
    return Metrics::size() + zone_overhead;
}

// `former` is the zone before a reload: its numbers go on.
ngx_int_t init_zone(ngx_shm_zone_t* zone, void* former)
{
    auto pool = reinterpret_cast<ngx_slab_pool_t*>(zone->shm.addr);
    if (former) {
        zone->data = former;
        return NGX_OK;
    }
    if (zone->shm.exists) {
        zone->data = pool->data;
        return NGX_OK;
    }

    zone->data = pool->data = ngx_slab_calloc(pool, Metrics::size());
    return zone->data ? NGX_OK : NGX_ERROR;
}

bool is_alive(int pid)
{
    return kill(pid, 0) == 0 || errno == EPERM;
}

// What waits are the records on the disk, of all processes, the dead ones
// included, but for those that are rows already.
void append_journal(std::string& out, const MainConf& conf)
{
    if (!conf.journal) {
        return;
    }

    static JournalUsage files(std::string(view(conf.journal->name)));
    const auto& usage = files.now();
    append_gauge(out, "chatbot_journal_bytes",
                 "What the journal takes on the disk.",
                 static_cast<std::int64_t>(usage.disk));
    append_gauge(out, "chatbot_journal_max_bytes",
                 "What it may take: max_size of chatbot_log_journal.",
                 conf.journal_max_size);

    const auto shipped =
        metrics()->total(Metrics::Gauge::shipped_bytes, is_alive);
    append_gauge(out, "chatbot_log_backlog_bytes",
                 "Records that PostgreSQL has not taken yet.",
                 std::max<std::int64_t>(
                     static_cast<std::int64_t>(usage.bytes) - shipped, 0));
}

ngx_int_t send(ngx_http_request_t* r, ngx_uint_t status, std::string_view type,
               std::string_view text)
{
    if (auto rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
        return rc;
    }

    auto body = make_body(r, type, text);
    if (!body || add_header(r, "Cache-Control", "no-store") != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return send_response(r, status, body);
}

bool is_read_only(const ngx_http_request_t* r)
{
    return (r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) != 0;
}

ngx_int_t metrics_handler(ngx_http_request_t* r) noexcept
try {
    if (!is_read_only(r)) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    std::string text;
    if (auto all = metrics()) {
        all->write(text, ngx_time(), is_alive);
        append_journal(text, *main_conf(r));
    }
    return send(r, NGX_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                text);
} catch (const std::exception&) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

ngx_int_t health_handler(ngx_http_request_t* r) noexcept
try {
    if (!is_read_only(r)) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    auto wrong = ill_health();
    return wrong.empty() ? send(r, NGX_HTTP_OK, "text/plain", "ok\n")
                         : send(r, NGX_HTTP_SERVICE_UNAVAILABLE, "text/plain",
                                wrong + "\n");
} catch (const std::exception&) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

constexpr auto caches = static_cast<std::size_t>(CacheStatus::bypass) + 1;

const char* name_of(CacheStatus status)
{
    return status == CacheStatus::none ? "NONE" : to_string(status);
}

// Series of requests by status and cache status, made when they are first
// needed: looked up by number, since this is on the way of each hit.
Metrics::Series requests_series(Metrics& all, ngx_uint_t status,
                                CacheStatus cache)
{
    constexpr ngx_uint_t statuses = 600;
    static std::array<std::optional<Metrics::Series>, statuses * caches> known;

    status = status < statuses ? status : 0;
    auto& series = known[status * caches + static_cast<std::size_t>(cache)];
    if (!series) {
        series = all.series(
            Family::requests,
            {{"status", std::to_string(status)}, {"cache", name_of(cache)}});
    }
    return *series;
}

Metrics::Series make_durations(Metrics& all, CacheStatus cache,
                               const std::string& error)
{
    Metrics::Labels labels = {{"gen_ai_operation_name", "chat"},
                              {"gen_ai_provider_name", "openai"},
                              {"cache", name_of(cache)}};
    if (!error.empty()) {
        labels.emplace_back("error_type", error);
    }
    return all.series(Family::request_duration, labels);
}

Metrics::Series durations_series(Metrics& all, ngx_uint_t status,
                                 CacheStatus cache)
{
    static std::array<std::optional<Metrics::Series>, caches> known;

    if (status >= NGX_HTTP_BAD_REQUEST) {
        return make_durations(all, cache, std::to_string(status));
    }

    auto& series = known[static_cast<std::size_t>(cache)];
    if (!series) {
        series = make_durations(all, cache, "");
    }
    return *series;
}

// What nginx's limit_req leaves in a request that it refused.
constexpr unsigned limit_req_rejected = 3;

ngx_int_t log_handler(ngx_http_request_t* r) noexcept
try {
    auto all = metrics();
    if (!all) {
        return NGX_OK;
    }
    if (r->main->limit_req_status == limit_req_rejected) {
        all->add(all->series(Family::limited));
    }

    auto request = find_request(r);
    if (!request && !visited_chatbot(r)) {
        return NGX_OK;
    }

    auto status = r->err_status ? r->err_status : r->headers_out.status;
    auto cache = request ? request->cache_status : CacheStatus::none;
    all->add(requests_series(*all, status, cache));
    if (request && request->asked) {
        auto tp = ngx_timeofday();
        auto now_ms = static_cast<std::int64_t>(tp->sec) * 1000 + tp->msec;
        all->observe(durations_series(*all, status, cache),
                     std::chrono::milliseconds(now_ms - arrival_ms(r)));
    }
    return NGX_OK;
} catch (const std::exception&) {  // no memory
    return NGX_OK;
}

}  // namespace

Metrics* metrics()
{
    return this_workers ? &*this_workers : nullptr;
}

void count_stream(int n)
{
    streams += n;
    if (auto all = metrics()) {
        all->set(Metrics::Gauge::streams, streams);
    }
}

ngx_int_t install_metrics(ngx_conf_t* cf)
{
    return main_conf(cf)->metrics
               ? add_phase_handler(cf, NGX_HTTP_LOG_PHASE, log_handler)
               : NGX_OK;
}

void init_metrics(const MainConf& conf)
{
    if (conf.metrics && conf.metrics->data) {
        this_workers.emplace(conf.metrics->data,
                             static_cast<std::size_t>(ngx_worker),
                             static_cast<int>(ngx_pid));
        init_counts(conf);
    }
}

char* set_metrics(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    auto mcf = main_conf(cf);
    if (!mcf->metrics) {
        ngx_str_t name = ngx_string("chatbot_metrics");
        mcf->metrics = ngx_shared_memory_add(cf, &name, zone_size(),
                                             &ngx_http_chatbot_module);
        if (!mcf->metrics) {
            return conf_error;
        }
        mcf->metrics->init = init_zone;
    }
    set_content(cf, *static_cast<LocConf*>(static_cast<LocConfBase*>(conf)),
                metrics_handler);
    return conf_ok;
}

char* set_health(ngx_conf_t* cf, ngx_command_t*, void* conf)
{
    set_content(cf, *static_cast<LocConf*>(static_cast<LocConfBase*>(conf)),
                health_handler);
    return conf_ok;
}

}  // namespace chatbot
