#include "nginx/setters.hpp"
#include "postgres/conninfo.hpp"

// Which database a location's requests are recorded in: the directive says it,
// or else the environment.

namespace chatbot {

namespace {

// A conninfo that leaves everything to the environment and libpq's defaults.
constexpr const char* environment_only =
    "fallback_application_name=ngx_http_chatbot_module";

// A member of a conninfo string, quoted as libpq wants it.
std::string conninfo_member(ngx_conf_t* cf, const char* key, const char* name)
{
    auto value = environment(cf, name);
    if (!value) {
        return "";
    }

    std::string quoted = std::string(key) + "='";
    for (auto c : *value) {
        if (c == '\'' || c == '\\') {
            quoted += '\\';
        }
        quoted += c;
    }
    return quoted + "' ";
}

// The environment that libpq itself reads goes to the workers, which nginx
// gives no other variables than those that it is told of.  Returns whether it
// says where the server is.
bool keep_libpq_environment(ngx_conf_t* cf)
{
    bool has_server = false;
    for (const auto& name : libpq_environment()) {
        has_server |=
            environment(cf, name.c_str()) &&
            (name == "PGHOST" || name == "PGHOSTADDR" || name == "PGSERVICE");
    }
    return has_server;
}

// An error of one of the variables that libpq itself reads, if there is one:
// libpq's message quotes the value.
char* check_libpq_environment(ngx_conf_t* cf)
{
    const auto wrong = wrong_conninfo(environment_only);
    if (wrong.empty()) {
        return conf_ok;
    }

    for (const auto& name : libpq_environment()) {
        const auto value = environment(cf, name.c_str());
        if (value && wrong.find("\"" + *value + "\"") != wrong.npos) {
            return fail_environment(cf, name, wrong);
        }
    }
    return fail_environment(cf, "PG...", wrong);
}

// Tries a conninfo.  `wrong` is set to why libpq cannot use it, unless a
// variable that libpq itself reads is at fault: that error is logged here.
char* check_conninfo(ngx_conf_t* cf, const std::string& conninfo,
                     std::string& wrong)
{
    wrong = wrong_conninfo(conninfo);
    return wrong.empty() ? conf_ok : check_libpq_environment(cf);
}

// Logs that a variable of the old service is wrong.
char* fail_parts(ngx_conf_t* cf, const std::string& wrong)
{
    const bool is_port = wrong.starts_with("invalid port");
    return fail_environment(cf, is_port ? "POSTGRES_PORT" : "POSTGRES_HOST",
                            wrong);
}

}  // namespace

char* set_postgres(ngx_conf_t* cf, ngx_command_t* cmd, void* conf)
{
    if (auto rv = set_value(cf, cmd, conf); rv != conf_ok) {
        return rv;
    }

    auto& conninfo = field_of<ngx_str_t>(conf, cmd);
    if (view(conninfo) == "off") {
        return conf_ok;
    }
    if (conninfo.len == 0) {
        conninfo = pool_copy(cf->pool, environment_only);
    }

    std::string wrong;
    if (auto rv = check_conninfo(cf, std::string(view(conninfo)), wrong);
        rv != conf_ok || wrong.empty()) {
        return rv;
    }
    return conf_fail(cf, "invalid connection string in \"%V\": %s",
                     &args(cf)[0], wrong.c_str());
}

char* find_database(ngx_conf_t* cf, const LocConf& lcf, std::string& conninfo)
{
    auto has_server = keep_libpq_environment(cf);
    if (lcf.postgres.data) {
        conninfo = view(lcf.postgres) == "off" ? "" : view(lcf.postgres);
        return conf_ok;  // it was checked when it was set
    }

    const auto url = environment(cf, "DATABASE_URL");
    if (url) {
        conninfo = *url;
    } else if (environment(cf, "POSTGRES_HOST")) {
        conninfo = conninfo_member(cf, "host", "POSTGRES_HOST") +
                   conninfo_member(cf, "port", "POSTGRES_PORT") +
                   conninfo_member(cf, "dbname", "POSTGRES_DB") +
                   conninfo_member(cf, "user", "POSTGRES_USER") +
                   conninfo_member(cf, "password", "POSTGRES_PASSWORD");
    } else {
        conninfo = has_server ? environment_only : "";
    }

    if (conninfo.empty() || conninfo == "off") {
        conninfo.clear();
        return conf_ok;
    }
    std::string wrong;
    if (auto rv = check_conninfo(cf, conninfo, wrong);
        rv != conf_ok || wrong.empty()) {
        return rv;
    }
    return url ? fail_environment(cf, "DATABASE_URL", wrong)
               : fail_parts(cf, wrong);
}

}  // namespace chatbot
