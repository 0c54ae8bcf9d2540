#pragma once

#include <string>
#include <string_view>

#include "text/json.hpp"

namespace chatbot {

// Puts a reply in one piece together from the chunks of a stream, as they come.
//
// Threads:  nothing is shared; use each object in one thread at a time.
// Memory:   some times the size of the chunks.  Without it add() and finish()
//           throw std::bad_alloc, and the joiner is of no use any more.
// Cost:     linear in the size of the chunks, whatever they hold.
class ReplyJoiner {
public:
    // `text` is the chunk's text as it is written in `chunk`, if chunks that
    // differ in it alone are the same as one with all their texts (see
    // scan_chunk()); else empty.  What is no JSON object is passed over.
    void add(std::string_view chunk, std::string_view text = {});

    // The reply that the chunks add up to.  To be called once.
    [[nodiscard]] Json finish();

private:
    void end_run();
    void merge(std::string_view chunk);
    [[nodiscard]] cJSON* reply();

    Json reply_;

    // Chunks that differ in their text alone, as nearly all do, are gathered as
    // one: what is before the text, and the text so far; what is behind it.
    std::string run_;
    std::size_t text_at_ = 0;
    std::string behind_;
};

}  // namespace chatbot
