#include "journal/journal.hpp"

#include <algorithm>
#include <cerrno>
#include <exception>
#include <utility>

#include "text/invariant.hpp"

namespace chatbot {
namespace {

constexpr std::chrono::seconds retry_interval{1};
constexpr std::chrono::seconds empty_interval{1};
constexpr std::chrono::seconds look_interval{1};

// Looking at the others' files takes at most this share of the time.
constexpr int max_look_share = 100;

constexpr std::uint64_t min_step = 64 * 1024;
constexpr std::uint64_t block_size = 4096;

}  // namespace

// A journal smaller than a few segments gets smaller segments, so that some can
// be shipped while another is written; a large one larger segments.
Journal::Journal(std::string dir, std::string name, std::uint64_t max_size,
                 bool ships)
    : dir_(std::move(dir)),
      name_(std::move(name)),
      max_size_(max_size),
      ships_(ships),
      segment_size_(std::clamp(max_size / usual_segments,
                               std::min(usual_segment, max_size / 4),
                               max_segment))
{
}

Journal::~Journal()
{
    if (current_.file) {
        trim(current_);
        close_segment(std::move(current_));
    }
    for (auto& segment : queue_) {
        close_segment(std::move(segment));
    }
}

bool Journal::reserve(std::uint64_t bytes) noexcept
try {
    look_after_current();
    if (!covers(reserved_ + bytes) && !claim(reserved_ + bytes)) {
        return false;
    }

    reserved_ += bytes;
    return true;
} catch (const std::exception&) {
    return fail("out of memory");
}

void Journal::release(std::uint64_t bytes) noexcept
{
    if (!invariant(bytes <= reserved_, "more is released than was reserved")) {
        bytes = reserved_;
    }
    reserved_ -= bytes;
}

// Whether so many bytes more may be written.
bool Journal::covers(std::uint64_t bytes) const
{
    return current_.file && current_.size + bytes <= current_.claimed;
}

// Makes covers(bytes) true.
bool Journal::claim(std::uint64_t bytes)
{
    if (Clock::now() < retry_at_) {
        return false;
    }

    // What fails is not tried for each request.
    bool claimed = (current_.file || replace_current(0)) &&
                   (extend(bytes) || (empty_in_place() && extend(bytes)));
    retry_at_ = claimed ? Clock::time_point() : Clock::now() + retry_interval;
    return claimed;
}

bool Journal::extend(std::uint64_t bytes)
{
    auto needed = current_.size + bytes;
    auto limit = limit_of_current(needed);
    if (needed > limit) {
        return fail(dir_ + ": its max_size is reached (" +
                    std::to_string(max_size_) +
                    " bytes, \"chatbot_log_journal\")");
    }
    return grow(current_, needed, limit);
}

// Allocates blocks for the first `needed` bytes of a segment, and some more as
// long as there are few segments as large as this one, up to `limit`.
bool Journal::grow(Segment& segment, std::uint64_t needed, std::uint64_t limit)
{
    auto smallest = std::clamp(max_size_ / 256, block_size, min_step);
    auto largest = std::clamp(max_size_ / 64, smallest, max_step);
    auto ahead = needed + std::clamp(segment.size, smallest, largest);
    ahead = std::max(needed, std::min(ahead - ahead % block_size, limit));

    if (allocate(segment.file, ahead)) {
        segment.claimed = ahead;
        return true;
    }

    // Not every file system can, or not that much; there may be room all the
    // same.
    int error = 0;
    if (allocate(segment.file, needed) ||
        (error = errno, (error == EOPNOTSUPP || error == ENOSPC) &&
                            has_space(segment.file, needed - segment.size))) {
        segment.claimed = needed;
        return true;
    }
    return fail(segment.path, error);
}

// How large the current segment may grow.
std::uint64_t Journal::limit_of_current(std::uint64_t needed)
{
    std::uint64_t queued = 0;
    for (const auto& segment : queue_) {
        queued += segment.size;
    }

    auto left = [&] {
        auto taken = others_ + queued;
        return max_size_ - std::min(taken, max_size_);
    };

    auto tight = needed + max_size_ / 4 > left();
    auto interval = tight ? std::min<Clock::duration>(
                                others_cost_ * max_look_share, look_interval)
                          : Clock::duration(look_interval);
    if (Clock::now() >= others_at_ + interval) {
        look_at_others();
    }
    return left();
}

void Journal::look_at_others()
{
    std::set<std::string> ours{current_.path};
    for (const auto& segment : queue_) {
        ours.insert(segment.path);
    }

    auto start = Clock::now();
    others_ = disk_size(dir_, "", ours).value_or(others_);
    others_at_ = Clock::now();
    others_cost_ = others_at_ - start;
}

bool Journal::append(std::string_view lines) noexcept
try {
    if (!invariant(lines.ends_with('\n'), "half a line is recorded")) {
        return fail("half a line");
    }
    look_after_current();
    if (current_.size != 0 && current_.size + lines.size() > segment_size_) {
        // If it cannot be replaced, it is used on.
        (void)replace_current(lines.size());
    }
    return write_current(lines) ||
           (replace_current(lines.size()) && write_current(lines));
} catch (const std::exception&) {
    return fail("out of memory");
}

bool Journal::write_current(std::string_view lines)
{
    // Where a line is larger than its reservation, it must not be written into
    // the blocks of others.
    auto all = reserved_ + lines.size();
    if (!current_.file ||
        (!covers(all) &&
         !grow(current_, current_.size + all, limit_of_current(all)) &&
         reserved_ != 0)) {
        return false;
    }

    auto written = write_lines(current_.file, current_.size, lines);
    if (written == Written::all) {
        if (current_.shipped == current_.size) {
            current_.since = std::time(nullptr);
        }
        current_.size += lines.size();
        current_.claimed = std::max(current_.claimed, current_.size);
        return true;
    }

    fail(current_.path, errno);
    retire();
    return false;
}

// Makes a new current segment, with room for what is reserved and `bytes`.  The
// old one, if any, stays current on failure: its blocks are needed by what was
// let in already.
bool Journal::replace_current(std::uint64_t bytes)
{
    Segment segment;
    if (!make_segment(dir_, name_, made_, segment)) {
        return fail(segment.path, errno);
    }

    bytes += reserved_;
    if (bytes != 0 && !grow(segment, bytes, 0)) {
        close_segment(std::move(segment));
        return false;
    }

    retire();
    current_ = std::move(segment);
    return true;
}

bool Journal::is_writable() noexcept
try {
    if (!current_.file && !replace_current(0)) {
        return false;
    }
    if (current_.size == 0) {
        retire();
    }
    return true;
} catch (const std::exception&) {
    return fail("out of memory");
}

void Journal::retire()
{
    if (!current_.file) {
        return;
    }

    trim(current_);
    if (!ships_ || current_.shipped == current_.size) {
        close_segment(std::exchange(current_, {}));
    } else if (queue_.size() >= max_open && current_.file.fd() != shipping_) {
        left_behind_ = true;
        close_segment(std::exchange(current_, {}));
    } else {
        queue_.push_back(std::move(current_));
        current_ = {};
    }
}

// Whether nobody else changed the file; tells what was done to it.
bool Journal::is_sound(const Segment& segment, bool written_to)
{
    struct stat state;
    if (!look_at(segment.file, state)) {
        return true;
    }

    auto size = static_cast<std::uint64_t>(state.st_size);
    if (size >= segment.size && (size == segment.size || !written_to)) {
        return true;
    }

    damage_ = "\"" + segment.path +
              "\" was changed by another program: it has " +
              std::to_string(size) + " bytes, " + std::to_string(segment.size) +
              " were written; its lines are read again";
    return false;
}

// A damaged segment becomes an orphan, and is adopted as it is now.
void Journal::drop_damaged()
{
    damaged_.push_back(std::move(current_.file));
    current_ = {};
    left_behind_ = true;
    if (!ships_) {
        damaged_.clear();
    }
}

void Journal::look_after_current()
{
    auto now = Clock::now();
    if (!current_.file || now < look_at_) {
        return;
    }

    struct stat state;
    look_at_ = now + look_interval;
    if (!still_there(current_.path, current_.file, state)) {
        damage_ = "\"" + current_.path +
                  "\" was removed or moved while it was written to, the "
                  "journal goes on without it";
        retire();
        retry_at_ = {};
    } else if (!is_sound(current_, true)) {
        drop_damaged();
        retry_at_ = {};
    }
}

std::string Journal::take_damage() noexcept
{
    return std::exchange(damage_, {});
}

Slice Journal::next_slice() noexcept
try {
    damaged_.clear();
    shipping_ = -1;

    while (!queue_.empty() && !is_sound(queue_.front(), false)) {
        queue_.pop_front();
        left_behind_ = true;
    }
    if (current_.file && !is_sound(current_, true)) {
        drop_damaged();
        damaged_.clear();
    }

    empty_current();
    auto of_current =
        queue_.empty() || (current_next_ && current_.size != current_.shipped);
    const auto& segment = of_current ? current_ : queue_.front();

    invariant(segment.shipped <= segment.size, "more is shipped than there is");
    shipping_ = segment.file.fd();
    return {.fd = segment.file.fd(),
            .from = segment.shipped,
            .to = segment.size,
            .adopted = segment.adopted};
} catch (const std::exception&) {
    return {};
}

void Journal::shipped(std::uint64_t n) noexcept
try {
    auto fd = std::exchange(shipping_, -1);
    auto it = std::find_if(queue_.begin(), queue_.end(),
                           [&](const auto& s) { return s.file.fd() == fd; });
    Segment& segment = it == queue_.end() ? current_ : *it;
    if (!segment.file || segment.file.fd() != fd) {
        return;
    }

    if (!invariant(n <= segment.size - segment.shipped,
                   "more is shipped than was written")) {
        return;  // the slice is shipped again
    }

    segment.shipped += n;
    current_next_ = it != queue_.end();
    if (it == queue_.end()) {
        empty_current();
    } else if (segment.shipped == segment.size) {
        close_segment(std::move(segment));
        queue_.erase(it);
        retry_at_ = {};
    }
} catch (const std::exception&) {
    // The current segment is emptied by the next call.
}

// Replaces the current segment if all of it is shipped.  (It is not truncated:
// its blocks are reserved for requests that are in flight.)  Replacing takes
// longer than a hundred appends, so this is done at most once a second.
void Journal::empty_current()
{
    if (current_.size == 0 || current_.shipped != current_.size) {
        return;
    }

    auto now = Clock::now();
    if (now < empty_at_ && current_.size < segment_size_ / 16) {
        return;
    }

    empty_at_ = now + empty_interval;
    if (replace_current(0)) {
        retry_at_ = {};
    }
}

// For a disk that has no room for a second segment.
bool Journal::empty_in_place()
{
    if (current_.size == 0 || current_.shipped != current_.size ||
        !truncate(current_.file, 0)) {
        return false;
    }
    current_.size = current_.shipped = current_.claimed = 0;
    return true;
}

bool Journal::fail(const std::string& path, int error)
{
    return fail(describe(path, error));
}

bool Journal::fail(std::string why) noexcept
{
    error_ = std::move(why);
    return false;
}

std::size_t Journal::vacancies() const
{
    return max_open - std::min(queue_.size(), max_open);
}

// Without memory they are closed, and become orphans again.
void Journal::adopt(std::vector<Segment> orphans) noexcept
try {
    queue_.insert(queue_.begin(), std::make_move_iterator(orphans.begin()),
                  std::make_move_iterator(orphans.end()));
} catch (const std::exception&) {
    left_behind_ = true;
}

bool Journal::take_left_behind()
{
    return std::exchange(left_behind_, false);
}

bool Journal::is_behind() const
{
    return !queue_.empty() || backlog() >= std::min(max_slice, max_size_ / 8);
}

std::uint64_t Journal::backlog() const
{
    std::uint64_t bytes = current_.size - current_.shipped;
    for (const auto& segment : queue_) {
        bytes += segment.size - segment.shipped;
    }
    return bytes;
}

std::uint64_t Journal::shipped() const
{
    std::uint64_t bytes = current_.shipped;
    for (const auto& segment : queue_) {
        bytes += segment.shipped;
    }
    return bytes;
}

std::time_t Journal::oldest() const
{
    std::time_t since = current_.size == current_.shipped ? 0 : current_.since;
    for (const auto& segment : queue_) {
        since = since == 0 ? segment.since : std::min(since, segment.since);
    }
    return since;
}

}  // namespace chatbot
