#include "log/shipper.hpp"

#include <exception>
#include <utility>

namespace chatbot {
namespace {

constexpr std::size_t max_told = 100;

}  // namespace

LogShipper::LogShipper(const Settings& settings, Stopping stopping)
    : dir_(settings.dir),
      orphans_(settings.orphans),
      ships_(!settings.conninfo.empty()),
      rejects_{.dir = settings.dir, .max_size = settings.max_size},
      postgres_(settings.conninfo, settings.table, std::move(stopping),
                settings.keep_s),
      prepare_(ships_ && settings.prepare)
{
}

void LogShipper::run(const Order& order) noexcept
try {
    shipping_ = Shipping::waiting;
    if (order.orphans != 0) {
        search(order.orphans);
    }

    if (!order.slice.empty()) {
        shipping_ = ship(order);
        waited_ = waited_ || shipping_ == Shipping::waiting;
    } else if (prepare_) {
        prepare_ = !postgres_.prepare();
    }
} catch (const std::exception&) {
    waited_ = true;  // no memory: tried again like any other failure
}

// Segments that stay where they are, where nothing is shipped, are put in
// order.
void LogShipper::search(std::size_t max)
{
    if (!ships_) {
        tell_orphan_errors(tidy_orphans(dir_, orphans_));
        return;
    }

    found_ = find_orphans(dir_, orphans_, max);
    tell_orphan_errors(found_.errors);
}

// Each error is told once, of the first hundred.
void LogShipper::tell_orphan_errors(const std::vector<std::string>& errors)
{
    for (const auto& error : errors) {
        if (told_.size() < max_told && told_.insert(error).second) {
            notices_.push_back(
                {Notice::Level::error, "records are left behind in " + error});
        }
    }
}

Shipping LogShipper::ship(const Order& order)
{
    if (lines_.empty() && !read_batch(order.slice)) {
        notices_.push_back({Notice::Level::error,
                            "the journal in " + dir_ + " cannot be read"});
        return Shipping::waiting;
    }

    if (!decided_) {
        const auto shipping =
            postgres_.ship(lines_, order.slice.adopted,
                           waited_ ? later_lines(order) : "", rejected_);
        if (shipping != Shipping::done) {
            return shipping;
        }
        decided_ = true;
        prepare_ = false;
    }

    return rejected_.empty() || set_rejected_aside() ? Shipping::done
                                                     : Shipping::waiting;
}

bool LogShipper::read_batch(const Slice& slice)
{
    decided_ = false;
    waited_ = false;
    rejected_.clear();
    if (!read_slice(slice, lines_)) {
        return false;
    }
    lines_.resize(postgres_.batch_size(lines_));
    return true;
}

// Some lines that come after the batch.
std::string LogShipper::later_lines(const Order& order) const
{
    std::string lines;
    Slice rest = order.slice;
    rest.from += lines_.size();
    if (!rest.empty() && !read_slice(rest, lines)) {
        lines.clear();
    }
    return order.later + lines;
}

// What cannot be set aside waits, and all of the batch with it; a reason that
// lasts is told once.
bool LogShipper::set_rejected_aside()
{
    auto error = set_aside(rejects_, rejected_);
    if (!error.empty() && error != held_for_) {
        notices_.push_back(
            {Notice::Level::error,
             "refused records cannot be set aside, and wait: " + error});
    }
    held_for_ = std::move(error);
    return held_for_.empty();
}

Orphans LogShipper::take_orphans()
{
    return std::exchange(found_, {});
}

}  // namespace chatbot
