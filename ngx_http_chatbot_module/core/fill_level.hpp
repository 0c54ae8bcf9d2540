#pragma once

#include <cstdint>

namespace chatbot {

// What to log of something that fills up: once when 50, 75 and 90 % are
// reached, once when it has less again.  Some percent less, so that one that
// stays about there is told once.
class FillLevel {
public:
    // What has happened to the level, which is 0, 50, 75 or 90.
    enum class Change { none, up, down };

    [[nodiscard]] Change update(std::uint64_t used, std::uint64_t max)
    {
        const auto percent = max == 0 ? 0 : used * 100 / max;
        const auto up = level_at(percent);
        const auto down = level_at(percent + slack);
        if (up > level_) {
            level_ = up;
            return Change::up;
        }
        if (down < level_) {
            level_ = down;
            return Change::down;
        }
        return Change::none;
    }

    [[nodiscard]] unsigned level() const { return level_; }

    // The level above.
    [[nodiscard]] unsigned next() const
    {
        return level_ >= 75 ? 90 : level_ >= 50 ? 75 : 50;
    }

    static constexpr unsigned slack = 5;

private:
    static unsigned level_at(std::uint64_t percent)
    {
        return percent >= 90 ? 90 : percent >= 75 ? 75 : percent >= 50 ? 50 : 0;
    }

    unsigned level_ = 0;
};

}  // namespace chatbot
