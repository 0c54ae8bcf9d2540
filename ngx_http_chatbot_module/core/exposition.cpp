#include "core/exposition.hpp"

#include <cstdio>

namespace chatbot {
namespace {

std::string number(double value)
{
    char text[32];
    std::snprintf(text, sizeof(text), "%.10g", value);
    return text;
}

void append_text(std::string& out, std::string_view name,
                 std::string_view labels, std::string_view value)
{
    out += name;
    if (!labels.empty()) {
        out.append("{").append(labels).append("}");
    }
    out.append(" ").append(value).append("\n");
}

}  // namespace

void append_label(std::string& labels, std::string_view name,
                  std::string_view value)
{
    labels += labels.empty() ? "" : ",";
    labels.append(name).append("=\"");
    for (auto c : value) {
        if (c == '\\' || c == '"') {
            labels += '\\';
        }
        labels += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    labels += '"';
}

void append_head(std::string& out, std::string_view name, std::string_view help,
                 std::string_view type)
{
    out.append("# HELP ").append(name).append(" ").append(help);
    out.append("\n# TYPE ").append(name).append(" ").append(type).append("\n");
}

void append_value(std::string& out, std::string_view name,
                  std::string_view labels, std::int64_t value)
{
    append_text(out, name, labels, std::to_string(value));
}

void append_histogram(std::string& out, const std::string& name,
                      const std::string& labels, std::span<const double> bounds,
                      std::span<const std::uint64_t> counts)
{
    std::uint64_t n = 0;
    const auto append_bucket = [&](const std::string& bound,
                                   std::uint64_t count) {
        n += count;
        auto all = labels;
        append_label(all, "le", bound);
        append_text(out, name + "_bucket", all, std::to_string(n));
    };

    for (std::size_t i = 0; i < bounds.size(); ++i) {
        append_bucket(number(bounds[i]), counts[i]);
    }
    append_bucket("+Inf", counts[bounds.size()]);
    append_text(out, name + "_sum", labels,
                number(static_cast<double>(counts.back()) / 1e6));
    append_text(out, name + "_count", labels, std::to_string(n));
}

void append_gauge(std::string& out, std::string_view name,
                  std::string_view help, std::int64_t value)
{
    append_head(out, name, help, "gauge");
    append_value(out, name, "", value);
}

}  // namespace chatbot
