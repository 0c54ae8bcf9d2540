#include "postgres/conninfo.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <charconv>
#include <system_error>

#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_reason = 200;

bool may_hold_password(std::string_view conninfo)
{
    return conninfo.find("password") != conninfo.npos ||
           conninfo.find('@') != conninfo.npos ||
           conninfo.find('=') == conninfo.npos;
}

// Libpq quotes what it does not understand, which may be part of a password and
// hold quotes itself, and "=", which it misses.
std::string without_quotations(std::string_view text)
{
    constexpr std::string_view missed = "\"=\"";

    auto open = text.find('"');
    if (open != text.npos && text.substr(open).starts_with(missed)) {
        open = text.find('"', open + missed.size());
    }
    return std::string(text.substr(0, open)) +
           (open == text.npos ? "" : "\"...\"");
}

// "postgresql+psycopg2://", or a URL in quotes.
bool is_other_url(std::string_view conninfo)
{
    return conninfo.find("://") < conninfo.find('=') &&
           !conninfo.starts_with("postgresql://") &&
           !conninfo.starts_with("postgres://");
}

std::string reason(const char* text, const std::string& conninfo)
{
    auto line = one_line(text ? text : "no memory", max_reason);
    return may_hold_password(conninfo) ? without_quotations(line) : line;
}

// Libpq looks at the ports when it connects.
std::string wrong_port(std::string_view ports)
{
    while (!ports.empty()) {
        auto item = ports.substr(0, ports.find(','));
        ports.remove_prefix(std::min(item.size() + 1, ports.size()));

        int port = 0;
        auto end = item.data() + item.size();
        auto [rest, error] = std::from_chars(item.data(), end, port);
        if (!item.empty() &&
            (error != std::errc() || rest != end || port < 1 || port > 65535)) {
            bool is_number =
                error != std::errc::invalid_argument && rest == end;
            return "invalid port" +
                   (is_number ? " \"" + std::string(item) + "\"" : "");
        }
    }
    return "";
}

// Where a password in a URL has an "@" or a "/" as it is, part of it ends up in
// the host or the name of the database, which are logged.  (A host that starts
// with "@" is an abstract unix socket.)
bool holds_part_of_password(const Conninfo& parts, std::string_view conninfo)
{
    const auto host = parts.value("host");
    const bool is_url = conninfo.find("://") != conninfo.npos;
    return is_url && (host.find('@', 1) != host.npos ||
                      parts.value("dbname").find('@') != host.npos);
}

std::ptrdiff_t items(std::string_view list)
{
    return list.empty() ? 0 : std::count(list.begin(), list.end(), ',') + 1;
}

// Has libpq check the values by connecting to a path that is no directory.
std::string wrong_value(const std::string& conninfo)
{
    const char* keywords[] = {"dbname", "host", "hostaddr", "port", nullptr};
    const char* values[] = {conninfo.c_str(), "/dev/null", "127.0.0.1", "1",
                            nullptr};
    std::unique_ptr<PGconn, void (*)(PGconn*)> conn(
        PQconnectStartParams(keywords, values, 1), PQfinish);

    std::string_view message = PQerrorMessage(conn.get());
    return PQstatus(conn.get()) != CONNECTION_BAD ||
                   message.find("/dev/null") != message.npos
               ? ""
               : reason(message.data(), conninfo);
}

}  // namespace

void Conninfo::Free::operator()(_PQconninfoOption* options) const
{
    PQconninfoFree(options);
}

Conninfo::Conninfo(const std::string& text)
    : options_(PQconninfoParse(text.c_str(), nullptr))
{
}

std::string Conninfo::value(std::string_view keyword) const
{
    for (auto* o = options_.get(); o && o->keyword; o++) {
        if (keyword == o->keyword && o->val) {
            return o->val;
        }
    }
    return "";
}

std::string wrong_conninfo(const std::string& conninfo)
{
    char* text = nullptr;
    std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> options(
        PQconninfoParse(conninfo.c_str(), &text), PQconninfoFree);
    std::unique_ptr<char, void (*)(void*)> error(text, PQfreemem);
    if (!options) {
        return is_other_url(conninfo)
                   ? "neither postgresql:// nor postgres:// at the start"
                   : reason(text, conninfo);
    }

    Conninfo parts(conninfo);
    auto wrong = wrong_port(parts.value("port"));
    if (!wrong.empty()) {
        return wrong;
    }
    if (holds_part_of_password(parts, conninfo)) {
        return "\"@\" in the host or the database: in a user and a password, "
               "\"@\" is written as \"%40\", \"/\" as \"%2F\" and \"%\" as "
               "\"%25\"";
    }
    auto hosts =
        std::max(items(parts.value("host")), items(parts.value("hostaddr")));
    auto ports = items(parts.value("port"));
    return ports > 1 && ports != hosts
               ? "the number of ports is not that of the hosts"
               : wrong_value(conninfo);
}

std::vector<std::string> libpq_environment()
{
    std::vector<std::string> names = {"PGSERVICEFILE", "PGSYSCONFDIR", "PGTZ",
                                      "PGDATESTYLE", "PGGEQO"};
    std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> options(
        PQconndefaults(), PQconninfoFree);
    for (auto* o = options.get(); o && o->keyword; o++) {
        if (o->envvar) {
            names.emplace_back(o->envvar);
        }
    }
    return names;
}

std::string database_name(const std::string& conninfo)
{
    Conninfo parts(conninfo);
    auto one_of = [&](const char* keyword, const char* otherwise) {
        auto value = parts.value(keyword);
        return value.empty() ? parts.value(otherwise) : value;
    };

    std::string host = one_of("host", "hostaddr");
    std::string port = parts.value("port");
    return (host.empty() ? parts.value("service") : host) + ":" +
           (port.empty() ? "5432" : port) + "/" + one_of("dbname", "user");
}

}  // namespace chatbot
