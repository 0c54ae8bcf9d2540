#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/exchange.hpp"

// What the simulation has in the place of the rest of the world: Redis,
// PostgreSQL, the disk, and the clock.

namespace chatbot::simulation {

// SplitMix64: the same numbers for the same seed, everywhere.
class Random {
public:
    explicit Random(std::uint64_t seed)
        : state_(seed)
    {
    }

    std::uint64_t next()
    {
        auto z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    std::size_t below(std::size_t n) { return next() % n; }
    bool one_in(std::size_t n) { return below(n) == 0; }

private:
    std::uint64_t state_;
};

// The files of a journal, as they stood at one moment.
class Snapshot {
public:
    void take(const std::string& dir)
    {
        files_.clear();
        for (const auto& entry : std::filesystem::directory_iterator(dir)) {
            std::ifstream in(entry.path(), std::ios::binary);
            files_[entry.path()] = {std::istreambuf_iterator<char>(in), {}};
        }
    }

    // The process died while it wrote this.
    void tear(std::string_view half)
    {
        if (!files_.empty()) {
            files_.rbegin()->second += half;
        }
    }

    void restore(const std::string& dir)
    {
        for (const auto& entry : std::filesystem::directory_iterator(dir)) {
            std::filesystem::remove(entry.path());
        }
        for (const auto& [path, bytes] : files_) {
            std::ofstream(path, std::ios::binary) << bytes;
        }
    }

private:
    std::map<std::string, std::string> files_;
};

// What is there whatever becomes of a process.
struct World {
    World(std::uint64_t seed, std::string directory, bool keep_steps)
        : random(seed),
          dir(std::move(directory)),
          verbose(keep_steps)
    {
    }

    // The first that does not hold ends the run.
    bool check(bool holds, const char* what)
    {
        if (!holds && fault.empty()) {
            fault = what;
            say("*** " + fault);
        }
        return holds;
    }

    void say(const std::string& step)
    {
        if (verbose) {
            steps += std::to_string(now_ms) + " ms: " + step + "\n";
        }
    }

    std::int64_t time_s() const
    {
        return static_cast<std::int64_t>(now_ms / 1000) + 1'000'000'000;
    }
    Clock::time_point now() const
    {
        return Clock::time_point(std::chrono::milliseconds(now_ms));
    }

    // Whether the process lives on; each of its calls to the outside is a
    // moment at which it may be killed.  What it does afterwards has no effect.
    bool lives()
    {
        if (until_kill > 0 && --until_kill == 0) {
            kill();
        }
        return !killed;
    }

    void kill()
    {
        say("killed");
        until_kill = 0;
        killed = true;
        journal.take(dir);
    }

    Random random;
    const std::string dir;
    std::uint64_t now_ms = 1'000'000;

    bool redis_up = true;
    bool postgres_up = true;
    bool room = true;  // in the journal
    bool disk = true;

    struct Kept {
        Answer answer;
        std::int64_t expires_s;
    };
    std::map<Key, Kept> redis;

    std::map<std::string, std::string> recorded;  // request_id, line
    std::set<std::string> table;                  // of PostgreSQL
    std::set<std::string> unsure;  // committed, but the process does not know

    int until_kill = 0;  // so many calls; 0: it is not planned
    bool killed = false;
    Snapshot journal;

    const bool verbose;
    std::string fault;
    std::string steps;
};

// A question of the API starts with this; no other question equals it.
inline constexpr std::string_view api_mark = "api:";

inline bool is_of_api(std::string_view question)
{
    return question.starts_with(api_mark);
}

inline Key key_of(const std::string& question)
{
    Key key{};
    std::copy(question.begin(), question.end(), key.begin());
    return key;
}

inline std::string question_of(const Key& key)
{
    return {key.begin(), std::find(key.begin(), key.end(), 0)};
}

// An answer tells its question and its flight: "one#17#....!".
inline std::string answer_to(const std::string& question, FlightId flight,
                             std::size_t size)
{
    return question + "#" + std::to_string(flight) + "#" +
           std::string(size, '.') + "!";
}

inline bool answers(std::string_view text, const std::string& question)
{
    return text.starts_with(question + "#") && text.ends_with('!');
}

inline FlightId flight_of(const std::string& text)
{
    return std::strtoull(text.c_str() + text.find('#') + 1, nullptr, 10);
}

// The service's reply that an answer for the API comes with.
inline std::string reply_with(const std::string& text)
{
    return "{" + text + "}";
}

inline bool has_its_reply(const Answer& answer, const std::string& question)
{
    return answer.reply == (is_of_api(question) ? reply_with(answer.text) : "");
}

// The request_id of a record.
inline std::string_view id_of(std::string_view line)
{
    constexpr std::string_view name = "\"request_id\":\"";
    auto at = line.find(name);
    if (at == line.npos) {
        return {};
    }
    auto id = line.substr(at + name.size());
    return id.substr(0, id.find('"'));
}

template <class Function>
void for_each_line(std::string_view lines, const Function& function)
{
    while (!lines.empty()) {
        const auto line = lines.substr(0, lines.find('\n'));
        function(line);
        lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    }
}

}  // namespace chatbot::simulation
