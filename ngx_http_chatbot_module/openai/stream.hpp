#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"
#include "openai/chunk.hpp"
#include "openai/error.hpp"
#include "openai/join.hpp"

namespace chatbot {

// Reads a streamed reply: feed bytes as they come, cut anywhere.
// (https://html.spec.whatwg.org/multipage/server-sent-events.html)
//
// What is no JSON, such as a ping in words, is skipped; what looks like a piece
// of the answer and cannot be read is an error.
//
// Threads:  nothing is shared; use each object in one thread at a time.
// Memory:   bounded by some times max_size, whatever the length of the stream.
class StreamReader {
public:
    // `max_size` bounds the answer's text, in bytes.  `request` is the body
    // that was sent, see read_error(), and outlives the reader.
    // With `keep` all events are kept, too: see events().  With `relay` the
    // stream is one of /responses, and its events are kept as they are.
    explicit StreamReader(std::size_t max_size, std::string_view request = {},
                          bool keep = false, bool relay = false)
        : max_size_(max_size),
          request_(request),
          keep_(keep),
          relay_(relay)
    {
    }

    // Returns false once the stream is not worth reading on: broken, an error
    // event, or larger than max_size; then finish() says why.
    [[nodiscard]] bool feed(std::string_view bytes);

    // What can be handed on: all text but white space that may turn out to be
    // the answer's end (and leading white space).  It only grows.
    [[nodiscard]] const std::string& text() const { return answer_.text; }

    // Whether something of the answer has come.
    [[nodiscard]] bool begun() const
    {
        return !answer_.text.empty() || (relay_ && !events_.empty());
    }

    // The events by now, see events.hpp.
    [[nodiscard]] const std::string& events() const { return events_; }

    // To be called when the reply has ended or is broken off, and feed() has
    // not returned false: reads the last event as far as it came.
    void take_rest();

    // Whether the model has finished, so that finish() tells what it said, even
    // if the reply is broken off now.  Some services name a finish_reason in
    // each event: if more follows one, only the end of the reply tells.
    [[nodiscard]] bool whole() const
    {
        return done_ || (!finish_reason_.empty() && !goes_on_);
    }

    // Whether [DONE] was seen: what follows means nothing.
    [[nodiscard]] bool done() const { return done_; }

    // To be called once, when the reply has ended or feed() returned false.  A
    // stream that ended before the model did is a failure.
    [[nodiscard]] std::optional<Answer> finish(ReplyError& error);

    // The same where events are kept: the answer has all the stream said.
    [[nodiscard]] std::optional<Answer> finish_api(ReplyError& error);

private:
    [[nodiscard]] bool end(ReplyError& error);

    void take_line(std::string_view line);
    void take_bare(std::string_view line);
    void take_event();
    void take_data(std::string_view data);
    [[nodiscard]] bool take_lines(std::string_view data);
    [[nodiscard]] bool take_tree(std::string_view data);
    [[nodiscard]] std::string rest_of_message(const std::string& message) const;
    void keep_event(std::string_view data);
    void bound_events();
    void take_relayed(const std::string& name, std::string_view data);
    void take_chunk();
    void join_halves();
    void take_text(std::string_view text);
    void fail(ReplyError error);
    void fail(std::string reason);

    const std::size_t max_size_;
    const std::string_view request_;
    const bool keep_;
    const bool relay_;
    std::string event_name_;  // of the event not yet ended
    std::string response_;    // of the last event of /responses
    std::string events_;
    ReplyJoiner joiner_;      // of the events, unless they are relayed
    std::string line_;        // the one not yet ended
    bool first_line_ = true;  // a byte order mark may stand in front
    bool after_cr_ = false;   // a "\n" would belong to the line before
    std::string data_;        // of the event not yet ended
    Chunk chunk_;             // of the event, used again for the next one
    Answer answer_;           // its text is what was handed on
    std::string blank_;       // white space held back
    std::string half_;        // of a character, behind it: see Chunk::high
    std::string finish_reason_;
    bool goes_on_ = false;  // something followed a finish_reason
    std::string skipped_;   // for the log: what was no JSON
    bool refused_ = false;
    bool unsure_ = false;  // an event was skipped that may have meant something
    bool done_ = false;    // [DONE] was seen
    bool failed_ = false;
    ReplyError error_;  // if it has failed
};

}  // namespace chatbot
