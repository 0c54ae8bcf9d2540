#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <string>
#include <string_view>

// How the cost of a function grows with the size of its input.

namespace chatbot {

// `unit` repeated, of at most `size` bytes.
inline std::string repeated(std::string_view unit, std::size_t size)
{
    std::string text;
    for (auto n = size / unit.size(); n > 0; --n) {
        text += unit;
    }
    return text;
}

// The CPU time of function(input): the least of several runs, so that other
// processes do not count.
template <class Function>
double cpu_seconds(const Function& function, const std::string& input)
{
    auto now = [] {
        timespec time{};
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        return static_cast<double>(time.tv_sec) +
               static_cast<double>(time.tv_nsec) / 1e9;
    };

    double least = 1e9;
    for (int run = 0; run < 7; ++run) {
        auto start = now();
        function(input);
        least = std::min(least, now() - start);
    }
    return least;
}

// Fails if function(make(size)) costs more than about `size`: of an input 16
// times as large a linear function takes 16 times as long, a quadratic one 256
// times.
template <class Make, class Function>
void expect_linear(const Make& make, const Function& function)
{
    constexpr std::size_t size = 1024;
    auto small = cpu_seconds(function, make(size));
    auto large = cpu_seconds(function, make(16 * size));
    EXPECT_LT(large, 64 * std::max(small, 1e-6)) << make(24);
}

}  // namespace chatbot
