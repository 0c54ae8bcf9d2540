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
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "redis/url.hpp"
#include "core/conductor.hpp"
#include "core/exchange.hpp"

// What the files of the nginx layer share: the configuration, and what nginx
// calls.

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
    ngx_flag_t journal_set;   // by directive
    time_t log_retention;     // 0: off
    ngx_int_t request_id;     // index of $request_id
    ngx_shm_zone_t* metrics;  // null: no location has "chatbot_metrics"
};

struct MainConf : MainConfBase {
    // What the locations need, each once.  Routes hold indices into `caches`
    // and `logs`; deques, because locations point to their elements.
    std::deque<ModelSettings> models;
    std::deque<Route> routes;
    std::vector<RedisSettings> caches;
    std::vector<LogTarget> logs;

    // All that may be asked for.
    std::set<std::string> model_names;

    // By the names of "chatbot_upstream".
    std::map<std::string, std::vector<ModelServer>> upstreams;
};

// A "chatbot_param"; the value is JSON text.
struct Param {
    ngx_str_t name;
    ngx_str_t json;
    ngx_str_t model;  // for this one only; empty: for all
};

// When the API is asked for a stream.
enum UpstreamStream : ngx_uint_t { stream_always, stream_wanted };

// What clients speak.
enum Protocol : ngx_uint_t { protocol_chat, protocol_openai };

// What becomes of a call whose last client left.
enum Abandoned : ngx_uint_t { abandoned_finish, abandoned_cancel };

struct LocConfBase {
    ngx_str_t pass;  // data null: no chatbot location
    ngx_uint_t protocol;
    ngx_str_t clients_file;  // data null: anybody is a client
    ngx_str_t api_key;
    ngx_array_t* models;  // of ngx_str_t
    ngx_str_t system_prompt;
    ngx_array_t* params;   // of Param
    ngx_array_t* headers;  // of ngx_keyval_t
    ngx_str_t proxy;
    ngx_http_complex_value_t* query;
    ngx_http_complex_value_t* cache_key;
    ngx_http_complex_value_t* safety_identifier;
    size_t query_max_size;
    size_t answer_max_size;
    ngx_int_t history;
    size_t history_max_size;
    ngx_msec_t heartbeat;
    ngx_uint_t upstream_stream;
    ngx_uint_t abandoned;
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
    ngx_flag_t cache_control;
    ngx_str_t postgres;
    ngx_str_t log_table;
    ngx_int_t log_refused;  // so many a second; 0: off
};

struct LocConf;

// A location of a server, by the path that its name is.
struct Location {
    std::string name;
    bool exact;
    const LocConf* chatbot;  // null: it is none
};

// Which pages of other origins may use a location.
struct Cors {
    bool any = false;  // all of them
    std::vector<std::string> origins;
};

// Where a directive is.
struct Directive {
    ngx_str_t name;
    ngx_str_t file;
    ngx_uint_t line;  // 0: nowhere
};

struct LocConf : LocConfBase {
    // What serves the location if it is one of ours (content.hpp).
    ngx_http_handler_pt content = nullptr;
    Directive content_set_by{};

    const Route* route = nullptr;
    std::vector<std::pair<std::string, Key>> clients;  // SHA-256 of their keys
    std::vector<std::pair<std::string, std::string>> aliases;  // of models
    std::optional<Cors> cors;                                  // none: not set
    bool models_listed = false;  // no other may be asked for
    std::string key_suffix;      // what a key depends on besides the question
    std::vector<Location> locations;  // of a server
    bool has_chatbot = false;         // one of these is one
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
[[nodiscard]] ngx_str_t pool_copy(ngx_pool_t* pool, std::string_view text);

// What setters of directives return: an error is one that was logged.
inline char* const conf_ok = nullptr;
inline char* const conf_error = reinterpret_cast<char*>(-1);

// Logs why a directive is wrong.  Only for values that are no secrets.
template <class... Args>
char* conf_fail(ngx_conf_t* cf, const char* format, Args... args)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, format, args...);
    return conf_error;
}

// directives.cpp
extern ngx_command_t commands[];

// route.cpp: sets lcf.route and lcf.key_suffix.
char* make_route(ngx_conf_t* cf, LocConf& lcf);

// The connection string of the location's database; empty: none (database.cpp).
char* find_database(ngx_conf_t* cf, const LocConf& lcf, std::string& conninfo);

// The content handler (request.cpp).
ngx_int_t content_handler(ngx_http_request_t* r) noexcept;

// Of the chatbot location that a request is for, as far as that can be told:
// some errors, such as 414, are nginx's before it has found a location.  Null
// if it is for none (place.cpp).
[[nodiscard]] const LocConf* chatbot_conf(ngx_http_request_t* r);

// The same, also after an error_page or the like has led the request from a
// chatbot to another location.
[[nodiscard]] const LocConf* visited_chatbot(ngx_http_request_t* r);
[[nodiscard]] ngx_int_t install_places(ngx_conf_t* cf);

// Makes application/problem+json of errors (problem.cpp).
void install_problem_filter();

// Answers pages of other origins (cors.cpp).
[[nodiscard]] ngx_int_t install_cors(ngx_conf_t* cf);

// What clients are told of an error unless there is more to tell.
[[nodiscard]] const char* problem_detail(ngx_uint_t status);

// variables.cpp
ngx_int_t add_variables(ngx_conf_t* cf);
[[nodiscard]] std::string client_of(ngx_http_request_t* r);  // $chatbot_client
[[nodiscard]] std::string_view request_id(ngx_http_request_t* r);

// The life of a worker process (worker.cpp).
ngx_int_t init_worker(ngx_cycle_t* cycle);
void exit_worker(ngx_cycle_t* cycle);

// Records a request that was not asked, if there is room.
void record_refused(const Route& route, const Record& record);

// refused.cpp: has requests recorded that were refused before they were a
// question.
[[nodiscard]] ngx_int_t install_refused_log(ngx_conf_t* cf);

// error_lines.cpp: has nginx's lines of the error log show no question.
[[nodiscard]] ngx_int_t install_error_lines(ngx_conf_t* cf);

// Of several handlers of a phase the last that is added is called first.
[[nodiscard]] ngx_int_t add_phase_handler(ngx_conf_t* cf, ngx_http_phases phase,
                                          ngx_http_handler_pt handler);

}  // namespace chatbot
