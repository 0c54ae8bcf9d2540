#include "text/invariant.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace chatbot {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)
constexpr bool is_test_build = true;
#else
constexpr bool is_test_build = false;
#endif

struct Violation {
    const char* what = nullptr;
    SourcePlace where{};
};

// More places than that at once are counted only.
constexpr std::size_t max_places = 16;

std::atomic<bool> aborts{is_test_build};
std::atomic<unsigned long> count{0};
std::atomic<std::size_t> noted{0};  // of places; written under the mutex

std::mutex mutex;
std::array<Violation, max_places> places;
std::size_t taken = 0;

bool is_noted(const SourcePlace& where)
{
    for (std::size_t i = 0; i < noted; ++i) {
        // Both are literals.
        if (places[i].where.line == where.line &&
            places[i].where.file == where.file) {
            return true;
        }
    }
    return false;
}

std::string describe(const Violation& violation)
{
    return std::string(violation.what) + " in " + violation.where.function +
           " at " + violation.where.file + ":" +
           std::to_string(violation.where.line);
}

}  // namespace

void note_violation(const char* what, const SourcePlace& where) noexcept
{
    ++count;
    if (aborts) {
        std::fprintf(stderr, "%s:%u: %s: invariant: %s\n", where.file,
                     where.line, where.function, what);
        std::abort();
    }

    std::lock_guard lock(mutex);
    if (noted < max_places && !is_noted(where)) {
        places[noted] = {.what = what, .where = where};
        ++noted;
    }
}

std::string take_violation()
{
    if (noted == 0) {  // as a rule, and without the mutex
        return {};
    }

    std::lock_guard lock(mutex);
    return taken == noted ? std::string() : describe(places[taken++]);
}

unsigned long violations() noexcept
{
    return count;
}

void abort_on_violation(bool aborts_now) noexcept
{
    aborts = aborts_now;
}

}  // namespace chatbot
