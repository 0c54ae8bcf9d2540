#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace chatbot {

// Reads the parts of a body of the type multipart/form-data (RFC 7578), in
// linear time and without copies.  Lines end in CRLF, as RFC 2046 says; what
// comes before the first and behind the last delimiter is passed over.
//
// Threads:    state of its own, no other.
// Ownership:  the views are of `body`, which must live as long.
class Multipart {
public:
    struct Part {
        std::optional<std::string> name;     // there, once the part is read
        std::string_view content_type;       // empty: not told
        std::string_view transfer_encoding;  // Content-Transfer-Encoding
        std::string_view content;
    };

    Multipart(std::string_view body, std::string_view boundary);

    // Takes the next part.  False if there is none, which is a fault or the
    // end.
    [[nodiscard]] bool next(Part& part);

    // What is wrong with the body, in words for a client; null: nothing so far.
    const char* fault() const { return fault_; }

private:
    bool fail(const char* fault);
    bool find_first();
    bool take_delimiter_line();
    bool take_headers(std::string_view headers, Part& part);
    bool take_header(std::string_view line, Part& part);

    std::string_view rest_;  // what follows a delimiter
    std::string delimiter_;
    bool begun_ = false;
    const char* fault_ = nullptr;
};

}  // namespace chatbot
