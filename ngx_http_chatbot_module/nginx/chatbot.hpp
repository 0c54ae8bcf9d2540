#pragma once

extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <ngx_thread_pool.h>

extern ngx_module_t ngx_http_chatbot_module;
}

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "redis/url.hpp"
#include "core/conductor.hpp"
#include "core/exchange.hpp"

// What the files of the nginx layer share: configuration, the context of a
// request, and how they reach the worker's conductor.

namespace chatbot {

// Where the records of a location go.
struct LogTarget {
    std::string conninfo;  // empty: the journal is the whole log
    std::string table;
    std::int64_t keep_s = 0;  // rows older than this are deleted; 0: none

    bool operator==(const LogTarget&) const = default;
};

// nginx's command tables use offsetof, so what they set stands in plain base
// structures.
struct MainConfBase {
    ngx_uint_t max_in_flight;
    ngx_thread_pool_t* thread_pool;
    ngx_path_t* journal;  // null: off
    off_t journal_max_size;
    ngx_flag_t journal_set;  // by directive
    time_t log_retention;    // 0: off
    ngx_int_t request_id;    // index of $request_id
};

struct MainConf : MainConfBase {
    // What the locations need, each once.  Routes hold indices into `caches`
    // and `logs`; deques, because locations point to their elements.
    std::deque<ModelSettings> models;
    std::deque<Route> routes;
    std::vector<RedisSettings> caches;
    std::vector<LogTarget> logs;

    // By the names of "chatbot_upstream".
    std::map<std::string, std::vector<ModelServer>> upstreams;
};

// A "chatbot_param"; the value is JSON text.
struct Param {
    ngx_str_t name;
    ngx_str_t json;
    ngx_str_t model;  // for this one only; empty: for all
};

struct LocConfBase {
    ngx_str_t pass;  // data null: no chatbot location
    ngx_str_t api_key;
    ngx_array_t* models;  // of ngx_str_t
    ngx_str_t system_prompt;
    ngx_array_t* params;   // of Param
    ngx_array_t* headers;  // of ngx_keyval_t
    ngx_str_t proxy;
    ngx_http_complex_value_t* query;
    ngx_http_complex_value_t* cache_key;
    size_t query_max_size;
    size_t answer_max_size;
    ngx_msec_t connect_timeout;
    ngx_msec_t read_timeout;
    ngx_msec_t timeout;
    ngx_int_t retries;
    ngx_flag_t ssl_verify;
    ngx_str_t ssl_trusted_certificate;
    ngx_str_t redis;
    ngx_msec_t redis_timeout;
    time_t cache_valid;
    ngx_flag_t cache_lock;
    ngx_str_t postgres;
    ngx_str_t log_table;
    ngx_int_t log_refused;  // so many a second; 0: off
};

// A location of a server, by the path that its name is.
struct Location {
    std::string name;
    bool exact;
    bool chatbot;
};

struct LocConf : LocConfBase {
    const Route* route = nullptr;
    std::string key_suffix;  // what a key depends on besides the question
    std::vector<Location> locations;  // of a server
};

[[nodiscard]] MainConf* main_conf(ngx_conf_t* cf);
[[nodiscard]] MainConf* main_conf(ngx_cycle_t* cycle);
[[nodiscard]] MainConf* main_conf(ngx_http_request_t* r);
[[nodiscard]] LocConf* loc_conf(ngx_http_request_t* r);

[[nodiscard]] inline std::string_view view(const ngx_str_t& str)
{
    return {reinterpret_cast<const char*>(str.data), str.len};
}

// A copy in the pool; data is null if there is no memory.
[[nodiscard]] ngx_str_t copy(ngx_pool_t* pool, std::string_view text);

// What setters of directives return: an error is one that was logged.
inline char* const conf_ok = nullptr;
inline char* const conf_error = reinterpret_cast<char*>(-1);

// Logs why a directive is wrong.  Only for values that are no secrets.
template <class... Args>
char* fail(ngx_conf_t* cf, const char* format, Args... args)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, format, args...);
    return conf_error;
}

// ngx_http_chatbot_directives.cpp
extern ngx_command_t commands[];

// The names of models in a value of the environment or of a file, where white
// space separates them.
[[nodiscard]] std::vector<std::string> model_names(std::string_view text);

// Whether a model can have that name.
[[nodiscard]] bool valid_model(std::string_view name);

// The journal's directory, relative to nginx's prefix; null if it is none, or
// there is no memory.
[[nodiscard]] ngx_path_t* journal_path(ngx_conf_t* cf, ngx_str_t dir);

// A variable of the environment without the newline at its end; one that is
// empty is as good as none.  It is handed on to the next binary (USR2), which
// nginx does for TZ only.
[[nodiscard]] std::optional<std::string> environment(ngx_conf_t* cf,
                                                     const char* name);

// ngx_http_chatbot_route.cpp: sets lcf.route and lcf.key_suffix.
char* make_route(ngx_conf_t* cf, LocConf& lcf);

// One request in a chatbot location: what became of it.  Lives in its pool.
class Request final : public Waiter {
public:
    explicit Request(ngx_http_request_t* r)
        : r_(r)
    {
    }
    ~Request();

    void on_text() override;
    void on_answer(const Reply& reply, CacheStatus status) override;

    // Looks the question up and asks it, or fails at once; in each case the
    // request is finalized later or in here, not by the caller.
    void start(std::string_view body);

    // Finalizes the request; problem_filter makes the response.
    void fail(Problem problem);

    std::string query;  // the question, once it is found
    Problem problem;
    bool asked = false;
    bool answered = false;  // by an answer of ours, not by a problem
    bool hit = false;
    int ttl_s = 0;
    int upstream_ms = -1;
    CacheStatus cache_status = CacheStatus::none;
    std::string model;
    std::int32_t prompt_tokens = -1;
    std::int32_t completion_tokens = -1;
    ngx_chain_t* problem_body = nullptr;  // to be sent instead of nginx's

private:
    [[nodiscard]] Problem find_query(std::string_view body);
    [[nodiscard]] ngx_int_t find_key(std::optional<Key>& key) const;
    [[nodiscard]] Record record() const;
    [[nodiscard]] ngx_int_t send_answer(const Answer& answer);

    ngx_http_request_t* const r_;
    Conductor::Seat* seat_ = nullptr;
};

// The context of a request; null if it has none.
[[nodiscard]] inline Request* context_of(ngx_http_request_t* r)
{
    return static_cast<Request*>(
        ngx_http_get_module_ctx(r, ngx_http_chatbot_module));
}

// The same, also after an internal redirect.
[[nodiscard]] Request* find_request(ngx_http_request_t* r);

// The context, made if need be; null if there is no memory.
[[nodiscard]] Request* make_request(ngx_http_request_t* r);

// ngx_http_chatbot_handler.cpp: the content handler.
ngx_int_t handler(ngx_http_request_t* r) noexcept;

// body.cpp: why the body of a POST is refused: by its headers before it is
// read, by its size after that.
[[nodiscard]] Problem check_body(ngx_http_request_t* r);

// When the request arrived, in milliseconds since the epoch.
[[nodiscard]] inline std::int64_t arrival_ms(const ngx_http_request_t* r)
{
    return static_cast<std::int64_t>(r->start_sec) * 1000 + r->start_msec;
}

// Adds Cache-Status (RFC 9211) and X-Request-ID.
[[nodiscard]] ngx_int_t add_headers(ngx_http_request_t* r,
                                    const Request& request);
[[nodiscard]] ngx_int_t add_header(ngx_http_request_t* r, const char* name,
                                   std::string_view value);

// A body to be sent, and the headers that describe it; null if there is no
// memory.
[[nodiscard]] ngx_chain_t* make_body(ngx_http_request_t* r,
                                     std::string_view type,
                                     std::string_view text);

// ngx_http_chatbot_problem.cpp: makes application/problem+json of errors.
void install_problem_filter();

// What clients are told of an error unless there is more to tell.
[[nodiscard]] const char* problem_detail(ngx_uint_t status);

// ngx_http_chatbot_variables.cpp
ngx_int_t add_variables(ngx_conf_t* cf);
[[nodiscard]] std::string_view request_id(ngx_http_request_t* r);

// ngx_http_chatbot_worker.cpp: the life of a worker process.
ngx_int_t init_worker(ngx_cycle_t* cycle);
void exit_worker(ngx_cycle_t* cycle);

// To the conductor of this worker process.
Conductor::Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
                     Record record, bool stream = false);
void leave(Conductor::Seat* seat);

// Records a request that was not asked, if there is room.
void record_refused(const Route& route, const Record& record);

// refused.cpp: has requests recorded that were refused before they were a
// question.
[[nodiscard]] ngx_int_t install_refused_log(ngx_conf_t* cf);

}  // namespace chatbot
