#include "nginx/request.hpp"

#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "text/digest.hpp"
#include "text/form.hpp"
#include "text/unicode.hpp"
#include "core/query.hpp"
#include "nginx/api.hpp"
#include "nginx/output.hpp"
#include "openai/events.hpp"

// The life of a request: its question in, its answer out, its abort.

namespace chatbot {

namespace {

void destroy(void* data)
{
    static_cast<Request*>(data)->~Request();
}

// How many questions one request of a client has asked so far: more than one
// by an error_page that leads to another chatbot, or by subrequests.
int questions_before(const ngx_http_request_t* r)
{
    int n = 0;
    for (auto c = r->pool->cleanup; c; c = c->next) {
        n += c->handler == destroy && static_cast<Request*>(c->data)->asked;
    }
    return n;
}

// The whole body of a request, which nginx may have put into a file.
ngx_int_t read_body(ngx_http_request_t* r, std::string& body)
{
    auto in = r->request_body ? r->request_body->bufs : nullptr;

    for (; in; in = in->next) {
        auto buf = in->buf;
        if (!buf->in_file) {
            body.append(reinterpret_cast<char*>(buf->pos),
                        static_cast<std::size_t>(buf->last - buf->pos));
            continue;
        }

        auto size = static_cast<std::size_t>(buf->file_last - buf->file_pos);
        auto old = body.size();
        body.resize(old + size);
        auto n = ngx_read_file(buf->file,
                               reinterpret_cast<u_char*>(body.data() + old),
                               size, buf->file_pos);
        if (n != static_cast<ssize_t>(size)) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}

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

// What is refused before anything is read; 0: nothing.
ngx_int_t refused_status(ngx_http_request_t* r)
{
    auto lcf = loc_conf(r);
    if (lcf->protocol == protocol_chat) {
        return r->method & (NGX_HTTP_GET | NGX_HTTP_POST)
                   ? 0
                   : NGX_HTTP_NOT_ALLOWED;
    }

    auto path = api_path(r);
    if (path == ApiPath::none) {
        return NGX_HTTP_NOT_FOUND;
    }
    if (lcf->clients_file.data && api_client(r).empty()) {
        return NGX_HTTP_UNAUTHORIZED;
    }
    auto method = path == ApiPath::completions ? NGX_HTTP_POST : NGX_HTTP_GET;
    return r->method & method ? 0 : NGX_HTTP_NOT_ALLOWED;
}

}  // namespace

ngx_int_t handler(ngx_http_request_t* r) noexcept
try {
    if (auto status = refused_status(r)) {
        return status;
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

Request* find_request(ngx_http_request_t* r)
{
    auto request = context_of(r);
    if (request) {
        return request;
    }

    // An internal redirect forgets the contexts, the pool does not.
    for (auto cleanup = r->pool->cleanup; cleanup; cleanup = cleanup->next) {
        if (cleanup->handler == destroy) {
            return static_cast<Request*>(cleanup->data);
        }
    }
    return nullptr;
}

Request* make_request(ngx_http_request_t* r)
{
    auto context = context_of(r);
    if (context) {
        return context;
    }

    auto cleanup = ngx_pool_cleanup_add(r->pool, sizeof(Request));
    if (!cleanup) {
        return nullptr;
    }

    context = new (cleanup->data) Request(r);
    cleanup->handler = destroy;
    ngx_http_set_ctx(r, context, ngx_http_chatbot_module);
    return context;
}

Request::~Request()
{
    if (seat_) {
        leave(seat_);
    }
}

bool Request::is_api() const
{
    return loc_conf(r_)->protocol == protocol_openai;
}

void Request::start_api(std::string_view body)
{
    const auto& lcf = *loc_conf(r_);
    client_name = api_client(r_);
    if (api_path(r_) == ApiPath::models) {
        send_models();
        return;
    }

    ApiRequest request;
    if (auto wrong = read_api_question(lcf, body, request)) {
        fail(std::move(wrong));
        return;
    }

    query = std::move(request.question);
    std::optional<Key> key;
    if (!lcf.cache_key) {
        key = digest(
            {"openai", request.canonical, request.call.model, lcf.key_suffix});
    } else if (find_key({}, key) != NGX_OK) {
        ngx_http_finalize_request(r_, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    notice_leaving();
    if (request.stream && r_ == r_->main) {
        begin_stream(AnswerForm::chunks);
        if (request.include_usage) {
            stream_->include_usage();
        }
    }
    seat_ = ask(*this, *lcf.route, key, record(), {}, stream_ != nullptr, "",
                std::move(request.call));
    asked = true;
}

void Request::send_models()
{
    auto body = make_body(r_, "application/json", models_json(*loc_conf(r_)));
    if (!body || add_headers(r_, *this) != NGX_OK) {
        ngx_http_finalize_request(r_, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    answered = true;
    ngx_http_finalize_request(r_, send_response(r_, NGX_HTTP_OK, body));
}

void Request::start(std::string_view body)
{
    if (is_api()) {
        start_api(body);
        return;
    }

    Question question;
    AnswerForm form = AnswerForm::json;
    auto wrong = read_question(body, question);
    if (!wrong) {
        wrong = read_form(question, find_header(r_, "accept"), form);
    }
    if (wrong) {
        fail(std::move(wrong));
        return;
    }

    // A browser's EventSource asks again after every end; this stops it.
    if (form == AnswerForm::events &&
        is_done_id(find_header(r_, "last-event-id"))) {
        ngx_http_finalize_request(r_, NGX_HTTP_NO_CONTENT);
        return;
    }

    query = std::move(*question.text);
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r_->connection->log, 0,
                   "chatbot question: %uz bytes, %uz messages before",
                   query.size(), question.history.size());
    std::optional<Key> key;
    std::string client;
    if (find_key(question.history, key) != NGX_OK ||
        find_client(client) != NGX_OK) {
        ngx_http_finalize_request(r_, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r_->connection->log, 0,
                   "chatbot key: %s", key ? hex(*key).c_str() : "none");
    notice_leaving();
    if (form != AnswerForm::json && r_ == r_->main) {
        begin_stream(form);
    }
    seat_ =
        ask(*this, *loc_conf(r_)->route, key, record(),
            std::move(question.history), stream_ != nullptr, std::move(client));
    asked = true;
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r_->connection->log, 0,
                   "chatbot flight %uL: %s", Conductor::flight(seat_),
                   to_string(Conductor::status(seat_)));
}

// The client's FIN may have come with its request: then no event follows.
void Request::notice_leaving()
{
    r_->read_event_handler = ngx_http_test_reading;
    if (r_->connection->read->ready) {
        ngx_post_event(r_->connection->read, &ngx_posted_events);
    }
}

void Request::begin_stream(AnswerForm form)
{
    stream_ = std::make_unique<Stream>(r_, *this, form,
                                       find_header(r_, "last-event-id"));
    if (form != AnswerForm::text) {
        sent_ms_ = ngx_current_msec;
        heartbeat_.emplace([this] { on_heartbeat(); });
        heartbeat_->hold_worker(false);
        heartbeat_->set_timer(loc_conf(r_)->heartbeat);
    }
}

Problem Request::read_question(std::string_view body, Question& question)
{
    auto lcf = loc_conf(r_);
    question_from_form(view(r_->args), question);

    if (lcf->query) {
        ngx_str_t value;
        if (ngx_http_complex_value(r_, lcf->query, &value) != NGX_OK) {
            return {500, "The question cannot be read.", "", 0};
        }
        question.text = decode_form(view(value));

    } else if (r_->method & NGX_HTTP_POST) {
        auto type = r_->headers_in.content_type;
        auto wrong = question_from_body(
            type ? view(type->value) : std::string_view(), body, question);
        if (wrong) {
            return wrong;
        }
    }
    return check_question(question, question_limits(*lcf));
}

// Leaves `key` empty if the answer is neither looked up, kept nor shared.
ngx_int_t Request::find_key(const std::vector<Message>& history,
                            std::optional<Key>& key) const
{
    auto lcf = loc_conf(r_);
    if (!lcf->cache_key) {
        key = digest({fold(query), lcf->key_suffix});
        for (const auto& message : history) {
            key = digest({hex(*key), message.role, message.content});
        }
        return NGX_OK;
    }

    ngx_str_t value;
    if (ngx_http_complex_value(r_, lcf->cache_key, &value) != NGX_OK) {
        return NGX_ERROR;
    }
    if (value.len != 0) {
        key = digest({view(value)});
    }
    return NGX_OK;
}

// Whom the safety identifier stands for.
ngx_int_t Request::find_client(std::string& client) const
{
    auto lcf = loc_conf(r_);
    if (!lcf->safety_identifier) {
        client = client_of(r_);
        return NGX_OK;
    }

    ngx_str_t value;
    if (ngx_http_complex_value(r_, lcf->safety_identifier, &value) != NGX_OK) {
        return NGX_ERROR;
    }
    client = view(value);
    return NGX_OK;
}

Record Request::record() const
{
    Record record;
    record.ip_address = view(r_->connection->addr_text);
    record.request_text = query;
    record.timestamp_ms = arrival_ms(r_);
    record.request_id = request_id(r_);
    record.client_name = client_name;
    if (auto earlier = questions_before(r_)) {
        record.request_id += "-" + std::to_string(earlier + 1);
    }
    return record;
}

void Request::log_reason(const Problem& wrong) const
{
    if (!wrong.reason.empty()) {
        ngx_log_error(NGX_LOG_ERR, r_->connection->log, 0, "chatbot: %s",
                      wrong.reason.c_str());
    }
}

void Request::fail(Problem wrong)
{
    log_reason(wrong);
    problem = std::move(wrong);
    ngx_http_finalize_request(r_, problem.status);
}

void Request::on_text()
{
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

void Request::on_answer(const Reply& reply, CacheStatus status)
{
    seat_ = nullptr;

    // The client left, and a post_action has the request now.
    if (context_of(r_) != this) {
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
        end_stream(reply);
    } else {
        ngx_http_finalize_request(r_, send_answer(*reply.answer));
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
        model = reply.answer->model;
        prompt_tokens = reply.answer->prompt_tokens;
        completion_tokens = reply.answer->completion_tokens;
        cached_tokens = reply.answer->cached_tokens;
        reasoning_tokens = reply.answer->reasoning_tokens;
    }
}

void Request::end_stream(const Reply& reply)
{
    answer_ = reply.answer;
    if (reply.problem) {
        log_reason(reply.problem);
        auto status = static_cast<ngx_uint_t>(reply.problem.status);
        stream_->end_problem(is_api()
                                 ? api_error_json(status, reply.problem)
                                 : problem_json(status, reply.problem.detail));
    } else if (is_api()) {
        if (answer_->events.empty()) {
            events_ = split_reply(answer_->reply);
        }
        stream_->end_answer(hit);
    } else {
        name_answer(*answer_);
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
std::string_view Request::text() const
{
    if (seat_) {
        return Conductor::text(seat_);
    }
    if (!answer_) {
        return {};
    }
    if (!is_api() || answer_->reply.empty()) {
        return answer_->text;
    }
    return events_.empty() ? answer_->events : events_;
}

void Request::on_heartbeat()
{
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

ngx_int_t Request::send_answer(const Answer& answer)
{
    auto body =
        make_body(r_, "application/json",
                  is_api() ? answer.reply : answer_json(answer.text, hit));
    if (!body || add_headers(r_, *this) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r_->disable_not_modified = 1;  // no If-Match makes a 412 of an answer
    return send_response(r_, NGX_HTTP_OK, body);
}

}  // namespace chatbot
