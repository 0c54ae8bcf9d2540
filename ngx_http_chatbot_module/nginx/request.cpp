#include "nginx/request.hpp"

#include <exception>
#include <optional>
#include <utility>

#include "nginx/endpoint.hpp"
#include "nginx/output.hpp"
#include "text/digest.hpp"
#include "text/invariant.hpp"

// The life of a request: its question in, its answer out, its abort.

namespace chatbot {

namespace {

void on_body(ngx_http_request_t* r) noexcept
try {
    std::string body;
    auto request = make_request(r);
    auto wrong = check_body(r);  // of a chunked one the size is known now
    if (!request ||
        (r->method & NGX_HTTP_POST && !wrong && read_body(r, body) != NGX_OK)) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    if (wrong) {
        request->fail(std::move(wrong));
        return;
    }
    request->start(body);
} catch (const std::exception&) {
    ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
}

// For what is refused before the body is read: fail() would finalize too early.
ngx_int_t refuse(ngx_http_request_t* r, Problem problem)
{
    auto request = make_request(r);
    if (!request) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    auto status = problem.status;
    request->problem = std::move(problem);
    return status;
}

}  // namespace

ngx_int_t content_handler(ngx_http_request_t* r) noexcept
try {
    if (auto status = endpoint_of(*loc_conf(r)).refuse(r)) {
        return static_cast<ngx_int_t>(status);
    }

    if (auto wrong = check_body(r)) {
        return refuse(r, std::move(wrong));
    }

    // The body of a GET is read, too: nginx would cut off a client whose body
    // it discards and that waits for its answer.
    auto rc = ngx_http_read_client_request_body(r, on_body);
    return rc >= NGX_HTTP_SPECIAL_RESPONSE ? rc : NGX_DONE;
} catch (const std::exception&) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
}

Request::~Request()
{
    if (seat_) {
        leave(seat_);
    }
}

// Finds out what is asked for: by the endpoint, but for the key, of which a
// part may be the question itself.
Problem Request::read(std::string_view body, Wanted& wanted,
                      std::optional<Key>& key)
{
    const auto& endpoint = endpoint_of(*loc_conf(r_));
    if (auto wrong = endpoint.read(r_, body, wanted)) {
        return wrong;
    }

    query = wanted.text;
    client_name = wanted.client_name;
    const auto& lcf = *loc_conf(r_);
    if (lcf.cache_control) {
        cache_use = read_cache_control(find_header(r_, "cache-control"));
    }
    key = endpoint.key(lcf, wanted);
    if (!key || !lcf.cache_key) {
        return {};
    }

    std::string text;
    auto wrong = evaluate(r_, lcf.cache_key, text);
    key = text.empty() ? std::nullopt : std::optional(digest({text}));
    return wrong;
}

void Request::start(std::string_view body)
{
    Wanted wanted;
    std::optional<Key> key;
    if (auto wrong = read(body, wanted, key)) {
        fail(std::move(wrong));
        return;
    }
    if (wanted.status != 0) {
        answer_at_once(wanted);
        return;
    }

    auto log = r_->connection->log;
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, log, 0,
                   "chatbot question: %uz bytes, %uz messages before",
                   query.size(), wanted.history.size());
    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, log, 0, "chatbot key: %s",
                   key ? hex(*key).c_str() : "none");
    notice_leaving();
    if (wanted.form != AnswerForm::json && r_ == r_->main) {
        begin_stream(wanted);
    }
    seat_ = ask(*this, *loc_conf(r_)->route, key, record(),
                {.stream = stream_ != nullptr,
                 .cache = cache_use,
                 .history = std::move(wanted.history),
                 .client = std::move(wanted.client),
                 .api = std::move(wanted.api)});
    asked = true;
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, log, 0, "chatbot flight %uL: %s",
                   Conductor::flight(seat_),
                   to_string(Conductor::status(seat_)));
}

// Answers what no model need be asked.
void Request::answer_at_once(const Wanted& wanted)
{
    if (wanted.body.empty()) {
        ngx_http_finalize_request(r_, static_cast<ngx_int_t>(wanted.status));
        return;
    }
    answered = true;
    ngx_http_finalize_request(r_, send(wanted.status, wanted.body));
}

// The client's FIN may have come with its request: then no event follows.
void Request::notice_leaving()
{
    r_->read_event_handler = ngx_http_test_reading;
    if (r_->connection->read->ready) {
        ngx_post_event(r_->connection->read, &ngx_posted_events);
    }
}

void Request::begin_stream(const Wanted& wanted)
{
    stream_ = std::make_unique<Stream>(r_, *this, wanted.form,
                                       find_header(r_, "last-event-id"));
    if (wanted.include_usage) {
        stream_->include_usage();
    }
    if (wanted.form != AnswerForm::text) {
        sent_ms_ = ngx_current_msec;
        heartbeat_ = std::make_unique<Event>([this] { on_heartbeat(); });
        heartbeat_->hold_worker(false);
        heartbeat_->set_timer(loc_conf(r_)->heartbeat);
    }
}

Record Request::record() const
{
    Record record;
    record.ip_address = view(r_->connection->addr_text);
    record.request_text = query;
    record.timestamp_ms = arrival_ms(r_);
    record.request_id = record_id(r_);
    record.client_name = client_name;
    return record;
}

void Request::log_reason(const Problem& wrong) const
{
    if (!wrong.reason.empty()) {
        const auto id = request_id(r_);
        ngx_log_error(NGX_LOG_ERR, r_->connection->log, 0,
                      "chatbot: %s, request_id: %*s", wrong.reason.c_str(),
                      id.size(), id.data());
    }
}

void Request::fail(Problem wrong)
{
    heartbeat_.reset();  // an error_page has the request now
    log_reason(wrong);
    problem = std::move(wrong);
    ngx_http_finalize_request(r_, problem.status);
}

bool Request::is_left() const
{
    return context_of(r_) != this;
}

void Request::on_text()
{
    if (is_left()) {
        return;
    }

    auto c = r_->connection;
    ngx_http_set_log_request(c->log, r_);

    cache_status = Conductor::status(seat_);
    if (stream_->name().empty()) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                       "chatbot first piece of flight %uL",
                       Conductor::flight(seat_));
        stream_->set_name(answer_names().of(Conductor::flight(seat_)));
    }
    flow();

    // `this` may be gone.
    ngx_http_run_posted_requests(c);
}

void Request::on_answer(const SharedReply& shared, CacheStatus status)
{
    const auto& reply = *shared;
    if (!invariant(seat_, "a request is answered that does not wait")) {
        return;
    }
    seat_ = nullptr;

    if (is_left()) {
        return;
    }

    auto c = r_->connection;
    ngx_http_set_log_request(c->log, r_);
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "chatbot answer: %s, problem %d", to_string(status),
                   reply.problem.status);
    take(reply, status);

    if (reply.problem && !(stream_ && stream_->started())) {
        fail(reply.problem);
    } else if (stream_) {
        end_stream(shared);
    } else {
        std::string made;
        ngx_http_finalize_request(
            r_,
            send(NGX_HTTP_OK,
                 endpoint_of(*loc_conf(r_)).body_of(reply.answer, hit, made)));
    }

    // `this` may be gone.
    ngx_http_run_posted_requests(c);
}

// Keeps what the variables tell.
void Request::take(const Reply& reply, CacheStatus status)
{
    hit = reply.hit;
    ttl_s = reply.ttl_s;
    call = reply.call;
    cache_status = status;
    answered = !reply.problem || (stream_ && stream_->started());
    if (!reply.problem) {
        model = reply.answer.model;
        prompt_tokens = reply.answer.prompt_tokens;
        completion_tokens = reply.answer.completion_tokens;
        cached_tokens = reply.answer.cached_tokens;
        reasoning_tokens = reply.answer.reasoning_tokens;
    }
}

void Request::end_stream(const SharedReply& shared)
{
    reply_ = shared;
    const auto& reply = *shared;
    if (reply.problem) {
        log_reason(reply.problem);
        stream_->end_problem(
            endpoint_of(*loc_conf(r_))
                .write_error(static_cast<ngx_uint_t>(reply.problem.status),
                             reply.problem));
    } else {
        if (stream_->form() == AnswerForm::events) {
            name_answer(reply.answer);
        }
        stream_->end_answer(hit);
    }
    flow();
}

// A whole answer goes by a name of its own, which is the same in all workers. A
// client that knows it by the name of its flight goes on with that.
void Request::name_answer(const Answer& answer)
{
    auto name = AnswerNames::of(answer);
    if (!stream_->name().empty()) {
        answer_names().remember(stream_->name(), name);
        return;
    }

    const auto& wanted = stream_->wanted();
    stream_->set_name(answer_names().means(wanted, name) ? wanted : name);
}

void Request::flow()
{
    sent_ms_ = ngx_current_msec;
    if (!stream_->flow(text())) {
        finalize_stream();
    }
}

// What the stream has to send, by now.  Of a failure it is what came before.
std::string_view Request::text()
{
    if (seat_) {
        return Conductor::text(seat_);
    }
    return reply_ ? endpoint_of(*loc_conf(r_)).stream_of(reply_->answer)
                  : std::string_view();
}

void Request::on_heartbeat()
{
    if (is_left()) {
        return;
    }

    auto interval = loc_conf(r_)->heartbeat;
    auto silent_ms = ngx_current_msec - sent_ms_;
    if (silent_ms < interval) {
        heartbeat_->set_timer(interval - silent_ms);
        return;
    }

    auto c = r_->connection;
    ngx_http_set_log_request(c->log, r_);
    if (seat_) {
        cache_status = Conductor::status(seat_);
    }
    sent_ms_ = ngx_current_msec;
    heartbeat_->set_timer(interval);
    if (!stream_->send_heartbeat()) {
        finalize_stream();
    }
    ngx_http_run_posted_requests(c);
}

void Request::finalize_stream()
{
    if (heartbeat_) {
        heartbeat_->cancel_timer();
    }
    ngx_http_finalize_request(r_, stream_->rc());
}

ngx_int_t Request::send(ngx_uint_t status, std::string_view json)
{
    auto body = make_body(r_, "application/json", json);
    if (!body || add_headers(r_, *this) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r_->disable_not_modified = 1;  // no If-Match makes a 412 of an answer
    return send_response(r_, status, body);
}

}  // namespace chatbot
