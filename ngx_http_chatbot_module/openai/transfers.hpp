#pragma once

#include <memory>
#include <vector>

#include "core/exchange.hpp"

namespace chatbot {

// All calls of one worker process to OpenAI-compatible APIs, in one curl_multi.
//
// Threads:  run() on a worker thread, wake() on any, the rest between two runs
//           on the event loop.
// Promise:  every call given to run() ends in exactly one event `answered` or
//           `failed`, at the latest settings->timeout_ms after it was taken, as
//           long as run() is called again while in_flight() is not 0.
// Memory:   bounded per call: of a reply, 6 * settings->answer_max_size and 320
//           KiB are kept at most.  A stream may bring more, until the timeout,
//           but only its answer and the event not yet ended are kept.  Parsing
//           takes some 40 times the size of the JSON at worst ("[0,0,0..."),
//           for a moment and for one call at a time.
class ModelOpenai {
public:
    ModelOpenai();
    ~ModelOpenai();

    // One turn: takes the calls (the batch is empty afterwards), moves all
    // transfers, waits until something happened, wake() was called or
    // max_wait_ms passed, and moves them again.  Retries and the choice of the
    // model happen in here.
    void run(std::vector<ModelCall>& calls) noexcept;

    // Ends the wait of the turn that runs now, or else of the next one.
    void wake() noexcept;

    [[nodiscard]] std::size_t in_flight() const;

    // Takes what happened since the last call, in the order it happened.
    [[nodiscard]] std::vector<ModelEvent> take_events();
    [[nodiscard]] std::vector<Notice> take_notices();

    // A turn is short, so that a pool with fewer threads than lanes goes on.
    static constexpr int max_wait_ms = 50;

private:
    class Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace chatbot
