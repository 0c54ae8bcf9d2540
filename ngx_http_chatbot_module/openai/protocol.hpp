#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/exchange.hpp"
#include "openai/error.hpp"

namespace chatbot {

// The protocol of OpenAI's chat completions, without any I/O: the body of a
// request out, replies in.  Streams are read by stream.hpp, errors by
// error.hpp. (https://platform.openai.com/docs/api-reference/chat)
//
// Threads:  nothing is shared; use each object in one thread at a time.

// The body of POST /chat/completions.  With `stream`, usage is asked for too.
// Members of the names `left_out` are left out of it: see knowledge.hpp.  `url`
// is the server's, if it is another than that of the settings.  `identifier` is
// the value of "safety_identifier", unless a param sets that; empty: none.
[[nodiscard]] std::string request_body(
    const ModelSettings& settings, std::string_view model,
    const std::vector<Message>& history, std::string_view question, bool stream,
    const std::vector<std::string>& left_out = {}, std::string_view url = {},
    std::string_view identifier = {});

// Tells this client from others without saying who it is: only the owner of the
// server's key can find out.  Empty if none is to be sent.
[[nodiscard]] std::string safety_identifier(const ModelSettings& settings,
                                            const ModelServer& server,
                                            std::string_view client);

// The value of a chatbot_param as JSON text, `text` as it is written if it is
// JSON, else as a string.  Nothing if it is neither: meant to be JSON (a number
// such as 01, an object, an array, a quoted string), but wrong.
[[nodiscard]] std::optional<std::string> param_value(std::string_view text);

// What an answer, or an event of it, is that is too large: for the error log.
[[nodiscard]] std::string larger_than(std::size_t answer_max_size);

// How the body of a reply of status 2xx is to be read.
enum class ReplyForm { unknown, whole, stream };

// Tells it by how the body starts, or else by its type (may be null);
// `unknown` while it can be either.
[[nodiscard]] ReplyForm form_of(std::string_view start, const char* type);

// The JSON of a reply of status 2xx that has choices; null if it is none, and
// `error` is set as read_reply() does.
[[nodiscard]] Json parse_reply(std::string_view body, ReplyError& error,
                               std::string_view request);
[[nodiscard]] Json check_reply(Json json, ReplyError& error,
                               std::string_view request);

// What a reply of status 2xx says, if it is no stream.  On failure `error` is
// set; its status is 0 if the service did not tell of an error itself.  A
// refusal is an answer, but not a complete one.  `request` as in read_error().
[[nodiscard]] std::optional<Answer> read_reply(std::string_view body,
                                               ReplyError& error,
                                               std::string_view request = {});

// How an answer came to its end.
struct Ending {
    std::string_view finish_reason;  // as the service says; empty: not at all
    bool refused = false;
    bool unsure = false;  // something in the reply was not understood
};

// `answer` has all its text, from a reply that was not cut off: whether it is
// an answer, and a complete one.
[[nodiscard]] std::optional<Answer> conclude(Answer answer,
                                             const Ending& ending,
                                             ReplyError& error);

// Whether an answer with this finish_reason is all that the model had to say. A
// service that says nothing of the end has come to it, as the reply is whole.
[[nodiscard]] bool is_natural_end(std::string_view finish_reason);

// Whether the meaning of this finish_reason is known.  (If not, the error log
// says once that such answers are not cached.)
[[nodiscard]] bool is_known_end(std::string_view finish_reason);

}  // namespace chatbot
