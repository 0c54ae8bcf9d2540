#include "openai/delay.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr double max_seconds = 24 * 60 * 60;
constexpr double first_epoch_seconds = 1e9;  // a number from there on is a
constexpr double first_epoch_millis = 1e12;  // point in time

milliseconds to_milliseconds(double seconds)
{
    return milliseconds(
        std::lround(std::clamp(seconds, 0.0, max_seconds) * 1000));
}

// Takes a number off the front.
std::optional<double> take_number(std::string_view& text)
{
    auto length = std::min(text.find_first_not_of(".0123456789"), text.size());
    std::string digits(text.substr(0, length));
    if (digits.find_first_of("0123456789") == digits.npos ||
        std::count(digits.begin(), digits.end(), '.') > 1) {
        return {};
    }
    text.remove_prefix(length);
    return std::strtod(digits.c_str(), nullptr);
}

// Takes the unit of a duration off the front, in seconds.
std::optional<double> take_unit(std::string_view& text)
{
    static constexpr std::pair<std::string_view, double> units[] = {
        {"ms", 0.001}, {"us", 1e-6}, {"µs", 1e-6}, {"ns", 1e-9},
        {"h", 3600},   {"m", 60},    {"s", 1},     {"d", 86400},
    };

    for (auto [name, seconds] : units) {
        if (text.starts_with(name)) {
            text.remove_prefix(name.size());
            return seconds;
        }
    }
    return {};
}

std::optional<double> read_duration(std::string_view text)
{
    double seconds = 0;
    while (!text.empty()) {
        auto number = take_number(text);
        auto unit = take_unit(text);
        if (!number || !unit) {
            return {};
        }
        seconds += *number * *unit;
    }
    return seconds;
}

}  // namespace

std::optional<milliseconds> read_milliseconds(std::string_view value)
{
    auto number = take_number(value);
    if (!number || !value.empty()) {
        return {};
    }
    return to_milliseconds(*number / 1000);
}

std::optional<milliseconds> read_reset(std::string_view value, std::time_t now)
{
    auto rest = value;
    auto number = take_number(rest);
    if (!number) {
        return {};
    }
    if (!rest.empty()) {
        auto duration = read_duration(value);
        return duration ? std::optional(to_milliseconds(*duration))
                        : std::nullopt;
    }

    if (*number >= first_epoch_millis) {
        return to_milliseconds(*number / 1000 - static_cast<double>(now));
    }
    if (*number >= first_epoch_seconds) {
        return to_milliseconds(*number - static_cast<double>(now));
    }
    return to_milliseconds(*number);
}

}  // namespace chatbot
