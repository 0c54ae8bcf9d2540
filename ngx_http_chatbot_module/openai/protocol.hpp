#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/exchange.hpp"

namespace chatbot {

// The protocol of OpenAI's chat completions, without any I/O: the body of a
// request out; replies, errors and server-sent events in.
// (https://platform.openai.com/docs/api-reference/chat)
//
// Threads:  nothing is shared; use each object in one thread at a time.

// The body of POST /chat/completions.  With `stream`, usage is asked for too.
[[nodiscard]] std::string request_body(const ModelSettings& settings,
                                       std::string_view model,
                                       std::string_view question, bool stream);

// The value of a chatbot_param as JSON text: `text` itself if it is JSON, else
// as a string.
[[nodiscard]] std::string param_value(std::string_view text);

// What a reply of status 2xx says.  On failure `problem` is set (502), with a
// reason for the error log.  A refusal is an answer, but not a complete one.
[[nodiscard]] std::optional<Answer> read_reply(std::string_view body,
                                               Problem& problem);

// What an error reply means for the caller.
struct ReplyError {
    bool model_missing = false;  // ask another model
    bool money = false;          // quota or billing: asking again cannot help
    std::string reason;  // for the error log: the upstream's code and message,
                         // or how its body starts if it has none; may be empty;
                         // one line of at most 500 bytes, without what looks
                         // like an OpenAI key
};

[[nodiscard]] ReplyError read_error(int status, std::string_view body);

// Reads a streamed reply: feed bytes as they come, cut anywhere.
// (https://html.spec.whatwg.org/multipage/server-sent-events.html)
//
// Memory:   bounded by some times max_size, whatever the length of the stream.
class StreamReader {
public:
    // `max_size` bounds the answer's text, in bytes.
    explicit StreamReader(std::size_t max_size)
        : max_size_(max_size)
    {
    }

    // Returns false once the stream is not worth reading on: broken, an error
    // event, or larger than max_size; then finish() says why.
    [[nodiscard]] bool feed(std::string_view bytes);

    // What can be handed on by now: all text but leading white space, and white
    // space that may turn out to be the answer's end.  It only grows.
    [[nodiscard]] const std::string& text() const { return answer_.text; }

    // Whether the model has finished, so that finish() tells what it said, even
    // if the reply is broken off now.
    [[nodiscard]] bool whole() const
    {
        return done_ || !finish_reason_.empty();
    }

    // Whether [DONE] was seen: what follows means nothing.
    [[nodiscard]] bool done() const { return done_; }

    // To be called once, when the reply has ended or feed() returned false.  A
    // stream that ended before the model did is a failure.
    [[nodiscard]] std::optional<Answer> finish(Problem& problem);

private:
    void take_line();
    void take_event();
    void take_text(std::string_view text);

    const std::size_t max_size_;
    std::string line_;       // the one not yet ended
    bool after_cr_ = false;  // a "\n" would belong to the line before
    std::string data_;       // of the event not yet ended
    Answer answer_;          // its text is what was handed on
    std::string blank_;      // white space held back
    std::string finish_reason_;
    bool refused_ = false;
    bool done_ = false;  // [DONE] was seen
    Problem problem_;
};

}  // namespace chatbot
