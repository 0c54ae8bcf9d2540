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
        return "no password after the user";
    }
    if (!percent_decode(text.substr(0, colon), settings.user) ||
        !percent_decode(text.substr(colon + 1), settings.password)) {
        return "invalid escape in user or password";
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
    }

    settings.host = text.substr(0, end);
    if (settings.host.empty()) {
        return "no host";
    }
    if (settings.host.find_first_of("?#") != std::string::npos) {
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

}  // namespace

const char* parse_redis_url(const std::string& url, RedisSettings& settings)
{
    RedisSettings parsed;
    parsed.timeout_ms = settings.timeout_ms;

    std::string_view text = url;
    if (take_prefix(text, "unix:")) {
        if (!text.starts_with('/')) {
            return "no absolute path";
        }
        parsed.path = text;
        settings = parsed;
        return nullptr;
    }

    parsed.tls = take_prefix(text, "rediss://");
    if (!parsed.tls && !take_prefix(text, "redis://")) {
        return "neither redis://, rediss:// nor unix:";
    }

#if !__has_include(<hiredis/hiredis_ssl.h>)
    if (parsed.tls) {
        return "this build of hiredis has no TLS";
    }
#endif

    const auto slash = std::min(text.find('/'), text.size());
    std::string_view authority = text.substr(0, slash);
    std::string_view db = text.substr(slash);

    const auto at = authority.rfind('@');
    if (at != authority.npos) {
        if (auto wrong = parse_user(authority.substr(0, at), parsed)) {
            return wrong;
        }
        authority.remove_prefix(at + 1);
    }
    if (auto wrong = parse_host(authority, parsed)) {
        return wrong;
    }

    take_prefix(db, "/");
    if (!db.empty() &&
        !read_number(db, 0, std::numeric_limits<int>::max(), parsed.db)) {
        return "invalid database number";
    }

    settings = parsed;
    return nullptr;
}

}  // namespace chatbot
