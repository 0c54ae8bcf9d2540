#include "openai/stream.hpp"

#include <algorithm>
#include <utility>

#include "openai/api_call.hpp"
#include "openai/events.hpp"
#include "openai/protocol.hpp"
#include "openai/responses.hpp"
#include "text/json.hpp"
#include "text/scanner.hpp"
#include "text/unicode.hpp"

namespace chatbot {
namespace {

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
constexpr std::string_view end_mark = "[DONE]";
constexpr std::string_view replacement = "\uFFFD";

// Finds the ends of lines.  Each byte is looked at twice at most, however the
// lines end.
class LineEnds {
public:
    explicit LineEnds(std::string_view bytes)
        : bytes_(bytes)
    {
    }

    // The first "\r" or "\n" at `from` or behind, or npos.
    std::size_t next(std::size_t from)
    {
        return std::min(find('\n', from, newline_), find('\r', from, return_));
    }

private:
    std::size_t find(char c, std::size_t from, std::size_t& known) const
    {
        if (known != bytes_.npos && known < from) {
            known = bytes_.find(c, from);
        }
        return known;
    }

    const std::string_view bytes_;
    std::size_t newline_ = bytes_.find('\n');
    std::size_t return_ = bytes_.find('\r');
};

std::string_view trim_ascii(std::string_view text)
{
    constexpr std::string_view space = " \t\r\n";

    text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
    return text.substr(0, text.find_last_not_of(space) + 1);
}

// Whether something that is no JSON may have been a piece of an answer.
bool looks_like_chunk(std::string_view data)
{
    return data.starts_with('{') && (data.find("\"choices") != data.npos ||
                                     data.find("\"delta") != data.npos);
}

// What escapes within a JSON string mean.
std::string meaning_of(const std::string& escapes)
{
    std::string text;
    JsonScanner('"' + escapes + '"').take_string(text);
    return text;
}

}  // namespace

bool StreamReader::feed(std::string_view bytes)
{
    // The whole answer in one event, each byte escaped as \u00XX, and its
    // frame.
    const std::size_t max_event = 6 * max_size_ + 64 * 1024;

    LineEnds ends(bytes);
    std::size_t at = 0;
    while (at < bytes.size() && !failed_ && !done_) {
        if (std::exchange(after_cr_, false) && bytes[at] == '\n') {
            ++at;
            continue;
        }

        auto end = ends.next(at);
        auto part = bytes.substr(at, end == bytes.npos ? end : end - at);
        if (line_.size() + part.size() + data_.size() > max_event) {
            fail("an event of the stream is " + larger_than(max_size_));
            break;
        }
        if (end == bytes.npos) {
            line_ += part;
            break;
        }

        after_cr_ = bytes[end] == '\r';
        at = end + 1;
        if (line_.empty()) {
            take_line(part);
        } else {
            line_ += part;
            take_line(line_);
            line_.clear();
        }
    }
    return !failed_;
}

// Some replies end without the empty line.  What was cut off in there cannot
// spoil an answer that is whole.
void StreamReader::take_rest()
{
    if (failed_ || done_) {
        return;
    }

    const bool was_whole = whole();
    const bool was_unsure = unsure_;
    take_line(std::exchange(line_, {}));
    take_event();
    unsure_ = was_unsure;
    if (was_whole || (failed_ && error_.status == 0)) {
        failed_ = false;
    }
}

// Whether there is an answer.
bool StreamReader::end(ReplyError& error)
{
    take_rest();
    if (!failed_ && !half_.empty()) {
        take_text(replacement);
    }

    if (!failed_ && !done_ && finish_reason_.empty()) {
        fail("the stream ended before the answer did" +
             (skipped_.empty() ? "" : ": " + skipped_));
    }
    if (failed_) {
        error = error_;
    }
    return !failed_;
}

std::optional<Answer> StreamReader::finish_api(ReplyError& error)
{
    if (!end(error)) {
        return std::nullopt;
    }

    auto answer = relay_ ? read_response(response_, error, request_)
                         : read_joined_reply(joiner_.finish(), error, request_);
    if (answer) {
        answer->complete = answer->complete && !unsure_;
        answer->events = std::move(events_);
    }
    return answer;
}

std::optional<Answer> StreamReader::finish(ReplyError& error)
{
    if (!end(error)) {
        return std::nullopt;
    }
    return conclude(std::move(answer_),
                    {.finish_reason = finish_reason_,
                     .refused = refused_,
                     .unsure = unsure_},
                    error);
}

void StreamReader::fail(ReplyError error)
{
    error_ = std::move(error);
    failed_ = true;
}

void StreamReader::fail(std::string reason)
{
    ReplyError error;
    error.reason = std::move(reason);
    fail(std::move(error));
}

// An event is some lines "data:..." and an empty line; comments, which start
// with a colon, and other fields mean nothing here.
void StreamReader::take_line(std::string_view line)
{
    if (std::exchange(first_line_, false)) {
        take_prefix(line, byte_order_mark);
    }

    if (line.empty()) {
        take_event();
    } else if (take_prefix(line, "data:")) {
        data_ += line;
        data_ += '\n';
    } else if (take_prefix(line, "event:")) {
        event_name_ = trim_ascii(line);
    } else if (line.starts_with('{')) {
        take_bare(line);
    }
}

// Some gateways write an error into the stream as it is.
void StreamReader::take_bare(std::string_view line)
{
    const Json json = parse_foreign_json(line);
    if (auto error = find_error(json.get(), request_)) {
        fail(std::move(*error));
    }
}

void StreamReader::take_event()
{
    const auto data = trim_ascii(data_);
    const auto name = std::exchange(event_name_, {});
    if (name == "error") {
        fail(read_error_event(data, request_));
    } else if (relay_ && !data.empty() && data != end_mark) {
        take_relayed(name, data);
    } else if (!data.empty()) {
        take_data(data);
    }
    data_.clear();
}

void StreamReader::take_data(std::string_view data)
{
    if (data == end_mark) {
        done_ = true;
        return;
    }

    chunk_.clear();
    if (!scan_chunk(data, chunk_)) {
        if (data.find('\n') != data.npos && take_lines(data)) {
            return;
        }
        chunk_.clear();
        if (!take_tree(data)) {
            return;
        }
    }
    read_halves(data, chunk_);
    take_chunk();
    keep_event(data);
}

// Some services leave out the empty line behind each event: then its first line
// alone is a chunk.
bool StreamReader::take_lines(std::string_view data)
{
    if (!parse_foreign_json(data.substr(0, data.find('\n')))) {
        return false;
    }

    while (!data.empty() && !failed_ && !done_) {
        const auto line = data.substr(0, data.find('\n'));
        data.remove_prefix(std::min(line.size() + 1, data.size()));
        take_data(trim_ascii(line));
    }
    return true;
}

void StreamReader::keep_event(std::string_view data)
{
    if (!keep_ || failed_) {
        return;
    }
    append_event(events_, data);
    joiner_.add(data, chunk_.written);
    bound_events();
}

// Some words of an answer are an event of some hundred bytes.
void StreamReader::bound_events()
{
    constexpr std::size_t largest = 64;

    if (events_.size() / largest > max_size_ + 1024) {
        fail("the answer is " + larger_than(max_size_));
    }
}

// An event of /responses: the last one has the whole response.
void StreamReader::take_relayed(const std::string& name, std::string_view data)
{
    const auto event = read_response_event(data);
    const bool failed = event.end == ResponseEvent::End::failed;
    if (failed && event.response.empty()) {
        fail(read_error_event(data, request_));
        return;
    }

    append_relayed(events_, name, data);
    bound_events();
    if (failed) {
        fail(read_error_event(event.response, request_));
    }
    if (event.end == ResponseEvent::End::whole) {
        response_ = event.response;
        done_ = true;
    }
}

// Whether it is a chunk.
bool StreamReader::take_tree(std::string_view data)
{
    Json json = parse_foreign_json(data);
    if (!json) {
        if (looks_like_chunk(data)) {
            fail("an event of the stream is no JSON");
        }
        unsure_ = unsure_ || data.starts_with('{');
        if (data.find(' ') != data.npos) {  // more than a ping
            skipped_ = loggable(data);
        }
        return false;
    }

    if (auto error = find_error(json.get(), request_)) {
        fail(std::move(*error));
        return false;
    }
    read_chunk(json.get(), chunk_);
    if (chunk_.text.empty()) {
        chunk_.text = rest_of_message(read_whole_message(json.get()));
    }
    return cJSON_IsObject(json.get());
}

// What a message that comes without a delta adds: some services tell all that
// was written so far.
std::string StreamReader::rest_of_message(const std::string& message) const
{
    const auto so_far = answer_.text + blank_;
    std::string_view rest = message;
    rest.remove_prefix(
        static_cast<std::size_t>(trim(rest).data() - rest.data()));
    return take_prefix(rest, so_far) ? std::string(rest) : "";
}

void StreamReader::take_chunk()
{
    merge_head(chunk_.head, answer_);
    const bool more = chunk_.grows_otherwise || !chunk_.text.empty() ||
                      !chunk_.refusal.empty();
    goes_on_ = goes_on_ || (more && !finish_reason_.empty());
    chunk_.text += chunk_.refusal;
    if (!chunk_.text.empty()) {
        join_halves();
        take_text(chunk_.text);
    }
    refused_ = refused_ || !chunk_.refusal.empty();
    if (!chunk_.finish_reason.empty()) {
        finish_reason_ = chunk_.finish_reason;
    }
}

// Half a character at the end of a text waits for the next one.
void StreamReader::join_halves()
{
    auto& text = chunk_.text;
    if (!half_.empty()) {
        text.erase(0, chunk_.low.empty() ? 0 : replacement.size());
        text.insert(0, meaning_of(half_ + chunk_.low));
    }
    if (!chunk_.high.empty()) {
        text.resize(text.size() - replacement.size());
    }
    half_ = chunk_.high;
}

void StreamReader::take_text(std::string_view text)
{
    if (text.empty()) {
        return;
    }

    auto solid = trim(text);
    if (answer_.text.empty()) {
        text.remove_prefix(
            static_cast<std::size_t>(solid.data() - text.data()));
    }

    if (solid.empty()) {
        blank_ += text;
    } else {
        auto end =
            static_cast<std::size_t>(solid.data() + solid.size() - text.data());
        blank_ += text.substr(0, end);
        answer_.text += blank_;
        blank_ = text.substr(end);
    }

    if (answer_.text.size() + blank_.size() > max_size_) {
        fail("the answer is " + larger_than(max_size_));
    }
}

}  // namespace chatbot
