#include "nginx/chatbot.hpp"

#include <exception>
#include <new>
#include <optional>
#include <utility>

#include "text/digest.hpp"
#include "text/form.hpp"
#include "text/unicode.hpp"
#include "text/json.hpp"
#include "core/query.hpp"

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

std::string cache_status(const Request& request)
{
    if (request.hit) {
        return "chatbot; hit; ttl=" + std::to_string(request.ttl_s);
    }
    if (request.cache_status == CacheStatus::collapsed) {
        return "chatbot; fwd=miss; collapsed";
    }
    return "chatbot; fwd=miss";
}

}  // namespace

ngx_int_t handler(ngx_http_request_t* r) noexcept
try {
    if (!(r->method & (NGX_HTTP_GET | NGX_HTTP_POST))) {
        return NGX_HTTP_NOT_ALLOWED;
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

void Request::start(std::string_view body)
{
    if (auto wrong = find_query(body)) {
        fail(std::move(wrong));
        return;
    }

    std::optional<Key> key;
    if (find_key(key) != NGX_OK) {
        ngx_http_finalize_request(r_, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return;
    }

    // The client's FIN may have come with its request: then no event follows.
    r_->read_event_handler = ngx_http_test_reading;
    if (r_->connection->read->ready) {
        ngx_post_event(r_->connection->read, &ngx_posted_events);
    }

    seat_ = ask(*this, *loc_conf(r_)->route, key, record());
    asked = true;
}

Problem Request::find_query(std::string_view body)
{
    auto lcf = loc_conf(r_);
    std::optional<std::string> found;

    if (lcf->query) {
        ngx_str_t value;
        if (ngx_http_complex_value(r_, lcf->query, &value) != NGX_OK) {
            return {500, "The question cannot be read.", "", 0};
        }
        found = decode_form(view(value));

    } else {
        found = form_member(view(r_->args), "query");
        if (r_->method & NGX_HTTP_POST) {
            auto type = r_->headers_in.content_type;
            auto wrong = query_from_body(
                type ? view(type->value) : std::string_view(), body, found);
            if (wrong) {
                return wrong;
            }
        }
    }

    if (auto wrong = check_query(found, lcf->query_max_size)) {
        return wrong;
    }

    query = std::move(*found);
    return {};
}

// Leaves `key` empty if the answer is neither looked up, kept nor shared.
ngx_int_t Request::find_key(std::optional<Key>& key) const
{
    auto lcf = loc_conf(r_);
    if (!lcf->cache_key) {
        key = digest({fold(query), lcf->key_suffix});
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

Record Request::record() const
{
    Record record;
    record.ip_address = view(r_->connection->addr_text);
    record.request_text = query;
    record.timestamp_ms = arrival_ms(r_);
    record.request_id = request_id(r_);
    if (auto earlier = questions_before(r_)) {
        record.request_id += "-" + std::to_string(earlier + 1);
    }
    return record;
}

void Request::fail(Problem wrong)
{
    if (!wrong.reason.empty()) {
        ngx_log_error(NGX_LOG_ERR, r_->connection->log, 0, "chatbot: %s",
                      wrong.reason.c_str());
    }

    problem = std::move(wrong);
    ngx_http_finalize_request(r_, problem.status);
}

void Request::on_text() {}

void Request::on_answer(const Reply& reply, CacheStatus status)
{
    seat_ = nullptr;

    // The client left, and a post_action has the request now.
    if (context_of(r_) != this) {
        return;
    }

    auto c = r_->connection;
    ngx_http_set_log_request(c->log, r_);

    hit = reply.hit;
    ttl_s = reply.ttl_s;
    upstream_ms = reply.upstream_ms;
    cache_status = status;

    if (reply.problem) {
        fail(reply.problem);
    } else {
        answered = true;
        model = reply.answer->model;
        prompt_tokens = reply.answer->prompt_tokens;
        completion_tokens = reply.answer->completion_tokens;
        ngx_http_finalize_request(r_, send_answer(*reply.answer));
    }

    // `this` may be gone.
    ngx_http_run_posted_requests(c);
}

ngx_int_t Request::send_answer(const Answer& answer)
{
    std::string json;
    json.reserve(answer.text.size() + 64);
    json = "{\"response\": ";
    append_json(json, answer.text);
    json += hit ? ", \"source\": \"cache\"}" : ", \"source\": \"api\"}";

    auto body = make_body(r_, "application/json", json);
    if (!body || add_headers(r_, *this) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r_->disable_not_modified = 1;  // no If-Match makes a 412 of an answer
    r_->headers_out.status = NGX_HTTP_OK;
    auto rc = ngx_http_send_header(r_);
    if (rc == NGX_ERROR || rc > NGX_OK || r_->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r_, body);
}

ngx_chain_t* make_body(ngx_http_request_t* r, std::string_view type,
                       std::string_view text)
{
    auto chain = ngx_alloc_chain_link(r->pool);
    auto buf = static_cast<ngx_buf_t*>(ngx_calloc_buf(r->pool));
    auto data = copy(r->pool, text);
    auto content_type = copy(r->pool, type);
    if (!chain || !buf || !data.data || !content_type.data) {
        return nullptr;
    }

    buf->pos = data.data;
    buf->last = data.data + data.len;
    buf->memory = 1;
    buf->last_buf = r == r->main;
    buf->last_in_chain = 1;
    chain->buf = buf;
    chain->next = nullptr;

    auto& out = r->headers_out;
    out.content_length_n = static_cast<off_t>(data.len);
    out.content_type = content_type;
    out.content_type_len = content_type.len;
    out.content_type_lowcase = nullptr;
    out.charset.len = 0;
    return chain;
}

ngx_int_t add_header(ngx_http_request_t* r, const char* name,
                     std::string_view value)
{
    auto header =
        static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
    if (!header) {
        return NGX_ERROR;
    }

    *header = {};
    header->hash = 1;
    header->key = {ngx_strlen(name),
                   reinterpret_cast<u_char*>(const_cast<char*>(name))};
    header->value = copy(r->pool, value);
    return header->value.data ? NGX_OK : NGX_ERROR;
}

ngx_int_t add_headers(ngx_http_request_t* r, const Request& request)
{
    if (request.cache_status != CacheStatus::none &&
        add_header(r, "Cache-Status", cache_status(request)) != NGX_OK) {
        return NGX_ERROR;
    }

    auto id = request_id(r);
    return id.empty() ? NGX_OK : add_header(r, "X-Request-ID", id);
}

}  // namespace chatbot
