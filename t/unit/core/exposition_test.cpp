#include "core/exposition.hpp"

#include <gtest/gtest.h>

namespace chatbot {
namespace {

TEST(ExpositionTest, Labels)
{
    std::string labels;
    append_label(labels, "model", "m");
    append_label(labels, "url", "a\\\"b\"\n");
    EXPECT_EQ(labels, R"(model="m",url="a\\\"b\" ")");
}

TEST(ExpositionTest, AGauge)
{
    std::string out;
    append_gauge(out, "up", "Whether it is up.", -1);
    EXPECT_EQ(out,
              "# HELP up Whether it is up.\n"
              "# TYPE up gauge\n"
              "up -1\n");
}

TEST(ExpositionTest, ValuesWithLabels)
{
    std::string out;
    append_head(out, "n", "Some.", "counter");
    append_value(out, "n", R"(a="1")", 7);
    EXPECT_EQ(out, "# HELP n Some.\n# TYPE n counter\nn{a=\"1\"} 7\n");
}

// Prometheus wants the sum of all buckets up to each bound.
TEST(ExpositionTest, AHistogram)
{
    const double bounds[] = {0.0001, 10.24};
    const std::uint64_t counts[] = {1, 2, 3, 1500000};
    std::string out;
    append_histogram(out, "h", R"(a="1")", bounds, counts);
    EXPECT_EQ(out,
              "h_bucket{a=\"1\",le=\"0.0001\"} 1\n"
              "h_bucket{a=\"1\",le=\"10.24\"} 3\n"
              "h_bucket{a=\"1\",le=\"+Inf\"} 6\n"
              "h_sum{a=\"1\"} 1.5\n"
              "h_count{a=\"1\"} 6\n");

    out.clear();
    append_histogram(out, "h", "", {}, std::span(counts).last(2));
    EXPECT_EQ(out, "h_bucket{le=\"+Inf\"} 3\nh_sum 1.5\nh_count 3\n");
}

}  // namespace
}  // namespace chatbot
