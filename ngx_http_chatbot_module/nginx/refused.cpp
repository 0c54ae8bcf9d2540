#include "nginx/request.hpp"

#include <algorithm>
#include <exception>

#include "text/form.hpp"
#include "text/unicode.hpp"

// chatbot_log_refused: records requests to chatbot locations that were refused
// before they were a question, such as 429 of limit_req.

namespace chatbot {

namespace {

ngx_uint_t status_of(const ngx_http_request_t* r)
{
    return r->err_status ? r->err_status : r->headers_out.status;
}

// At most `max` a second, of this worker.
bool is_let_through(ngx_int_t max)
{
    static time_t second;
    static ngx_int_t count;

    if (second != ngx_time()) {
        second = ngx_time();
        count = 0;
    }
    return count++ < max;
}

std::string query_of(const ngx_http_request_t* r, const Request* request,
                     std::size_t max_size)
{
    if (request && !request->query.empty()) {
        return request->query;
    }

    // An error_page that names a URI has replaced the arguments.
    auto query = form_member(view(r->args), "query");
    auto uri = view(r->unparsed_uri);
    if (auto mark = uri.find('?'); !query && mark != uri.npos) {
        query = form_member(uri.substr(mark + 1), "query");
    }
    bool is_fit = query && query->size() <= max_size && is_utf8(*query) &&
                  query->find(char(0)) == query->npos;
    return is_fit ? *query : "";
}

Record record_of(ngx_http_request_t* r, const Request* request,
                 std::size_t query_max_size)
{
    auto status = status_of(r);
    auto tp = ngx_timeofday();
    auto now_ms = static_cast<std::int64_t>(tp->sec) * 1000 + tp->msec;

    Record record;
    record.ip_address = view(r->connection->addr_text);
    record.request_text = query_of(r, request, query_max_size);
    record.response_text = "Error: ";
    record.response_text += request && !request->problem.detail.empty()
                                ? request->problem.detail
                                : problem_detail(status);
    record.timestamp_ms = arrival_ms(r);
    record.request_id = record_id(r);
    record.http_status = static_cast<int>(status);
    record.duration_ms =
        static_cast<int>(std::max<std::int64_t>(0, now_ms - arrival_ms(r)));
    return record;
}

ngx_int_t log_handler(ngx_http_request_t* r) noexcept
try {
    if (status_of(r) < 400) {
        return NGX_OK;
    }
    auto lcf = visited_chatbot(r);
    if (!lcf || lcf->log_refused == 0) {
        return NGX_OK;
    }

    auto request = find_request(r);
    if ((!request || !request->asked) && is_let_through(lcf->log_refused)) {
        record_refused(*lcf->route, record_of(r, request, lcf->query_max_size));
    }
    return NGX_OK;
} catch (const std::exception&) {  // no memory
    return NGX_OK;
}

}  // namespace

ngx_int_t install_refused_log(ngx_conf_t* cf)
{
    return add_phase_handler(cf, NGX_HTTP_LOG_PHASE, log_handler);
}

}  // namespace chatbot
