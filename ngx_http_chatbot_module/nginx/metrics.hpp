#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"
#include "core/metrics.hpp"
#include "core/record.hpp"
#include "nginx/chatbot.hpp"

namespace chatbot {

// What this worker process counts for "chatbot_metrics"; null if no location
// has that directive.  Event loop only.
[[nodiscard]] Metrics* metrics();

// The names that labels may have (counts.cpp).
void init_counts(const MainConf& conf);

// What became of a question, see Recorder::Services::settled().
void count_question(const Record& record, bool durable);

// A state that has changed.
void count_change(const Change& change);

// Records that PostgreSQL has taken, and those that were set aside.
void count_rows(std::string_view shipped, std::string_view rejected);

// Counts how long lookups took, on any thread; empty without metrics.
[[nodiscard]] std::function<void(std::chrono::microseconds)> round_trips();

// One stream to a client more, or less.
void count_stream(int n);

// The shared memory, if there is a "chatbot_metrics", and the counting of
// requests.
[[nodiscard]] ngx_int_t install_metrics(ngx_conf_t* cf);
void init_metrics(const MainConf& conf);

// Setters of the directives "chatbot_metrics" and "chatbot_health".
char* set_metrics(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_health(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

// Why this worker process cannot answer questions, for the public; or empty
// (worker.cpp).
[[nodiscard]] std::string ill_health();

}  // namespace chatbot
