#include "nginx/segments.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "journal/segment.hpp"
#include "nginx/notices.hpp"
#include "postgres/conninfo.hpp"
#include "text/digest.hpp"

namespace chatbot {

namespace {

constexpr ngx_msec_t look_ms = 2000;

// Of the names of segments that are shipped.
constexpr const char* shipped_prefix = "log-";

}  // namespace

std::vector<SegmentNames> segment_names(const std::vector<LogTarget>& targets)
{
    std::vector<SegmentNames> names;
    auto is_database = [](auto& target) { return !target.conninfo.empty(); };
    auto databases = std::count_if(targets.begin(), targets.end(), is_database);

    for (const auto& target : targets) {
        if (!is_database(target)) {
            names.push_back({"requests", "requests-"});
            continue;
        }

        auto database = database_name(target.conninfo);
        auto own =
            shipped_prefix + hex(digest({database, target.table})).substr(0, 8);
        names.push_back({own, databases == 1 ? shipped_prefix : own + "-"});
    }
    return names;
}

void tell_stranded(const std::string& dir,
                   const std::vector<SegmentNames>& names)
{
    auto segments = find_abandoned(dir, shipped_prefix);
    std::erase_if(segments, [&](std::string_view path) {
        path.remove_prefix(dir.size() + 1);
        return std::any_of(names.begin(), names.end(), [=](auto& name) {
            return path.starts_with(name.orphans);
        });
    });
    if (segments.empty()) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "chatbot: records of a database that is not configured stay "
                  "in the journal, in %uz file(s), \"%s\" first",
                  segments.size(), segments.front().c_str());
}

const Usage& JournalUsage::now()
{
    constexpr int max_share = 100;  // a hundredth of the time

    const auto start = Clock::now();
    if (start >= next_at_) {
        usage_ = usage(dir_, shipped_prefix);
        const auto end = Clock::now();
        next_at_ = end + (end - start) * max_share;
    }
    return usage_;
}

JournalWatch::JournalWatch(std::string dir, std::uint64_t max_size)
    : dir_(std::move(dir)),
      max_size_(max_size),
      usage_(dir_),
      timer_([this] { look(); })
{
    timer_.hold_worker(false);
    look();
}

void JournalWatch::look()
{
    timer_.set_timer(look_ms);

    const auto change = fill_.update(usage_.now().disk, max_size_);
    const auto tell = [this](ngx_uint_t level, const char* how,
                             unsigned percent, const char* why) {
        log_line(level, "the journal in \"" + dir_ + "\" takes " + how + " " +
                            std::to_string(percent) + " % of its max_size (" +
                            std::to_string(max_size_) + " bytes)" + why);
    };
    if (change == FillLevel::Change::up) {
        tell(fill_.level() >= 90 ? NGX_LOG_ERR : NGX_LOG_WARN, "more than",
             fill_.level(), ": when it is full, requests are refused");
    } else if (change == FillLevel::Change::down) {
        tell(NGX_LOG_NOTICE, "less than", fill_.next(), " again");
    }
}

}  // namespace chatbot
