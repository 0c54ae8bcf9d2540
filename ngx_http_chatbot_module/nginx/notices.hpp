#pragma once

#include <string>
#include <vector>

#include "core/exchange.hpp"
#include "nginx/chatbot.hpp"

namespace chatbot {

// What goes to the error log besides what concerns a request.  Event loop only.

// Nothing is logged if the text is empty.
void log_line(ngx_uint_t level, const std::string& text);

void log_notices(const std::vector<Notice>& notices);

// Writes violated invariants (invariant.hpp): as an alert, each once.
void log_violations();

}  // namespace chatbot
