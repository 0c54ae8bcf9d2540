#pragma once

#include <climits>
#include <string>

#include "nginx/chatbot.hpp"
#include "nginx/value.hpp"

// What sets the values of directives, for the files that define some.

namespace chatbot {

using Setter = char* (*)(ngx_conf_t*, ngx_command_t*, void*);

inline char* const duplicate = const_cast<char*>("is duplicate");

// The directive and its parameters.
inline ngx_str_t* args(ngx_conf_t* cf)
{
    return static_cast<ngx_str_t*>(cf->args->elts);
}

// What the directive sets.
template <class Field>
Field& field_of(void* conf, const ngx_command_t* cmd)
{
    return *reinterpret_cast<Field*>(static_cast<char*>(conf) + cmd->offset);
}

// Sets a string that may be env:NAME or file:PATH.
inline char* set_value(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<ngx_str_t>(conf, cmd);
    if (field.data) {
        return duplicate;
    }

    field = args(cf)[1];
    return resolve_value(cf, field);
}

// Sets such a string in which `wrong` finds nothing.  What it finds is told
// without the value, which may be a secret.
template <const char* (*wrong)(std::string)>
char* set_checked(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_value(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto error = wrong(std::string(view(field_of<ngx_str_t>(conf, cmd))));
    return error ? conf_fail(cf, "%s in \"%V\"", error, &args(cf)[0]) : conf_ok;
}

// Sets a number, not less than `min`, with one of nginx's own functions, which
// do not name the value that is wrong.
template <class Field, Setter set_slot, Field min>
char* set_number(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    auto& field = field_of<Field>(conf, cmd);
    if (field != static_cast<Field>(NGX_CONF_UNSET)) {
        return duplicate;
    }

    if (set_slot(cf, cmd, conf) != conf_ok || field < min ||
        field > static_cast<Field>(INT_MAX)) {
        return conf_fail(cf, "invalid value \"%V\" in \"%V\"", &args(cf)[1],
                         &args(cf)[0]);
    }
    return conf_ok;
}

// Sets one of two words, as 0 or 1.
inline char* set_word(ngx_conf_t* cf, ngx_command_t* cmd, void* conf,
                      const char* zero, const char* one)
{
    auto& field = field_of<ngx_uint_t>(conf, cmd);
    if (field != NGX_CONF_UNSET_UINT) {
        return duplicate;
    }

    auto value = view(args(cf)[1]);
    if (value != zero && value != one) {
        return conf_fail(
            cf, "invalid value \"%V\" in \"%V\": \"%s\" or \"%s\" is expected",
            &args(cf)[1], &args(cf)[0], zero, one);
    }
    field = value == one;
    return conf_ok;
}

// model_directives.cpp: of the directives that say how a model is asked.
char* set_key(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_pass(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_models(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_param(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_header(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_upstream_stream(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_abandoned(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
[[nodiscard]] const char* wrong_proxy(std::string url);

// api_directives.cpp
char* set_protocol(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_clients(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_alias(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

// database.cpp
char* set_postgres(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

// cors.cpp
char* set_cors(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

}  // namespace chatbot
