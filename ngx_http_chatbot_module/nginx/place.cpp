#include "nginx/chatbot.hpp"

// Which chatbot location a request is for.

namespace chatbot {

namespace {

// The URI as it came, with whatever follows it in HTTP/1.  For a request line
// that is too long nginx sets no end; before 1.25.4 its pointers are invalid.
std::string_view raw_uri(const ngx_http_request_t* r)
{
    auto start = r->uri_start;
    auto end = r->uri_end;

    if (r->http_version < NGX_HTTP_VERSION_20) {
        auto in = r->header_in;
        if (!in || start < in->start || start > in->last) {
            return {};
        }
        end = in->last;
    }
    return {reinterpret_cast<char*>(start),
            static_cast<std::size_t>(end - start)};
}

}  // namespace

const LocConf* chatbot_conf(ngx_http_request_t* r)
{
    // Before a location is found it is the server's, and only that has
    // `locations`.
    const auto* conf = loc_conf(r);
    if (conf->pass.data || conf->locations.empty()) {
        return conf->pass.data ? conf : nullptr;
    }

    auto raw = raw_uri(r);
    auto path =
        r->uri.len ? view(r->uri) : raw.substr(0, raw.find_first_of("? "));

    // As nginx would: the exact location, or else the longest name.
    const Location* found = nullptr;
    for (const auto& location : conf->locations) {
        auto fits = location.exact ? path == location.name
                                   : path.starts_with(location.name);
        if (fits && (!found || location.exact ||
                     location.name.size() > found->name.size())) {
            found = &location;
        }
    }
    return found ? found->chatbot : nullptr;
}

}  // namespace chatbot
