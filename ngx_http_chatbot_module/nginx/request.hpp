#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/answer_names.hpp"
#include "core/conductor.hpp"
#include "nginx/chatbot.hpp"
#include "nginx/endpoint.hpp"
#include "nginx/stream.hpp"
#include "nginx/task.hpp"

namespace chatbot {

// One request in a chatbot location: what became of it.  Lives in its pool.
//
// Threads:  event loop only.
class Request final : public Waiter {
public:
    explicit Request(ngx_http_request_t* r)
        : r_(r)
    {
    }
    ~Request();

    void on_text() override;
    void on_answer(const SharedReply& reply, CacheStatus status) override;

    // Looks the question up and asks it, or fails at once; in each case the
    // request is finalized later or in here, not by the caller.
    void start(std::string_view body);

    // Sends more of a stream, as far as the client takes it.
    void flow();

    // Finalizes the request; problem_filter makes the response.
    void fail(Problem problem);

    std::string query;  // the question, once it is found
    Problem problem;
    bool asked = false;
    bool answered = false;  // by an answer of ours, not by a problem
    bool hit = false;
    int ttl_s = 0;
    CacheUse cache_use = CacheUse::usual;
    CacheStatus cache_status = CacheStatus::none;
    std::string model;
    std::int32_t prompt_tokens = -1;
    std::int32_t completion_tokens = -1;
    std::int32_t cached_tokens = -1;
    std::int32_t reasoning_tokens = -1;
    CallReport call;
    std::string client_name;              // as $chatbot_user
    ngx_chain_t* problem_body = nullptr;  // to be sent instead of nginx's

private:
    // The client left, and a post_action has the request now.
    [[nodiscard]] bool is_left() const;
    [[nodiscard]] Problem read(std::string_view body, Wanted& wanted,
                               std::optional<Key>& key);
    void answer_at_once(const Wanted& wanted);
    [[nodiscard]] Record record() const;
    [[nodiscard]] std::string_view text();
    void notice_leaving();
    void begin_stream(const Wanted& wanted);
    void take(const Reply& reply, CacheStatus status);
    void end_stream(const SharedReply& reply);
    void name_answer(const Answer& answer);
    void on_heartbeat();
    void finalize_stream();
    void log_reason(const Problem& wrong) const;
    [[nodiscard]] ngx_int_t send(ngx_uint_t status, std::string_view json);

    ngx_http_request_t* const r_;
    Seat* seat_ = nullptr;
    std::unique_ptr<Stream> stream_;    // null: the answer is sent whole
    std::unique_ptr<Event> heartbeat_;  // of a stream of events
    ngx_msec_t sent_ms_ = 0;            // when the stream last moved
    SharedReply reply_;                 // of a stream, once it is there
};

// The context of a request; null if it has none.
[[nodiscard]] inline Request* context_of(ngx_http_request_t* r)
{
    return static_cast<Request*>(
        ngx_http_get_module_ctx(r, ngx_http_chatbot_module));
}

// The same, also after an internal redirect.
[[nodiscard]] Request* find_request(ngx_http_request_t* r);

// The context, made if need be; null if there is no memory.
[[nodiscard]] Request* make_request(ngx_http_request_t* r);

// The id of the request's next record: $request_id, with "-2" and so on if the
// request has asked before, by an error_page that leads to another chatbot, or
// by subrequests.
[[nodiscard]] std::string record_id(ngx_http_request_t* r);

// Why the body of a POST is refused: by its headers before it is read, by its
// size after that (body.cpp).
[[nodiscard]] Problem check_body(ngx_http_request_t* r);

// The whole body of a request, which nginx may have put into a file.
[[nodiscard]] ngx_int_t read_body(ngx_http_request_t* r, std::string& body);

// When the request arrived, in milliseconds since the epoch.
[[nodiscard]] inline std::int64_t arrival_ms(const ngx_http_request_t* r)
{
    return static_cast<std::int64_t>(r->start_sec) * 1000 + r->start_msec;
}

// To the conductor of this worker process (worker.cpp).
Seat* ask(Waiter& waiter, const Route& route, std::optional<Key> key,
          Record&& record, AskOptions&& options);
void leave(Seat* seat);

[[nodiscard]] AnswerNames& answer_names();

}  // namespace chatbot
