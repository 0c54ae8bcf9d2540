#include "openai/attempt.hpp"

#include <algorithm>
#include <new>
#include <string_view>
#include <utility>

#include "openai/address.hpp"

namespace chatbot {
namespace {

using std::chrono::milliseconds;

constexpr auto done_grace = std::chrono::seconds(1);  // for the reply to end
constexpr long max_idle_s = 3600;  // libcurl's own limit is 118 s
constexpr std::size_t max_header_size = 256 * 1024;
constexpr std::size_t max_error_size = 64 * 1024;

// libcurl's callbacks.  Bytes not accepted end the transfer.

// A connection is made.  One that was kept alive may turn out to be closed once
// the request is on its way: libcurl then connects anew, and sends it again.
int on_socket(void* data, curl_socket_t, curlsocktype) noexcept
{
    Attempt& attempt = *static_cast<Attempt*>(data);
    if (std::exchange(attempt.sent, false)) {
        attempt.sent_again = true;
        attempt.connecting.reset();
    }
    if (!attempt.connecting) {
        attempt.connecting = Clock::now();
        attempt.on_progress();  // a timeout counts from now on
    }
    return CURL_SOCKOPT_OK;
}

int on_connected(void* data, char*, char*, int, int) noexcept
{
    Attempt& attempt = *static_cast<Attempt*>(data);
    attempt.sent_again |= std::exchange(attempt.sent, true);
    attempt.last_byte = Clock::now();
    attempt.on_progress();  // another timeout counts from now on
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
    if (!attempt.first_byte && attempt.reader->begun()) {
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
        attempt.reader.emplace(attempt.settings.answer_max_size, attempt.body,
                               attempt.api, attempt.path == ApiPath::responses);
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

List make_headers(const ModelSettings& settings, const ModelServer& server,
                  bool stream)
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
    add(stream ? "Accept: text/event-stream" : "Accept: application/json");
    add("Expect:");  // no round trip ahead of a large question
    if (!server.api_key.empty()) {
        add("Authorization: Bearer " + server.api_key);
    }
    for (const auto& [name, value] : settings.headers) {
        add(value.empty() ? name + ";" : name + ": " + value);
    }
    return headers;
}

// Sets options of a handle.
struct Setter {
    CURL* easy;

    template <class T>
    void operator()(CURLoption option, T value) const
    {
        // The only failure that the values below leave.
        if (curl_easy_setopt(easy, option, value) == CURLE_OUT_OF_MEMORY) {
            throw std::bad_alloc();
        }
    }
};

}  // namespace

bool is_success(long status)
{
    return status >= 200 && status < 300;
}

long status_of(const Attempt& attempt)
{
    long status = 0;
    curl_easy_getinfo(attempt.handle.easy.get(), CURLINFO_RESPONSE_CODE,
                      &status);
    return status;
}

const char* header(const Attempt& attempt, const char* name)
{
    curl_header* found = nullptr;
    const auto code = curl_easy_header(attempt.handle.easy.get(), name, 0,
                                       CURLH_HEADER, -1, &found);
    return code == CURLHE_OK ? found->value : nullptr;
}

bool is_done(const Attempt& attempt)
{
    return attempt.reader && attempt.reader->done();
}

Handle make_handle(const ModelSettings& settings, const ModelServer& server,
                   ApiPath path, bool stream, CURLSH* share)
{
    Handle handle{make_headers(settings, server, stream),
                  Easy(curl_easy_init())};
    if (!handle.easy) {
        throw std::bad_alloc();
    }

    const Setter set{handle.easy.get()};

    set(CURLOPT_SHARE, share);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_QUICK_EXIT, 1L);  // do not wait for a resolver given up

    set(CURLOPT_URL, address_of(server, path).c_str());
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    // The environment was read with the configuration, in the master process.
    set(CURLOPT_PROXY, server.proxy.c_str());
    set(CURLOPT_NOPROXY, settings.no_proxy.c_str());
    set(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);  // they are not the server's
    set(CURLOPT_FOLLOWLOCATION, 0L);            // the key is for this host only

    // Nothing is gained by a coding, but one that comes unasked is decoded.
    set(CURLOPT_ACCEPT_ENCODING, "identity");
    set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    set(CURLOPT_TCP_KEEPALIVE, 1L);
    set(CURLOPT_MAXAGE_CONN, max_idle_s);
    set(CURLOPT_CONNECTTIMEOUT_MS, long{settings.connect_timeout_ms});

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
    set(CURLOPT_HTTPHEADER, handle.headers.get());

    set(CURLOPT_SOCKOPTFUNCTION, on_socket);
    set(CURLOPT_PREREQFUNCTION, on_connected);
    set(CURLOPT_HEADERFUNCTION, on_header);
    set(CURLOPT_WRITEFUNCTION, on_body);
    return handle;
}

void prepare(Attempt& attempt, std::string body, bool share_connection)
{
    const auto left =
        std::chrono::ceil<milliseconds>(attempt.deadline - Clock::now());
    const Setter set{attempt.handle.easy.get()};

    attempt.body = std::move(body);
    set(CURLOPT_ERRORBUFFER, attempt.error);
    set(CURLOPT_RESOLVE, attempt.resolved.get());
    // libcurl (8.14) would go on waiting for one that turned out to be
    // HTTP/1.1.
    set(CURLOPT_PIPEWAIT, share_connection ? 1L : 0L);
    set(CURLOPT_TIMEOUT_MS, std::max(1L, static_cast<long>(left.count())));
    set(CURLOPT_POSTFIELDSIZE, static_cast<long>(attempt.body.size()));
    set(CURLOPT_POSTFIELDS, attempt.body.c_str());

    set(CURLOPT_SOCKOPTDATA, &attempt);
    set(CURLOPT_PREREQDATA, &attempt);
    set(CURLOPT_HEADERDATA, &attempt);
    set(CURLOPT_WRITEDATA, &attempt);
}

void detach(Attempt& attempt) noexcept
{
    CURL* easy = attempt.handle.easy.get();
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, nullptr);
    curl_easy_setopt(easy, CURLOPT_RESOLVE, nullptr);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, nullptr);
    curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, nullptr);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, nullptr);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, nullptr);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, nullptr);
}

Clock::time_point expiry(const Attempt& attempt)
{
    const ModelSettings& settings = attempt.settings;
    auto limit = attempt.deadline;
    if (attempt.sent) {
        limit = attempt.last_byte + milliseconds(settings.read_timeout_ms);
    } else if (attempt.connecting) {
        limit = *attempt.connecting + milliseconds(settings.connect_timeout_ms);
    }
    if (is_done(attempt)) {
        // The end would leave a connection to be used again.
        limit = std::min(limit, attempt.last_byte + done_grace);
    }
    return std::min(limit, attempt.deadline);
}

}  // namespace chatbot
