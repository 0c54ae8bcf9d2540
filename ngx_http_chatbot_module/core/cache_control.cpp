#include "core/cache_control.hpp"

#include <string>

#include "text/unicode.hpp"

namespace chatbot {

CacheUse read_cache_control(std::string_view value)
{
    auto use = CacheUse::usual;
    while (!value.empty()) {
        const auto comma = value.find(',');
        const auto directive = lower_case(trim(value.substr(0, comma)));
        value.remove_prefix(comma == value.npos ? value.size() : comma + 1);

        if (directive == "no-store") {
            return CacheUse::nothing;
        }
        if (directive == "no-cache" || directive == "max-age=0") {
            use = CacheUse::renew;
        }
    }
    return use;
}

}  // namespace chatbot
