#include "postgres/connection.hpp"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "postgres/conninfo.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr int wait_slice_ms = 100;  // how fast stopping() is seen
constexpr std::size_t max_message = 500;

// A list with commas such that it starts with item `first`, and ends with those
// before it.
std::string rotated(std::string list, std::size_t first)
{
    auto items = std::count(list.begin(), list.end(), ',') + 1;
    for (first %= static_cast<std::size_t>(items); first > 0; first--) {
        auto comma = list.find(',');
        list = list.substr(comma + 1) + "," + list.substr(0, comma);
    }
    return list;
}

// Rows that come by COPY are not supported: there would be no last result.
bool is_copy_out(const PostgresResult& result)
{
    auto status = PQresultStatus(result.get());
    return status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

// What the server says, without the data that some messages end with:
//     invalid input syntax for type integer: "..."
std::string message(const PostgresResult& result)
{
    std::string_view text = error_field(result, PG_DIAG_MESSAGE_PRIMARY);
    std::string code(error_field(result, PG_DIAG_SQLSTATE));
    return one_line(text.substr(0, text.find(": \"")), max_message) + " (" +
           code + ")";
}

}  // namespace

void ClearPostgresResult::operator()(pg_result* result) const
{
    PQclear(result);
}

bool succeeded(const PostgresResult& result)
{
    auto status = PQresultStatus(result.get());
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

std::string_view error_field(const PostgresResult& result, int field)
{
    const char* text = PQresultErrorField(result.get(), field);
    return text ? text : "";
}

void PostgresConnection::Finish::operator()(pg_conn* conn) const
{
    PQfinish(conn);
}

bool PostgresConnection::open(const std::string& conninfo,
                              std::size_t first_host)
{
    Conninfo parts(conninfo);
    auto hosts = [&](std::string_view keyword) {
        return rotated(parts.value(keyword), first_host);
    };
    const std::string host = hosts("host");
    const std::string address = hosts("hostaddr");
    const std::string port = hosts("port");

    // What comes after "dbname" wins over what is written in the conninfo.
    const char* keywords[] = {"dbname",
                              "host",
                              "hostaddr",
                              "port",
                              "client_encoding",
                              "fallback_application_name",
                              nullptr};
    const char* values[] = {conninfo.c_str(), host.c_str(),
                            address.c_str(),  port.c_str(),
                            "UTF8",           "ngx_http_chatbot_module",
                            nullptr};

    conn_.reset(PQconnectStartParams(keywords, values, 1));
    if (PQstatus(conn_.get()) == CONNECTION_BAD) {
        return false;
    }

    PQsetNoticeReceiver(
        conn_.get(), [](void*, const PGresult*) {}, nullptr);
    PQsetErrorVerbosity(conn_.get(), PQERRORS_VERBOSE);

    if (finish_opening()) {
        PQsetErrorVerbosity(conn_.get(), PQERRORS_TERSE);
        return PQsetnonblocking(conn_.get(), 1) == 0;
    }

    // That message is all that libpq has of the error: with its code, because
    // it is verbose.
    std::string_view text = PQerrorMessage(conn_.get());
    too_many_ = text.find(":  53300: ") != text.npos;
    return false;
}

bool PostgresConnection::finish_opening()
{
    auto next = PGRES_POLLING_WRITING;
    while (next != PGRES_POLLING_OK) {
        if (next == PGRES_POLLING_FAILED ||
            !wait(next == PGRES_POLLING_READING ? POLLIN : POLLOUT)) {
            return false;
        }
        next = PQconnectPoll(conn_.get());
    }
    return true;
}

bool PostgresConnection::alive()
{
    pollfd socket{PQsocket(conn_.get()), POLLIN, 0};
    while (poll(&socket, 1, 0) > 0) {
        if (!PQconsumeInput(conn_.get())) {
            return false;
        }
    }
    return PQstatus(conn_.get()) == CONNECTION_OK;
}

PostgresResult PostgresConnection::query(const std::string& sql,
                                         const std::string* param)
{
    const char* value = param ? param->c_str() : nullptr;
    int sent = param ? PQsendQueryParams(conn_.get(), sql.c_str(), 1, nullptr,
                                         &value, nullptr, nullptr, 0)
                     : PQsendQuery(conn_.get(), sql.c_str());
    return sent ? last_result(nullptr) : nullptr;
}

PostgresResult PostgresConnection::copy(const std::string& sql,
                                        const std::string& rows)
{
    return PQsendQuery(conn_.get(), sql.c_str()) ? last_result(&rows) : nullptr;
}

PostgresResult PostgresConnection::last_result(const std::string* rows)
{
    PostgresResult last;
    if (!flush()) {
        return last;
    }

    for (;;) {
        while (PQisBusy(conn_.get())) {
            if (!wait(POLLIN) || !PQconsumeInput(conn_.get())) {
                return nullptr;
            }
        }

        PostgresResult result(PQgetResult(conn_.get()));
        if (!result) {
            return last;
        }
        auto wanted = PQresultStatus(result.get()) == PGRES_COPY_IN;
        if (is_copy_out(result) || (wanted && (!rows || !put(*rows)))) {
            return nullptr;
        }
        last = std::move(result);
    }
}

// Libpq keeps what the server does not take at once.
bool PostgresConnection::put(const std::string& rows)
{
    return PQputCopyData(conn_.get(), rows.data(),
                         static_cast<int>(rows.size())) == 1 &&
           PQputCopyEnd(conn_.get(), nullptr) == 1 && flush();
}

// The server may not read on before what it sent is read.
bool PostgresConnection::flush()
{
    int left;
    while ((left = PQflush(conn_.get())) > 0) {
        if (!wait(POLLIN | POLLOUT) || !PQconsumeInput(conn_.get())) {
            return false;
        }
    }
    return left == 0;
}

bool PostgresConnection::wait(short events)
{
    while (!stopping_()) {
        auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ -
                                                                 Clock::now());
        if (left.count() <= 0) {
            timed_out_ = true;
            return false;
        }

        pollfd socket{PQsocket(conn_.get()), events, 0};
        int slice = left.count() < wait_slice_ms
                        ? static_cast<int>(left.count())
                        : wait_slice_ms;
        int n = poll(&socket, 1, slice);
        if (n > 0) {
            return true;
        }
        if (n == -1 && errno != EINTR) {
            return false;
        }
    }
    return false;
}

std::string PostgresConnection::why(const PostgresResult& result) const
{
    if (timed_out_) {
        return "no reply in time";
    }
    if (error_field(result, PG_DIAG_SQLSTATE).empty()) {
        std::string_view text = PQerrorMessage(conn_.get());
        text = text.substr(0, text.find("\nLOCATION: "));
        return text.empty() ? "sent an invalid reply"
                            : one_line(text, max_message);
    }
    return message(result);
}

}  // namespace chatbot
