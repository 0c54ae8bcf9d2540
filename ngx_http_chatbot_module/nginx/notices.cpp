#include "nginx/notices.hpp"

#include "text/invariant.hpp"

namespace chatbot {

void log_line(ngx_uint_t level, const std::string& text)
{
    if (!text.empty()) {
        ngx_log_error(level, ngx_cycle->log, 0, "chatbot: %s", text.c_str());
    }
}

void log_notices(const std::vector<Notice>& notices)
{
    for (const auto& notice : notices) {
        log_line(notice.level == Notice::Level::error  ? NGX_LOG_ERR
                 : notice.level == Notice::Level::warn ? NGX_LOG_WARN
                                                       : NGX_LOG_NOTICE,
                 notice.text);
    }
}

void log_violations()
{
    for (std::string text; !(text = take_violation()).empty();) {
        log_line(NGX_LOG_ALERT, "internal error: " + text);
    }
}

}  // namespace chatbot
