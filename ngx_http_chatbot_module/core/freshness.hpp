#pragma once

#include <algorithm>
#include <cstdint>

namespace chatbot {

// For how many seconds from `now_s` on an answer may be served, made at
// `created_s` and valid for `valid_s`; 0: it is stale.  An answer from the
// future, by another host's clock, counts as made now, as does one
// that does not say when (0): the cache itself lets go of it in time.
[[nodiscard]] constexpr int fresh_for_s(std::int64_t created_s, int valid_s,
                                        std::int64_t now_s)
{
    const auto age_s =
        created_s == 0 ? 0 : std::max<std::int64_t>(now_s - created_s, 0);
    return static_cast<int>(std::max<std::int64_t>(valid_s - age_s, 0));
}

}  // namespace chatbot
