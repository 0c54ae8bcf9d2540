#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace chatbot {

// The text that Prometheus reads:
// https://prometheus.io/docs/instrumenting/exposition_formats/
//
// Threads:  functions without state; call them anywhere.

// Appends a label to those of a series: name="value", behind a comma if it is
// not the first.  What would break the line becomes a space.
void append_label(std::string& labels, std::string_view name,
                  std::string_view value);

// What a family is, in front of its values.
void append_head(std::string& out, std::string_view name, std::string_view help,
                 std::string_view type);

// The value of one series; `labels` may be empty.
void append_value(std::string& out, std::string_view name,
                  std::string_view labels, std::int64_t value);

// The values of a histogram.  `counts` has one for each bound, in seconds, one
// for what is above, and the sum in microseconds.
void append_histogram(std::string& out, const std::string& name,
                      const std::string& labels, std::span<const double> bounds,
                      std::span<const std::uint64_t> counts);

// A family of one gauge without labels.
void append_gauge(std::string& out, std::string_view name,
                  std::string_view help, std::int64_t value);

}  // namespace chatbot
