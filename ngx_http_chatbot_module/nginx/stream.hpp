#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/query.hpp"
#include "nginx/chatbot.hpp"

namespace chatbot {

class Request;

// An answer that is sent to one client while it is written: as events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html) or as text.
//
// Text is pulled: the stream keeps an offset, and takes what is behind it when
// the client is ready to read.  So a slow client costs no copy of the answer,
// and delays no other client.
//
// Threads:  event loop only.
// Memory:   one buffer of some max_buffer bytes, and the last event.
class Stream {
public:
    // `last_event_id` is what the client got last, of an earlier request.
    Stream(ngx_http_request_t* r, const Request& request, AnswerForm form,
           std::string_view last_event_id);

    ~Stream();

    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    [[nodiscard]] AnswerForm form() const { return form_; }

    // The name of the answer, by which a client that was cut off goes on.
    void set_name(std::string name) { name_ = std::move(name); }
    [[nodiscard]] const std::string& name() const { return name_; }

    // The name that the client asks to go on with; empty if there is none.
    [[nodiscard]] const std::string& wanted() const { return wanted_; }

    // Whether headers were sent, so that the status cannot change any more.
    [[nodiscard]] bool started() const { return started_; }

    // No more text will come.
    void end_answer(bool hit);
    void end_problem(std::string json);

    // Of `chunks`: the event of the usage is wanted, too.
    void include_usage() { include_usage_ = true; }

    // Sends what there is of `text`, the answer so far, as far as the client
    // takes it.  Returns false when the request is to be finalized with rc().
    [[nodiscard]] bool flow(std::string_view text);

    // Nothing was sent for a while: shows that the request lives.  Returns as
    // flow() does.
    [[nodiscard]] bool send_heartbeat();

    [[nodiscard]] ngx_int_t rc() const { return rc_; }

    static constexpr std::size_t max_buffer = 16 * 1024;

private:
    enum class Ending { none, answer, problem };

    [[nodiscard]] bool start();
    [[nodiscard]] bool push();
    [[nodiscard]] bool wait_for_client();
    void stop_waiting();
    [[nodiscard]] bool finalize_with(ngx_int_t rc);
    [[nodiscard]] bool blocked() const { return buf_.pos != buf_.last; }
    void compose(std::string_view text);
    void compose_text(std::string_view text);
    void compose_chunks(std::string_view events);
    void compose_relayed(std::string_view events);
    void compose_events(std::string_view text);
    void compose_event(const std::string& id, const char* event,
                       std::string_view data);
    void find_offset(std::string_view text);

    ngx_http_request_t* const r_;
    const Request& request_;
    const AnswerForm form_;
    std::string name_;
    std::string wanted_;
    std::size_t wanted_offset_ = 0;

    bool include_usage_ = false;
    bool started_ = false;
    bool placed_ = false;   // the offset is where the client wants to go on
    bool greeted_ = false;  // "retry" is sent
    std::size_t offset_ = 0;

    Ending ending_ = Ending::none;
    bool hit_ = false;
    std::string problem_;
    bool composed_end_ = false;
    ngx_int_t rc_ = NGX_OK;

    std::string out_;  // what buf_ points to
    ngx_buf_t buf_{};
    ngx_chain_t chain_{};
};

// The name and offset of a Last-Event-ID; false if it is none of ours.
[[nodiscard]] bool read_event_id(std::string_view id, std::string& name,
                                 std::size_t& offset);

// Whether the client has got the answer to its end.
[[nodiscard]] bool is_done_id(std::string_view id);

}  // namespace chatbot
