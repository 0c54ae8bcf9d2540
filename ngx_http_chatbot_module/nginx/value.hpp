#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nginx/chatbot.hpp"

// Values of directives: where they come from, and whether they are right.
//
// Threads:  only while the configuration is read.

namespace chatbot {

// Reads a file that a directive names, relative to the configuration's.
char* read_file(ngx_conf_t* cf, ngx_str_t path, std::string& text);

// Follows env:NAME and file:PATH.
char* resolve_value(ngx_conf_t* cf, ngx_str_t& value);

// Why the URL is not a valid base URL, or nullptr; and the base URL in what may
// be the whole address of an API.
[[nodiscard]] const char* wrong_url(std::string url);
[[nodiscard]] std::string base_url(std::string_view url);

// The journal's directory, relative to nginx's prefix; null if it is none, or
// there is no memory.
[[nodiscard]] ngx_path_t* journal_path(ngx_conf_t* cf, ngx_str_t dir);

// Has nginx make it when it starts; an error if it cannot.  "nginx -t" makes
// nothing.
[[nodiscard]] ngx_int_t add_journal(ngx_conf_t* cf, ngx_path_t& journal);

// The names of models in a value of the environment or of a file, where white
// space separates them.
[[nodiscard]] std::vector<std::string> model_names(std::string_view text);

// Whether a model can have that name.
[[nodiscard]] bool valid_model(std::string_view name);

// A variable of the environment, without the newline at its end; nothing if it
// is not set or empty.  It is handed on to the next binary (USR2), which nginx
// does for TZ only.
[[nodiscard]] std::optional<std::string> environment(ngx_conf_t* cf,
                                                     const char* name);

// Logs why a variable of the environment is wrong; that is in no file.
char* fail_environment(ngx_conf_t* cf, const std::string& name,
                       const std::string& why);

}  // namespace chatbot
