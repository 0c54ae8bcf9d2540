#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct _PQconninfoOption;

namespace chatbot {

// What a connection string says, without what the environment adds to it.
class Conninfo {
public:
    // REQUIRES: libpq can read it.
    explicit Conninfo(const std::string& text);

    // The value of a keyword; empty if it is not there.
    [[nodiscard]] std::string value(std::string_view keyword) const;

private:
    struct Free {
        void operator()(_PQconninfoOption* options) const;
    };

    std::unique_ptr<_PQconninfoOption, Free> options_;
};

// Why libpq cannot use `conninfo` (a string of keyword=value pairs, a URI, or
// nothing at all), in libpq's own words but without what may be a password;
// empty if it can.
[[nodiscard]] std::string wrong_conninfo(const std::string& conninfo);

// The names of the variables of the environment that libpq reads.
[[nodiscard]] std::vector<std::string> libpq_environment();

// "host:port/dbname" of a conninfo, to tell databases apart: without user and
// password, so that a changed password is not another database.
[[nodiscard]] std::string database_name(const std::string& conninfo);

}  // namespace chatbot
