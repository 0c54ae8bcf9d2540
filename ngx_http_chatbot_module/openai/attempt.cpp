#include "openai/attempt.hpp"

#include <algorithm>
#include <ctime>
#include <new>
#include <string_view>
#include <utility>

#include "openai/delay.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr auto max_upstream_delay = std::chrono::seconds(60);
constexpr auto done_grace = std::chrono::seconds(1);  // for the reply to end
constexpr auto max_rounding = milliseconds(20);       // of libcurl's timeouts
constexpr long max_idle_s = 3600;  // libcurl's own limit is 118 s
constexpr int default_retry_after_s = 5;
constexpr std::size_t max_header_size = 256 * 1024;
constexpr std::size_t max_error_size = 64 * 1024;
constexpr std::size_t max_request_id_size = 100;
constexpr std::size_t max_key_shown = 3;  // so little gives nothing away
constexpr const char* endpoint = "/chat/completions";
constexpr const char* unusable = "The model gave no usable answer.";

// "api.openai.com" of "https://api.openai.com/v1".
std::string_view host_of(std::string_view url)
{
    const auto scheme = url.find("://");
    if (scheme != url.npos) {
        url.remove_prefix(scheme + 3);
    }

    url = url.substr(0, url.find('/'));
    return url.substr(url.rfind('@') + 1);
}

std::string without_query(const std::string& url)
{
    return url.substr(0, url.find('?'));
}

// The address that is asked: the query of the base URL stays at its end.
std::string address_of(const ModelServer& server)
{
    const auto base = without_query(server.url);
    return base + endpoint + server.url.substr(base.size());
}

// The host, and the path that is asked: "api.openai.com/v1/chat/completions".
std::string upstream(const ModelServer& server)
{
    const auto base = without_query(server.url);
    const auto host = base.find(host_of(base));
    return "upstream " + base.substr(host) + endpoint;
}

std::string upstream(const Attempt& attempt)
{
    return upstream(attempt.server);
}

// What a client is told: the reason is none of its business.
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

bool is_success(long status)
{
    return status >= 200 && status < 300;
}

long status_of(const Attempt& attempt)
{
    long status = 0;
    curl_easy_getinfo(attempt.easy.get(), CURLINFO_RESPONSE_CODE, &status);
    return status;
}

// A header of the reply, or null.
const char* header(const Attempt& attempt, const char* name)
{
    curl_header* found = nullptr;
    const auto code =
        curl_easy_header(attempt.easy.get(), name, 0, CURLH_HEADER, -1, &found);
    return code == CURLHE_OK ? found->value : nullptr;
}

// An upstream may repeat the key in what it sends, the end of which may have
// been cut off in the middle of the key.
void conceal(std::string& text, std::string_view key)
{
    if (key.empty()) {
        return;
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

// How long the upstream wants to be left alone.
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
        delay = read_reset(std::to_string(std::max<std::time_t>(date, 0)), now);
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
            return 503;
        case 408:
        case 504:
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
    outcome.problem = make_problem(
        502, upstream(attempt) + " sent more than the largest answer allowed");
    return outcome;
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
    outcome.delay = delay_of(attempt);

    if (outcome.delay && outcome.problem.status == 503) {
        outcome.problem.retry_after_s = static_cast<int>(
            std::chrono::ceil<std::chrono::seconds>(*outcome.delay).count());
    }

    // Who asks for more than a minute is not asked again.
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

Outcome read_success(Attempt& attempt)
{
    if (attempt.stop == Attempt::Stop::body_too_large) {
        return too_large(attempt);
    }

    Outcome outcome;
    ReplyError error;
    outcome.answer = attempt.reader
                         ? attempt.reader->finish(error)
                         : read_reply(attempt.reply, error, attempt.body);

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
    const auto after = [](int ms) { return std::to_string(ms) + " ms"; };

    // libcurl, which has that deadline too, may be early by its rounding.
    if (Clock::now() + max_rounding >= attempt.deadline) {
        outcome.problem =
            make_problem(504, upstream(attempt) + " gave no answer within " +
                                  after(settings.timeout_ms));
    } else if (!attempt.sent) {
        outcome.retry = outcome.elsewhere = true;
        outcome.problem = make_problem(
            503, upstream(attempt) + " could not be reached within " +
                     after(settings.connect_timeout_ms));
    } else {
        // Without any byte of a reply, nothing was written that could be paid
        // for: the server is frozen.
        outcome.elsewhere = attempt.header_size == 0;
        outcome.problem =
            make_problem(504, upstream(attempt) + " sent nothing for " +
                                  after(settings.read_timeout_ms));
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
    if (attempt.reader && attempt.reader->whole()) {
        return read_success(attempt);
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

// libcurl's callbacks.  Bytes not accepted end the transfer.

// A connection kept alive may turn out to be closed once the request is on its
// way: libcurl then connects anew, and sends it again.
int on_socket(void* data, curl_socket_t, curlsocktype) noexcept
{
    Attempt& attempt = *static_cast<Attempt*>(data);
    if (std::exchange(attempt.sent, false)) {
        attempt.started = Clock::now();
    }
    return CURL_SOCKOPT_OK;
}

int on_connected(void* data, char*, char*, int, int) noexcept
{
    Attempt& attempt = *static_cast<Attempt*>(data);
    attempt.sent = true;
    attempt.last_byte = Clock::now();
    return CURL_PREREQFUNC_OK;
}

std::size_t on_header(char* line, std::size_t, std::size_t size,
                      void* data) noexcept
try {
    Attempt& attempt = *static_cast<Attempt*>(data);
    attempt.last_byte = Clock::now();
    if (attempt.header_size == 0) {
        attempt.http1 = curl_strnequal(line, "HTTP/1", 6);
        attempt.on_progress();
    }
    attempt.header_size += size;
    if (attempt.header_size > max_header_size) {
        attempt.stop = Attempt::Stop::headers_too_large;
        return 0;
    }

    return size;
} catch (...) {
    return 0;
}

// Returns false once the rest is not worth reading.
bool read_stream(Attempt& attempt, std::string_view bytes)
{
    attempt.on_progress();
    if (!attempt.reader->feed(bytes)) {
        attempt.stop = Attempt::Stop::bad_stream;
    }
    if (!attempt.first_byte && !attempt.reader->text().empty()) {
        attempt.first_byte = attempt.last_byte;
    }
    return attempt.stop == Attempt::Stop::none;
}

// A service may answer in one piece although it was asked for a stream, or call
// a stream something else.
void find_form(Attempt& attempt)
{
    attempt.form = form_of(attempt.reply, header(attempt, "Content-Type"));
    if (attempt.form == ReplyForm::stream) {
        attempt.reader.emplace(attempt.settings.answer_max_size, attempt.body);
        attempt.first_byte.reset();
        const auto start = std::exchange(attempt.reply, {});
        read_stream(attempt, start);
    } else if (attempt.form == ReplyForm::unknown) {
        // White space in front is kept no longer than it takes to know.
        attempt.reply.erase(0,
                            std::min(attempt.reply.find_first_not_of(" \t\r\n"),
                                     attempt.reply.size()));
    }
}

std::size_t on_body(char* bytes, std::size_t, std::size_t size,
                    void* data) noexcept
try {
    Attempt& attempt = *static_cast<Attempt*>(data);
    if (!is_done(attempt)) {
        attempt.last_byte = Clock::now();
    }

    const bool success = is_success(status_of(attempt));
    if (attempt.reader) {
        return read_stream(attempt, {bytes, size}) ? size : 0;
    }

    // A byte of the answer takes up to six ("\u0001") in JSON.
    const std::size_t max_size =
        success ? 6 * attempt.settings.answer_max_size + max_error_size
                : max_error_size;
    if (size > max_size - attempt.body_size) {
        attempt.stop = Attempt::Stop::body_too_large;
        return 0;
    }
    attempt.body_size += size;
    attempt.reply.append(bytes, size);
    if (success && !attempt.first_byte) {
        attempt.first_byte = attempt.last_byte;
    }

    if (success && attempt.form == ReplyForm::unknown) {
        find_form(attempt);
    }
    return attempt.stop == Attempt::Stop::none ? size : 0;
} catch (...) {
    return 0;
}

List make_headers(const Attempt& attempt)
{
    List headers;
    const auto add = [&](const std::string& line) {
        curl_slist* list = curl_slist_append(headers.get(), line.c_str());
        if (!list) {
            throw std::bad_alloc();
        }
        (void)headers.release();
        headers.reset(list);
    };

    add("Content-Type: application/json");
    add(attempt.stream ? "Accept: text/event-stream"
                       : "Accept: application/json");
    add("Expect:");  // no round trip ahead of a large question
    if (!attempt.server.api_key.empty()) {
        add("Authorization: Bearer " + attempt.server.api_key);
    }
    for (const auto& [name, value] : attempt.settings.headers) {
        add(value.empty() ? name + ";" : name + ": " + value);
    }
    return headers;
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

bool is_done(const Attempt& attempt)
{
    return attempt.reader && attempt.reader->done();
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

void prepare(Attempt& attempt, std::string body, CURLSH* share)
{
    const ModelSettings& settings = attempt.settings;
    CURL* easy = attempt.easy.get();

    attempt.body = std::move(body);
    attempt.headers = make_headers(attempt);

    const auto left =
        std::chrono::ceil<milliseconds>(attempt.deadline - attempt.started);
    const bool https = curl_strnequal(attempt.server.url.c_str(), "https:", 6);
    const auto set = [easy](CURLoption option, auto value) {
        // The only failure that the values below leave.
        if (curl_easy_setopt(easy, option, value) == CURLE_OUT_OF_MEMORY) {
            throw std::bad_alloc();
        }
    };

    set(CURLOPT_ERRORBUFFER, attempt.error);
    set(CURLOPT_SHARE, share);
    set(CURLOPT_RESOLVE, attempt.resolved.get());
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_QUICK_EXIT, 1L);  // do not wait for a resolver given up

    set(CURLOPT_URL, address_of(attempt.server).c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    // The environment is the master's: it was read with the configuration.
    set(CURLOPT_PROXY, attempt.server.proxy.c_str());
    set(CURLOPT_NOPROXY, settings.no_proxy.c_str());
    set(CURLOPT_FOLLOWLOCATION, 0L);  // the key is for this host only

    // Nothing is gained by a coding, but one that comes unasked is decoded.
    set(CURLOPT_ACCEPT_ENCODING, "identity");
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_PIPEWAIT, https ? 1L : 0L);
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_MAXAGE_CONN, max_idle_s);
    set(CURLOPT_CONNECTTIMEOUT_MS, long{settings.connect_timeout_ms});
    set(CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(left.count())));

    set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    set(CURLOPT_SSL_VERIFYPEER, settings.ssl_verify ? 1L : 0L);
    set(CURLOPT_SSL_VERIFYHOST, settings.ssl_verify ? 2L : 0L);
    if (!settings.ssl_trusted_certificate.empty()) {
        set(CURLOPT_CAINFO, settings.ssl_trusted_certificate.c_str());
    }
    if (!settings.ssl_trusted_certificate.empty() ||
        curl_version_info(CURLVERSION_NOW)->cainfo) {
        // The file alone: with a directory, libcurl would trust more, and
        // parse it all anew for each connection.
        set(CURLOPT_CAPATH, static_cast<char*>(nullptr));
    }

    set(CURLOPT_USERAGENT, "ngx_http_chatbot_module");
    set(CURLOPT_HTTPHEADER, attempt.headers.get());
    set(CURLOPT_POSTFIELDSIZE, static_cast<long>(attempt.body.size()));
    set(CURLOPT_POSTFIELDS, attempt.body.c_str());

    set(CURLOPT_SOCKOPTFUNCTION, on_socket);
    set(CURLOPT_SOCKOPTDATA, &attempt);
    set(CURLOPT_PREREQFUNCTION, on_connected);
    set(CURLOPT_PREREQDATA, &attempt);
    set(CURLOPT_HEADERFUNCTION, on_header);
    set(CURLOPT_HEADERDATA, &attempt);
    set(CURLOPT_WRITEFUNCTION, on_body);
    set(CURLOPT_WRITEDATA, &attempt);
}

Clock::time_point expiry(const Attempt& attempt)
{
    const ModelSettings& settings = attempt.settings;
    auto limit =
        attempt.sent
            ? attempt.last_byte + milliseconds(settings.read_timeout_ms)
            : attempt.started + milliseconds(settings.connect_timeout_ms);
    if (is_done(attempt)) {
        // The end would leave a connection to be used again.
        limit = std::min(limit, attempt.last_byte + done_grace);
    }
    return std::min(limit, attempt.deadline);
}

Outcome read_outcome(Attempt& attempt, CURLcode code)
{
    Outcome outcome = read_ending(attempt, code);
    conceal_secrets(outcome.problem.reason, attempt);
    return outcome;
}

}  // namespace chatbot
