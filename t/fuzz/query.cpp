// The question in what a client sent (query.hpp).

#include "core/query.hpp"

#include "fuzz.hpp"
#include "text/form.hpp"
#include "text/header.hpp"
#include "text/hex.hpp"
#include "text/json.hpp"
#include "text/multipart.hpp"

using namespace chatbot;

namespace {

// `text` as a form may have it: some bytes as they are, some escaped.
std::string encoded(std::string_view text)
{
    std::string out;
    for (unsigned char c : text) {
        bool plain = (c >= 'a' && c <= 'z') || c >= 0xC0;
        if (c == ' ') {
            out += '+';
        } else if (plain) {
            out += static_cast<char>(c);
        } else {
            out += '%';
            append_hex(out, c, c & 1 ? 'a' : 'A');
        }
    }
    return out;
}

// What a query that passed all checks is.
void check(const std::optional<std::string>& query)
{
    static constexpr std::size_t max_size = 1000;

    Question question;
    question.text = query;
    auto status = check_question(question, {.text_size = max_size}).status;
    if (status == 0) {
        assert(is_text(*query));
        assert(query->size() <= max_size);
        assert(!trim(*query).empty());
    }
    assert((status == 413) == (query && query->size() > max_size));
    assert(query || status == 422);
}

// Parts are cut out of the body one behind the other, and what is written as a
// part reads back.
void check_parts(const std::string& body, std::string_view content_type)
{
    Multipart parts(body,
                    header_parameter(content_type, "boundary").value_or(""));
    const char* at = body.data();
    for (Multipart::Part part; parts.next(part);) {
        assert(part.name && part.content.data() >= at);
        at = part.content.data() + part.content.size();
        assert(at < body.data() + body.size());
    }

    std::string delimiter = "\r\n--X";
    if (("\r\n" + body).find(delimiter) != body.npos) {
        return;
    }
    auto written = "--X\r\nContent-Disposition: form-data; name=query\r\n\r\n" +
                   body + delimiter + "--\r\n";
    Question question;
    assert(!question_from_body("multipart/form-data; boundary=X", written,
                               question));
    assert(question.text == body);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    FuzzedDataProvider input(data, size);
    auto type = input.PickValueInArray<std::string_view>(
        {"application/json", "application/x-www-form-urlencoded",
         "Application/Problem+JSON ; charset=utf-8",
         "multipart/form-data; boundary=X", ""});
    auto name = input.ConsumeRandomLengthString(8);
    auto content_type =
        type.empty() ? input.ConsumeRandomLengthString() : std::string(type);
    auto body = input.ConsumeRemainingBytesAsString();

    assert(decode_form(body).size() <= body.size());
    assert(decode_form(encoded(body)) == body);
    assert(form_member(body + "&que%72y=" + encoded(body), "query") == body);
    if (!name.empty() || !body.empty()) {
        assert(form_member(encoded(name) + "=" + encoded(body), name) == body);
    }
    check(form_member(body, "query"));

    Question question;
    question.text = "before";
    auto status = question_from_body(content_type, body, question).status;
    assert(status == 0 || status == 400 || status == 415 || status == 422);
    assert(status == 0 || question.text == "before");
    check(question.text);

    check_parts(body, content_type);

    auto text = to_utf8(body);
    std::string json = "{\"query\":";
    append_json(json, text);
    json += '}';
    assert(!question_from_body("application/json", json, question));
    assert(question.text == text);
    return 0;
}
