#pragma once

#include <curl/curl.h>

#include <chrono>
#include <optional>
#include <string>

#include "core/exchange.hpp"
#include "openai/attempt.hpp"

namespace chatbot {

// How an attempt ended.
struct Outcome {
    // Whose failure it is, if that is known.
    enum class Fault { unknown, request, server, key };

    std::optional<Answer> answer;
    Problem problem;             // if there is no answer
    bool retry = false;          // asking again may help
    bool model_missing = false;  // asking for another model may
    std::string refused_member;  // asking without it may; or empty
    Fault fault = Fault::unknown;
    bool elsewhere = false;  // another server may do better
    std::optional<std::chrono::milliseconds> delay;  // as the upstream wishes
    std::string unsure;  // why this answer is not kept, if that is a matter
                         // of the upstream's dialect: to be told once
};

// The host cannot be reached, for a reason that libcurl was not asked for.
[[nodiscard]] Outcome unreachable(const ModelServer& server,
                                  const std::string& reason);

// To be called once, when the transfer has ended with `code`, or is given up
// (CURLE_OPERATION_TIMEDOUT).
[[nodiscard]] Outcome read_outcome(Attempt& attempt, CURLcode code);

// The upstream's own id of the request, by which its operators find it: a short
// text of visible ASCII, or empty.
[[nodiscard]] std::string request_id_of(const Attempt& attempt);

// `reason` is for the error log.
[[nodiscard]] Problem make_problem(int status, std::string reason);

}  // namespace chatbot
