#include "nginx/stream.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "nginx/metrics.hpp"
#include "nginx/output.hpp"
#include "nginx/request.hpp"
#include "openai/events.hpp"
#include "openai/responses.hpp"
#include "text/json.hpp"
#include "text/unicode.hpp"

namespace chatbot {

namespace {

constexpr std::string_view done_suffix = ".done";
constexpr int retry_ms = 3000;  // when a browser's EventSource comes back

// An answer that is there as a whole is sent in pieces of this size.
constexpr std::size_t max_piece = 256;

// So many buffers are sent before other requests get their turn.
constexpr int buffers_at_once = 16;

bool is_inside_character(char byte)
{
    return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// The front of `text`, cut behind a word, or else behind a character.
std::string_view next_piece(std::string_view text)
{
    if (text.size() <= max_piece) {
        return text;
    }

    auto piece = text.substr(0, max_piece);
    auto space = piece.find_last_of(" \n");
    if (space != piece.npos) {
        return piece.substr(0, space + 1);
    }
    while (is_inside_character(text[piece.size()])) {
        piece.remove_suffix(1);
    }
    return piece;
}

// The front of what starts in an event (openai/events.hpp): to its end, if that
// is near.
std::string_view front_of_event(std::string_view events)
{
    auto front = events.substr(0, Stream::max_buffer);
    const auto end = front.find(event_end);
    if (end != front.npos) {
        return front.substr(0, end + event_end.size());
    }
    if (front.ends_with('\n')) {
        front.remove_suffix(1);  // half of the end
    }
    return front;
}

// Called by nginx when the client's socket takes more.
void on_writable(ngx_http_request_t* r) noexcept
{
    auto c = r->connection;
    if (c->write->timedout) {
        c->timedout = 1;
        ngx_http_finalize_request(r, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }
    context_of(r)->flow();
}

}  // namespace

bool read_event_id(std::string_view id, std::string& name, std::size_t& offset)
{
    auto dot = id.rfind('.');
    if (dot == id.npos) {
        return false;
    }

    auto digits = id.substr(dot + 1);
    const char* end = digits.data() + digits.size();
    auto [stop, error] = std::from_chars(digits.data(), end, offset);
    name = id.substr(0, dot);
    return stop == end && error == std::errc() && !name.empty();
}

bool is_done_id(std::string_view id)
{
    return id.ends_with(done_suffix);
}

Stream::Stream(ngx_http_request_t* r, const Request& request, AnswerForm form,
               std::string_view last_event_id)
    : r_(r),
      request_(request),
      form_(form)
{
    count_stream(1);
    chain_.buf = &buf_;
    if (form != AnswerForm::events ||
        !read_event_id(last_event_id, wanted_, wanted_offset_)) {
        wanted_.clear();
    }
}

Stream::~Stream()
{
    count_stream(-1);
}

void Stream::end_answer(bool hit)
{
    ending_ = Ending::answer;
    hit_ = hit;
}

void Stream::end_problem(std::string json)
{
    ending_ = Ending::problem;
    problem_ = std::move(json);
}

bool Stream::flow(std::string_view text)
{
    for (int i = 0; i < buffers_at_once; ++i) {
        if (blocked()) {
            auto rc = ngx_http_output_filter(r_, nullptr);
            if (rc == NGX_ERROR) {
                return finalize_with(rc);
            }
            if (blocked()) {
                return wait_for_client();
            }
        }

        compose(text);
        if (out_.empty() && !composed_end_) {
            stop_waiting();
            return true;
        }
        if (!push()) {
            return false;
        }
    }

    r_->write_event_handler = on_writable;
    ngx_post_event(r_->connection->write, &ngx_posted_next_events);
    return true;
}

bool Stream::send_heartbeat()
{
    if (blocked()) {
        return true;
    }

    out_ = std::exchange(greeted_, true) || form_ != AnswerForm::events
               ? ":\n\n"
               : "retry: " + std::to_string(retry_ms) + "\n:\n\n";
    return push();
}

// The next part of the answer, as far as it fits into the buffer.
void Stream::compose(std::string_view text)
{
    out_.clear();
    if (!placed_ && (!text.empty() || ending_ != Ending::none)) {
        placed_ = true;
        find_offset(text);
    }

    switch (form_) {
        case AnswerForm::text:
            compose_text(text);
            return;
        case AnswerForm::chunks:
            compose_chunks(text);
            return;
        case AnswerForm::relayed:
            compose_relayed(text);
            return;
        default:
            compose_events(text);
            return;
    }
}

// Where the client wants to go on, if this is the answer that it knows.
void Stream::find_offset(std::string_view text)
{
    if (wanted_.empty()) {
        return;
    }

    if (wanted_ == name_ && wanted_offset_ <= text.size() &&
        (wanted_offset_ == text.size() ||
         !is_inside_character(text[wanted_offset_]))) {
        offset_ = wanted_offset_;
        return;
    }
    out_ += "event: reset\ndata: {}\n\n";
}

void Stream::compose_text(std::string_view text)
{
    auto rest = text.substr(std::min(offset_, text.size()));
    auto size = rest.size() <= max_buffer ? rest.size() : max_buffer;
    while (size < rest.size() && is_inside_character(rest[size])) {
        --size;
    }
    out_ = rest.substr(0, size);
    offset_ += size;
    if (offset_ >= text.size() && ending_ != Ending::none) {
        composed_end_ = true;
    }
}

// OpenAI's events, as they came (openai/events.hpp).
void Stream::compose_chunks(std::string_view events)
{
    while (offset_ < events.size() && out_.size() < max_buffer) {
        const auto rest = events.substr(offset_);
        const bool starts =
            offset_ == 0 || events.substr(0, offset_).ends_with(event_end);
        if (starts && rest.starts_with(usage_mark)) {
            offset_ += include_usage_ ? usage_mark.size()
                                      : rest.find(event_end) + event_end.size();
            out_ += include_usage_ ? data_mark : "";
            continue;
        }

        const auto part = front_of_event(rest);
        out_ += part;
        offset_ += part.size();
    }
    if (offset_ < events.size() || ending_ == Ending::none) {
        return;
    }

    out_.append(data_mark)
        .append(ending_ == Ending::answer ? "[DONE]" : problem_)
        .append(event_end);
    composed_end_ = true;
}

// The upstream's events, whole ones, as they came.
void Stream::compose_relayed(std::string_view events)
{
    out_ = events.substr(std::min(offset_, events.size()), max_buffer);
    offset_ += out_.size();
    if (offset_ < events.size() || ending_ == Ending::none) {
        return;
    }

    if (ending_ == Ending::problem && !ends_in_failure(events)) {
        out_.append("event: error\ndata: {\"type\": \"error\", ")
            .append(problem_, 1)
            .append("\n\n");
    }
    composed_end_ = true;
}

void Stream::compose_events(std::string_view text)
{
    while (offset_ < text.size() && out_.size() < max_buffer) {
        auto piece = next_piece(text.substr(offset_));
        offset_ += piece.size();

        std::string data = "{\"text\": ";
        append_json(data, piece);
        data += '}';
        compose_event(name_ + "." + std::to_string(offset_), "delta", data);
    }
    if (offset_ < text.size()) {
        return;
    }

    if (ending_ == Ending::answer) {
        compose_event(name_ + std::string(done_suffix), "done",
                      answer_json(text, hit_));
    } else if (ending_ == Ending::problem) {
        compose_event("", "error", problem_);
    }
    composed_end_ = ending_ != Ending::none;
}

void Stream::compose_event(const std::string& id, const char* event,
                           std::string_view data)
{
    if (!std::exchange(greeted_, true)) {
        out_ += "retry: " + std::to_string(retry_ms) + "\n";
    }
    if (!id.empty()) {
        out_.append("id: ").append(id).append("\n");
    }
    out_.append("event: ")
        .append(event)
        .append("\ndata: ")
        .append(data)
        .append("\n\n");
}

// Sends what was composed.
bool Stream::push()
{
    if (!started_ && !start()) {
        return false;
    }

    // A text that is not whole must not look so: its connection is closed.
    auto broken = ending_ == Ending::problem && form_ == AnswerForm::text;
    auto last = composed_end_ && !broken;

    buf_ = {};
    buf_.pos = reinterpret_cast<u_char*>(out_.data());
    buf_.start = buf_.pos;
    buf_.last = buf_.pos + out_.size();
    buf_.end = buf_.last;
    buf_.memory = !out_.empty();
    buf_.flush = 1;
    buf_.last_buf = last;
    buf_.last_in_chain = last;
    buf_.tag = this;

    auto rc = ngx_http_output_filter(r_, &chain_);
    if (composed_end_ && broken) {
        return finalize_with(NGX_ERROR);
    }
    return rc == NGX_ERROR || composed_end_ ? finalize_with(rc) : true;
}

bool Stream::start()
{
    auto events = form_ != AnswerForm::text;
    if (set_content_type(r_, events ? "text/event-stream"
                                    : "text/plain; charset=utf-8") != NGX_OK ||
        add_header(r_, "Cache-Control", "no-cache, no-transform") != NGX_OK ||
        add_header(r_, "X-Accel-Buffering", "no") != NGX_OK ||
        add_headers(r_, request_) != NGX_OK) {
        return finalize_with(NGX_HTTP_INTERNAL_SERVER_ERROR);
    }

    // Nothing may gather what is sent piece by piece.
#if (NGX_HTTP_GZIP)
    r_->gzip_tested = 1;
    r_->gzip_ok = 0;
#endif
    if (!r_->stream && ngx_tcp_nodelay(r_->connection) != NGX_OK) {
        return finalize_with(NGX_ERROR);
    }

    started_ = true;
    r_->disable_not_modified = 1;
    r_->headers_out.status = NGX_HTTP_OK;
    ngx_http_clear_content_length(r_);
    auto rc = ngx_http_send_header(r_);
    return rc == NGX_ERROR || rc > NGX_OK || r_->header_only ? finalize_with(rc)
                                                             : true;
}

bool Stream::wait_for_client()
{
    auto write = r_->connection->write;
    auto clcf = static_cast<ngx_http_core_loc_conf_t*>(
        ngx_http_get_module_loc_conf(r_, ngx_http_core_module));

    r_->write_event_handler = on_writable;
    if (!write->delayed) {
        ngx_add_timer(write, clcf->send_timeout);
    }
    return ngx_handle_write_event(write, clcf->send_lowat) == NGX_OK
               ? true
               : finalize_with(NGX_ERROR);
}

void Stream::stop_waiting()
{
    auto write = r_->connection->write;
    r_->write_event_handler = ngx_http_request_empty_handler;
    if (write->timer_set && !write->delayed) {
        ngx_del_timer(write);
    }
}

bool Stream::finalize_with(ngx_int_t rc)
{
    rc_ = rc;
    return false;
}

}  // namespace chatbot
