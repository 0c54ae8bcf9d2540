#pragma once

#include <curl/curl.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/exchange.hpp"
#include "core/poller.hpp"
#include "openai/protocol.hpp"
#include "openai/stream.hpp"

namespace chatbot {

struct EasyDeleter {
    void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct ListDeleter {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
};

using Easy = std::unique_ptr<CURL, EasyDeleter>;
using List = std::unique_ptr<curl_slist, ListDeleter>;

// One of libcurl's handles, and the header lines that it sends.
struct Handle {
    List headers;
    Easy easy;
};

// One HTTP exchange with an OpenAI-compatible API: what is sent, what has been
// received, and what that means.  What comes next is decided elsewhere.
//
// Threads:    none of its own; the callbacks run where the transfer is moved.
// Ownership:  `settings` and `server` outlive it.  From prepare() on libcurl
//             points into it: it stays where it is, and outlives the transfer.
struct Attempt {
    // Why the rest of the reply is not read.
    enum class Stop { none, headers_too_large, body_too_large, bad_stream };

    // `made` comes from make_handle() with the same arguments.
    Attempt(Handle made, const ModelSettings& how, const ModelServer& where,
            Clock::time_point end, bool in_pieces, const ApiCall& call)
        : handle(std::move(made)),
          settings(how),
          server(where),
          deadline(end),
          stream(in_pieces),
          api(call),
          path(call.path)
    {
    }

    Attempt(const Attempt&) = delete;
    Attempt& operator=(const Attempt&) = delete;

    Handle handle;
    const ModelSettings& settings;
    const ModelServer& server;
    const Clock::time_point deadline;
    const bool stream;  // a stream is asked for
    const bool api;     // the reply is wanted as it comes
    const ApiPath path;

    // Set before prepare(), if at all.
    std::shared_ptr<curl_slist> resolved;  // the host's addresses
    std::function<void()> on_progress;     // called when something has come

    // Written by prepare(), then read by libcurl.
    std::string body;

    // Written by libcurl and the callbacks.
    char error[CURL_ERROR_SIZE] = "";
    // Since when a connection is made; empty while it waits for another's.
    std::optional<Clock::time_point> connecting;
    Clock::time_point last_byte;  // up to [DONE]; or the request's, if sent
    // Of the text of a stream, or of the body of a reply in one piece.
    std::optional<Clock::time_point> first_byte;
    bool sent = false;        // at least begun: it may cost money from now on
    bool sent_again = false;  // by libcurl, whose connection was closed
    Stop stop = Stop::none;
    std::size_t header_size = 0;
    bool http1 = false;         // the reply is one of HTTP/1
    std::size_t body_size = 0;  // not of a stream
    ReplyForm form = ReplyForm::unknown;
    std::string reply;                   // an error, or a whole answer
    std::optional<StreamReader> reader;  // instead of `reply`, for a stream
};

// A handle with the options that all calls of a kind share.  Throws
// std::bad_alloc.
[[nodiscard]] Handle make_handle(const ModelSettings& settings,
                                 const ModelServer& server, ApiPath path,
                                 bool stream, CURLSH* share);

// Sets all other options but CURLOPT_PRIVATE, for a request with this body.
// `share_connection`: by HTTP/2, if the server may speak that.  Throws
// std::bad_alloc.
void prepare(Attempt& attempt, std::string body, bool share_connection);

// From here on the handle does not point into the attempt.
void detach(Attempt& attempt) noexcept;

// When to give it up, if nothing comes until then.
[[nodiscard]] Clock::time_point expiry(const Attempt& attempt);

// Whether the answer's end was seen; what follows means nothing.
[[nodiscard]] bool is_done(const Attempt& attempt);

[[nodiscard]] bool is_success(long status);
[[nodiscard]] long status_of(const Attempt& attempt);

// A header of the reply, or null.
[[nodiscard]] const char* header(const Attempt& attempt, const char* name);

}  // namespace chatbot
