#include "redis/url.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

#include "text/form.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

// Reads a decimal number that is all of `text`.
bool read_number(std::string_view text, int min, int max, int& number)
{
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    return error == std::errc() && stop == end && number >= min &&
           number <= max;
}

bool percent_decode(std::string_view text, std::string& out)
{
    for (std::size_t at = 0; at < text.size(); at++) {
        const int byte = read_escape(text.substr(at));
        if (byte < 0 && text[at] == '%') {
            return false;
        }

        out += byte < 0 ? text[at] : static_cast<char>(byte);
        at += byte < 0 ? 0 : 2;
    }

    return true;
}

const char* parse_user(std::string_view text, RedisSettings& settings)
{
    const auto colon = text.find(':');
    if (colon == text.npos || colon + 1 == text.size()) {
        return "no password before the \"@\"; a password without a user is "
               "written \":password@host\"";
    }
    if (!percent_decode(text.substr(0, colon), settings.user) ||
        !percent_decode(text.substr(colon + 1), settings.password)) {
        return "invalid escape in user or password, where a \"%\" is written "
               "\"%25\"";
    }

    return nullptr;
}

const char* parse_host(std::string_view text, RedisSettings& settings)
{
    auto end = text.find(':');
    if (take_prefix(text, "[")) {
        end = text.find(']');
        if (end == text.npos) {
            return "invalid IPv6 address";
        }
    } else if (end != text.npos && text.find(':', end + 1) != text.npos) {
        return "invalid host; an IPv6 address is written \"[::1]\"";
    }

    settings.host = text.substr(0, end);
    if (settings.host.empty()) {
        return "no host";
    }
    if (settings.host.find_first_of("#@ \t\r\n") != std::string::npos) {
        return "invalid host";
    }
    if (end == text.npos) {
        return nullptr;
    }

    text.remove_prefix(end);
    take_prefix(text, "]");
    if (!text.empty() && (!take_prefix(text, ":") ||
                          !read_number(text, 1, 65535, settings.port))) {
        return "invalid port";
    }

    return nullptr;
}

// Reads what comes after redis:// or rediss://.
const char* parse_tcp(std::string_view text, RedisSettings& settings)
{
    const auto slash = std::min(text.find('/'), text.size());
    std::string_view authority = text.substr(0, slash);
    std::string_view db = text.substr(slash);

    // "redis://:se/cret@host" would be the host "" and the port "se"
    if (db.find('@') != db.npos) {
        return "invalid \"/\" in the user or password, where a \"/\" is "
               "written \"%2F\"";
    }

    const auto at = authority.rfind('@');
    if (at != authority.npos) {
        if (auto wrong = parse_user(authority.substr(0, at), settings)) {
            return wrong;
        }
        authority.remove_prefix(at + 1);
    }
    if (authority.find(',') != authority.npos) {
        return "several hosts, of which one is supported";
    }
    if (authority.find('?') != authority.npos || db.find('?') != db.npos) {
        return "\"?\" and parameters are not supported; the database is "
               "written \"redis://host/1\"";
    }
    if (auto wrong = parse_host(authority, settings)) {
        return wrong;
    }

    take_prefix(db, "/");
    if (!db.empty() &&
        !read_number(db, 0, std::numeric_limits<int>::max(), settings.db)) {
        return "invalid database number";
    }

    return nullptr;
}

const char* parse_unix(std::string_view path, RedisSettings& settings)
{
    if (path.find('?') != path.npos) {
        return "\"?\" and parameters such as \"db\" are not supported with "
               "\"unix:\"; use \"redis://host/1\"";
    }
    if (path.find('@') != path.npos) {
        return "user and password are not supported with \"unix:\"; use "
               "\"redis://:password@host\"";
    }
    if (!path.starts_with('/')) {
        return "no absolute path after \"unix:\"";
    }

    settings.path = path;
    return nullptr;
}

const char* wrong_scheme(std::string_view url)
{
    const auto scheme = url.substr(0, url.find("://"));
    if (scheme.size() == url.size()) {
        return "no \"redis://\" at the start";
    }
    for (auto several : {"cluster", "sentinel"}) {
        if (scheme.find(several) != scheme.npos) {
            return "cluster and sentinel are not supported; use \"redis://\" "
                   "and the host of a single server";
        }
    }

    return "neither redis://, rediss:// nor unix: at the start";
}

}  // namespace

const char* parse_redis_url(const std::string& url, RedisSettings& settings)
{
    RedisSettings parsed;
    parsed.timeout_ms = settings.timeout_ms;

    std::string_view text = url;
    const char* wrong = nullptr;
    if (take_prefix(text, "unix:")) {
        wrong = parse_unix(text, parsed);
    } else if (take_prefix(text, "redis://")) {
        wrong = parse_tcp(text, parsed);
    } else if (take_prefix(text, "rediss://")) {
        parsed.tls = true;
        wrong = parse_tcp(text, parsed);
    } else {
        wrong = wrong_scheme(text);
    }

    if (!wrong) {
        settings = parsed;
    }
    return wrong;
}

}  // namespace chatbot
