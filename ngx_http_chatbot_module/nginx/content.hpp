#pragma once

#include "nginx/chatbot.hpp"

// Which of our directives serves a location.  Only while the configuration is
// read.

namespace chatbot {

// The current directive serves the location, by `handler`, unless another one
// does, before it or behind it: see check_content().
void set_content(ngx_conf_t* cf, LocConf& lcf, ngx_http_handler_pt handler);

// Once the whole location is read: an error if a directive of another module,
// or another one of ours, serves it, too.
char* check_content(ngx_conf_t* cf, const LocConf& lcf);

// While it exists, errors and warnings of the configuration are told to be
// where that directive is, and not where nginx is reading.
class AtDirective {
public:
    AtDirective(ngx_conf_t* cf, const Directive& directive);
    ~AtDirective() { cf_->conf_file = saved_; }

    AtDirective(const AtDirective&) = delete;
    AtDirective& operator=(const AtDirective&) = delete;

private:
    ngx_conf_t* const cf_;
    ngx_conf_file_t* const saved_;
    ngx_conf_file_t there_{};
};

}  // namespace chatbot
