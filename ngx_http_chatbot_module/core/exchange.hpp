#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace chatbot {

// The data that event loop and worker threads hand to each other: plain values,
// moved, never shared.  Text is UTF-8 without U+0000.

// What a model answered, or what Redis kept of it.
struct Answer {
    static constexpr std::int64_t max_created = 1'000'000'000'000;

    std::string text;  // trimmed, never empty
    std::string model;
    std::int64_t created = 0;             // seconds since the epoch
    std::int32_t prompt_tokens = -1;      // -1: not told
    std::int32_t completion_tokens = -1;  // -1: not told
    std::int32_t cached_tokens = -1;      // of the prompt; -1: not told
    std::int32_t reasoning_tokens = -1;   // of the completion; -1: not told
    std::string finish_reason{};          // in the service's words
    bool complete = false;  // came to a natural end, no refusal: worth keeping

    // Of a call of the API (ApiCall): the service's reply as one JSON text, and
    // as the events of a stream (see events.hpp), whichever of them it was.
    std::string reply{};
    std::string events{};
};

// Why there is no answer.
struct Problem {
    int status = 0;         // of the HTTP response, 0: no problem
    std::string detail;     // for the client: no secret, no upstream's words
    std::string reason;     // for the error log, may be empty; never a secret
    int retry_after_s = 0;  // 0: not told

    // For a client of the API: what OpenAI would say; may be empty.
    std::string code{};
    std::string param{};

    explicit operator bool() const { return status != 0; }
};

// Without its texts, where there is no memory for them.
[[nodiscard]] inline Problem problem_of(int status, const char* detail,
                                        const char* reason = "",
                                        int retry_after_s = 0) noexcept
try {
    return {status, detail, reason, retry_after_s};
} catch (const std::bad_alloc&) {
    Problem problem;
    problem.status = status;
    problem.retry_after_s = retry_after_s;
    return problem;
}

[[nodiscard]] inline Problem out_of_memory() noexcept
{
    return problem_of(503, "The server is out of memory.",
                      "no memory for a call of the model", 1);
}

[[nodiscard]] inline Problem client_left() noexcept
{
    return problem_of(499, "The client left.");
}

// What has changed, where that is to be counted, too.
struct Change {
    enum class Kind {
        none,
        model_passed_over,
        member_left_out,
        breaker_opened,
        breaker_closed
    };

    Kind kind = Kind::none;
    std::string server{};         // its name
    std::string model{};          // of the first two
    const void* group = nullptr;  // a server has a breaker in each
    int rest_s = 0;               // breaker_opened: for how long
};

// A line for the error log.  A worker thread never logs, it hands these back.
struct Notice {
    enum class Level { error, warn, notice };

    Level level;
    std::string text;  // one line, no secret; empty: nothing is logged
    Change change{};
};

// Whether the process is to end at once, so that nothing is waited for any
// more.  Called in any thread; does not throw.
using Stopping = std::function<bool()>;

// How the cache took part in an answer; the words of nginx's
// $upstream_cache_status.
enum class CacheStatus { none, miss, hit, collapsed, bypass };

// "MISS" and so on; "" for none.
[[nodiscard]] constexpr const char* to_string(CacheStatus status)
{
    switch (status) {
        case CacheStatus::miss:
            return "MISS";
        case CacheStatus::hit:
            return "HIT";
        case CacheStatus::collapsed:
            return "COLLAPSED";
        case CacheStatus::bypass:
            return "BYPASS";
        case CacheStatus::none:
            break;
    }
    return "";
}

// Names equal questions: a digest() of what makes them equal, see digest.hpp.
using Key = std::array<unsigned char, 32>;

// Names one flight, see conductor.hpp.  Never used twice by a worker process.
using FlightId = std::uint64_t;

// A server of an API, with one key.
struct ModelServer {
    std::string name;                 // for the log
    std::string url;                  // base URL without a slash at its end
    std::string api_key;              // empty: no Authorization header is sent
    std::vector<std::string> models;  // in the order of preference, never empty
    int weight = 1;
    int max_fails = 1;  // 0: failures are not counted
    int fail_timeout_ms = 10000;
    bool backup = false;
    std::string proxy{};  // URL; empty: none

    bool operator==(const ModelServer&) const = default;
};

// A member of the request's body.
struct ModelParam {
    std::string name;
    std::string json;     // its value
    std::string model{};  // for this one only; empty: for all

    bool operator==(const ModelParam&) const = default;
};

// How to ask a model.  Belongs to the configuration: made once, then only read,
// and alive as long as the worker process.
struct ModelSettings {
    std::string url;                  // base URL without a slash at its end
    std::string api_key;              // empty: no Authorization header is sent
    std::vector<std::string> models;  // in the order of preference, never empty
    std::string system_prompt;        // empty: none is sent
    std::vector<ModelServer> servers;  // instead of the three above, if any
    std::vector<ModelParam> params;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string proxy;     // of `url`; empty: none
    std::string no_proxy;  // hosts to be asked directly, as in NO_PROXY
    std::size_t answer_max_size = 1024 * 1024;  // bytes
    int connect_timeout_ms = 5000;
    int read_timeout_ms = 120000;  // between two bytes of a reply
    int timeout_ms = 300000;       // in all, retries included
    int retries = 2;
    bool stream = true;  // always asked for; else only if somebody listens
    bool identify_to_all = false;  // whoever asks, not to OpenAI alone
    bool ssl_verify = true;
    std::string ssl_trusted_certificate;  // a file; empty: the system's CAs

    bool operator==(const ModelSettings&) const = default;
};

// One message of a conversation.
struct Message {
    std::string role;  // "user" or "assistant"
    std::string content;
};

// What of OpenAI's API a client asks for.
enum class ApiPath { completions, responses };

// A request of an OpenAI client, which goes to the model as it came.
struct ApiCall {
    std::string model;
    std::string members{};  // of the body but "model", "stream" and
                            // "stream_options", as written, without the braces
    ApiPath path = ApiPath::completions;

    explicit operator bool() const { return !model.empty(); }
};

// A question to a model.
struct ModelCall {
    FlightId flight = 0;
    const ModelSettings* settings = nullptr;
    std::vector<Message> history;  // before the question, oldest first
    std::string question;
    bool listen = false;   // somebody wants the answer piece by piece
    std::string client{};  // who asks, for the safety identifier; may be empty
    ApiCall api{};         // instead of history and question, if any
};

// How a call of the model went, whatever became of it.  Nothing of it is known
// where the model was not asked.
struct CallReport {
    int duration_ms = -1;    // in all, retries included
    int first_byte_ms = -1;  // until the first text, or the body of a reply in
                             // one piece; -1: none came
    int attempts = -1;       // HTTP requests
    std::string upstream{};  // the server that was asked last
    std::string model{};     // for which model
    std::string upstream_request_id{};  // its own; visible ASCII; empty: none
};

// What became of a flight, as the reactor tells the conductor: any number of
// pieces (if somebody listens), then exactly one of the others.
struct FlightEvent {
    enum class Kind { piece, hit, answered, failed };

    FlightId flight = 0;
    Kind kind = Kind::failed;
    std::string piece;  // piece: what the model wrote since the last one
    Answer answer;      // hit, answered: with the whole text
    int ttl_s = 0;      // hit: how long the answer stays fresh
    Problem problem;    // failed
    CallReport call;    // answered, failed
};

// For the debugging log.
[[nodiscard]] constexpr const char* to_string(FlightEvent::Kind kind)
{
    switch (kind) {
        case FlightEvent::Kind::piece:
            return "piece";
        case FlightEvent::Kind::hit:
            return "hit";
        case FlightEvent::Kind::answered:
            return "answered";
        case FlightEvent::Kind::failed:
            break;
    }
    return "failed";
}

}  // namespace chatbot
