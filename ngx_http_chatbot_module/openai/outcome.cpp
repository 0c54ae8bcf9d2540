#include "openai/outcome.hpp"

#include <algorithm>
#include <ctime>
#include <string_view>
#include <utility>

#include "openai/address.hpp"
#include "openai/delay.hpp"
#include "openai/error.hpp"
#include "openai/api_call.hpp"
#include "openai/protocol.hpp"
#include "openai/responses.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr auto max_upstream_delay = std::chrono::seconds(60);
constexpr auto max_rounding = milliseconds(20);  // of libcurl's timeouts
constexpr int default_retry_after_s = 5;
constexpr std::size_t max_request_id_size = 100;
constexpr std::size_t min_secret_size = 6;
constexpr std::size_t max_key_shown = 3;  // characters of a key in the log
constexpr const char* unusable = "The model gave no usable answer.";
constexpr const char* refused = "The model refused the request.";

std::string upstream(const Attempt& attempt)
{
    return upstream(attempt.server, attempt.path);
}

// Text for the client; the reason goes to the error log only.
const char* detail_of(int status)
{
    switch (status) {
        case 503:
            return "The model is not available right now. "
                   "Please try again later.";
        case 504:
            return "The model did not answer in time.";
        default:
            return "The model failed to answer.";
    }
}

// An upstream may repeat the key in what it sends, the end of which may have
// been cut off in the middle of the key.
void conceal(std::string& text, std::string_view key)
{
    if (key.size() < min_secret_size) {
        return;  // it protects nothing, and may be a word of ours
    }

    for (auto at = text.find(key); at != text.npos; at = text.find(key, at)) {
        text.replace(at, key.size(), "***");
        at += 3;
    }

    for (auto start = key; start.size() > max_key_shown;
         start.remove_suffix(1)) {
        if (text.ends_with(start)) {
            text.replace(text.size() - start.size(), start.size(), "***");
            return;
        }
    }
}

void conceal_secrets(std::string& text, const Attempt& attempt)
{
    conceal(text, attempt.server.api_key);
    for (const auto& [name, value] : attempt.settings.headers) {
        conceal(text, value);
    }
}

// For the end of a line in the error log.
std::string with_request_id(const Attempt& attempt)
{
    auto id = request_id_of(attempt);
    return id.empty() ? id : " (request id " + id + ")";
}

// How long to wait before the upstream is asked again.
std::optional<milliseconds> delay_of(const Attempt& attempt)
{
    const auto now = std::time(nullptr);
    std::optional<milliseconds> delay;
    const char* retry_after = header(attempt, "Retry-After");

    if (const char* ms = header(attempt, "Retry-After-Ms")) {
        delay = read_milliseconds(ms);
    }
    if (!delay && retry_after) {
        delay = read_reset(retry_after, now);
    }
    if (!delay && retry_after) {
        const std::time_t date = curl_getdate(retry_after, nullptr);
        delay = read_reset(std::to_string(std::max<std::time_t>(date - now, 0)),
                           now);
    }
    return delay > milliseconds(0) ? delay : std::nullopt;
}

// When a quota is there again, as far as that is told.
std::optional<milliseconds> reset_of(const Attempt& attempt)
{
    for (auto name : {"x-ratelimit-reset", "x-ratelimit-reset-requests",
                      "x-ratelimit-reset-tokens", "ratelimit-reset"}) {
        const char* value = header(attempt, name);
        auto reset =
            value ? read_reset(value, std::time(nullptr)) : std::nullopt;
        if (reset > milliseconds(0)) {
            return reset;
        }
    }
    return {};
}

// Whether OpenAI's own SDKs would ask again.
bool may_retry(const Attempt& attempt, long status)
{
    const char* wish = header(attempt, "X-Should-Retry");
    if (wish && curl_strequal(wish, "true")) {
        return true;
    }
    if (wish && curl_strequal(wish, "false")) {
        return false;
    }

    return status == 408 || status == 409 || status == 429 || status >= 500;
}

// The status for the client, of a status of the upstream.
int status_for(long status)
{
    switch (status) {
        case 429:
        case 503:
        case 529:  // "overloaded" with some compatible services
        case 521:  // from 521 to 524: Cloudflare, of the server behind it
        case 522:
        case 523:
            return 503;
        case 408:
        case 504:
        case 524:
            return 504;
        default:
            return 502;
    }
}

// Where a reply of status 3xx points to, without the query; or empty.
std::string redirection_of(const Attempt& attempt)
{
    const long status = status_of(attempt);
    const char* location = header(attempt, "Location");
    if (status < 300 || status > 399 || !location) {
        return {};
    }

    std::string_view place = location;
    auto scheme = place.find("://");
    auto host = scheme == place.npos ? 0 : scheme + 3;
    auto user = place.substr(0, place.find('/', host)).rfind('@');
    auto shown = std::string(place.substr(0, place.find_first_of("?#")));
    if (user != place.npos && user >= host && user < shown.size()) {
        shown.erase(host, user + 1 - host);
    }
    return " with a redirect to " + loggable(shown) + ", not followed";
}

// A key that is refused, or has no money left, is at fault itself; a server
// that may be asked again is.
Outcome::Fault fault_of(const ReplyError& error, bool may_retry)
{
    if (error.money || error.status == 401 ||
        (error.status == 403 && !error.model_missing)) {
        return Outcome::Fault::key;
    }
    return may_retry ? Outcome::Fault::server : Outcome::Fault::request;
}

Outcome too_large(const Attempt& attempt)
{
    Outcome outcome;
    outcome.problem =
        make_problem(502, upstream(attempt) + " sent an answer " +
                              larger_than(attempt.settings.answer_max_size));
    return outcome;
}

// A client of the API is told what is wrong with its request.  What is wrong
// with the key or the server goes to the error log only.
void tell_client(const ReplyError& error, Problem& problem)
{
    const bool asked_wrongly = error.status == 400 || error.status == 404 ||
                               error.status == 413 || error.status == 422;
    if (!asked_wrongly || error.money) {
        return;
    }
    problem.status = error.status;
    problem.detail = error.message.empty() ? refused : error.message;
    problem.code = error.code;
    problem.param = error.param;
}

// `error` was told with `status`, or stood in a reply of status 200.
Outcome read_failure(const Attempt& attempt, const ReplyError& error)
{
    const long answered = status_of(attempt);
    std::string said = error.reason;
    if (answered != error.status) {
        said = "error " + std::to_string(error.status) +
               (said.empty() ? "" : ": " + said);
    }

    Outcome outcome;
    outcome.problem = make_problem(
        error.money ? 502 : status_for(error.status),
        upstream(attempt) + " answered " + std::to_string(answered) +
            redirection_of(attempt) + (said.empty() ? "" : ": " + said) +
            with_request_id(attempt));
    outcome.model_missing = error.model_missing;
    outcome.refused_member = error.refused_member;
    if (attempt.api) {
        tell_client(error, outcome.problem);
    }
    outcome.delay = delay_of(attempt);

    if (outcome.delay && outcome.problem.status == 503) {
        outcome.problem.retry_after_s = static_cast<int>(
            std::chrono::ceil<std::chrono::seconds>(*outcome.delay).count());
    }

    // A server that asks for more than a minute is not asked again.
    const bool may = !error.money && may_retry(attempt, error.status);
    outcome.retry =
        may && outcome.delay.value_or(milliseconds(0)) <= max_upstream_delay;
    outcome.fault = fault_of(error, may);
    outcome.elsewhere = may || outcome.fault == Outcome::Fault::key;
    if (!outcome.delay && outcome.fault == Outcome::Fault::key) {
        outcome.delay = reset_of(attempt);
    }
    return outcome;
}

std::optional<Answer> read_answer(Attempt& attempt, ReplyError& error)
{
    if (attempt.api) {
        return attempt.reader ? attempt.reader->finish_api(error)
               : attempt.path == ApiPath::responses
                   ? read_response(attempt.reply, error, attempt.body)
                   : read_api_reply(attempt.reply, error, attempt.body);
    }
    return attempt.reader ? attempt.reader->finish(error)
                          : read_reply(attempt.reply, error, attempt.body);
}

Outcome read_success(Attempt& attempt)
{
    if (attempt.stop == Attempt::Stop::body_too_large) {
        return too_large(attempt);
    }

    Outcome outcome;
    ReplyError error;
    outcome.answer = read_answer(attempt, error);

    if (!outcome.answer && error.status != 0) {
        return read_failure(attempt, error);
    }
    if (!outcome.answer) {
        outcome.problem = {.status = 502,
                           .detail = unusable,
                           .reason = upstream(attempt) + ": " + error.reason +
                                     with_request_id(attempt)};
        return outcome;
    }

    if (outcome.answer->text.size() > attempt.settings.answer_max_size) {
        return too_large(attempt);
    }

    if (outcome.answer->created == 0) {
        outcome.answer->created = std::time(nullptr);
    }
    if (!is_known_end(outcome.answer->finish_reason)) {
        outcome.unsure = upstream(attempt) + " ends answers with \"" +
                         loggable(outcome.answer->finish_reason) +
                         "\", whose meaning is not known";
    }

    return outcome;
}

// The connection could not be made, or broke: another one may do better.
bool is_connection_error(CURLcode code)
{
    switch (code) {
        case CURLE_COULDNT_RESOLVE_HOST:
        case CURLE_COULDNT_RESOLVE_PROXY:
        case CURLE_COULDNT_CONNECT:
        case CURLE_SSL_CONNECT_ERROR:
        case CURLE_SEND_ERROR:
        case CURLE_RECV_ERROR:
        case CURLE_GOT_NOTHING:
        case CURLE_PARTIAL_FILE:
        case CURLE_HTTP2:
        case CURLE_HTTP2_STREAM:
        case CURLE_FAILED_INIT:  // 7.88: of a proxy's tunnel that is half made
            return true;
        default:
            return false;
    }
}

Outcome read_timeout(const Attempt& attempt)
{
    Outcome outcome;
    outcome.fault = Outcome::Fault::server;
    const auto& settings = attempt.settings;
    const auto after = [](int ms, const char* directive) {
        return std::to_string(ms) + " ms (" + directive + ")";
    };

    // libcurl, which has that deadline too, may be early by its rounding.
    if (Clock::now() + max_rounding >= attempt.deadline) {
        outcome.problem = make_problem(
            504, upstream(attempt) + " gave no answer within " +
                     after(settings.timeout_ms, "chatbot_timeout"));
    } else if (!attempt.sent) {
        outcome.retry = outcome.elsewhere = true;
        outcome.problem = make_problem(
            503,
            upstream(attempt) + " could not be reached within " +
                after(settings.connect_timeout_ms, "chatbot_connect_timeout"));
    } else {
        // Without any byte of a reply, nothing was written that could be paid
        // for: the server is frozen.
        outcome.elsewhere = attempt.header_size == 0;
        outcome.problem = make_problem(
            504, upstream(attempt) + " sent nothing for " +
                     after(settings.read_timeout_ms, "chatbot_read_timeout"));
    }

    return outcome;
}

Outcome read_ending(Attempt& attempt, CURLcode code)
{
    if (attempt.stop == Attempt::Stop::headers_too_large) {
        Outcome outcome;
        outcome.problem =
            make_problem(502, upstream(attempt) + " sent too large a header");
        return outcome;
    }

    if (code == CURLE_OK || attempt.stop != Attempt::Stop::none) {
        const long status = status_of(attempt);
        return is_success(status)
                   ? read_success(attempt)
                   : read_failure(attempt,
                                  read_error(static_cast<int>(status),
                                             attempt.reply, attempt.body));
    }

    // Told to its end, and paid for, however it is closed.
    if (attempt.reader) {
        attempt.reader->take_rest();
        if (attempt.reader->whole()) {
            return read_success(attempt);
        }
    }
    if (!attempt.reader && is_success(status_of(attempt))) {
        if (auto outcome = read_success(attempt); outcome.answer) {
            return outcome;
        }
    }

    if (code == CURLE_OPERATION_TIMEDOUT) {
        return read_timeout(attempt);
    }

    Outcome outcome;
    outcome.retry = outcome.elsewhere = is_connection_error(code);
    outcome.fault = Outcome::Fault::server;
    outcome.problem = make_problem(
        outcome.retry && !attempt.sent ? 503 : 502,
        upstream(attempt) + ": " +
            (*attempt.error ? attempt.error : curl_easy_strerror(code)));
    return outcome;
}

}  // namespace

Problem make_problem(int status, std::string reason)
{
    Problem problem;
    problem.status = status;
    problem.detail = detail_of(status);
    problem.reason = std::move(reason);
    problem.retry_after_s = status == 503 ? default_retry_after_s : 0;
    return problem;
}

std::string request_id_of(const Attempt& attempt)
{
    for (auto name : {"x-request-id", "request-id", "apim-request-id",
                      "x-ms-request-id", "x-amzn-requestid", "cf-ray"}) {
        const char* value = header(attempt, name);
        std::string id = value ? value : "";
        std::erase_if(id, [](char c) { return c <= ' ' || c > '~'; });
        if (!id.empty()) {
            id.resize(std::min(id.size(), max_request_id_size));
            conceal_secrets(id, attempt);
            return id;
        }
    }
    return {};
}

Outcome unreachable(const ModelServer& server, const std::string& reason)
{
    Outcome outcome;
    outcome.retry = outcome.elsewhere = true;
    outcome.fault = Outcome::Fault::server;
    outcome.problem = make_problem(503, upstream(server) + ": " + reason);
    return outcome;
}

Outcome read_outcome(Attempt& attempt, CURLcode code)
{
    Outcome outcome = read_ending(attempt, code);
    auto& problem = outcome.problem;
    for (auto* text :
         {&problem.reason, &problem.detail, &problem.code, &problem.param}) {
        conceal_secrets(*text, attempt);
    }
    return outcome;
}

}  // namespace chatbot
