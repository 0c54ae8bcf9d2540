// What clients and models of the API send (core/api_request.hpp,
// openai/api_call.hpp, openai/events.hpp, openai/join.hpp).

#include "core/api_request.hpp"

#include "fuzz.hpp"
#include "openai/api_call.hpp"
#include "openai/chunk.hpp"
#include "openai/events.hpp"
#include "openai/join.hpp"
#include "openai/stream.hpp"
#include "text/json.hpp"

using namespace chatbot;

namespace {

void check_request(std::string_view body, ApiPath path)
{
    ApiRequest request;
    request.call.path = path;
    const auto problem = read_api_request(body, request);
    if (problem) {
        assert(problem.status == 400 && !problem.detail.empty());
        return;
    }

    assert(is_strict_json(request.canonical) && is_text(request.question));
    assert(is_strict_json("{" + request.call.members + "}"));

    ApiRequest again;
    again.call.path = path;
    assert(!read_api_request(request.canonical, again));
    assert(again.canonical == request.canonical);
    assert(again.question == request.question);
}

// One event behind the other, each with JSON on one line.
void check_events(std::string_view events)
{
    while (!events.empty()) {
        const auto end = events.find("\n\n");
        assert(end != events.npos);
        auto event = events.substr(0, end);
        events.remove_prefix(end + 2);
        assert(take_prefix(event, data_mark) || take_prefix(event, usage_mark));
        assert(event.find('\n') == event.npos && parse_foreign_json(event));
    }
}

void check_split(std::string_view reply)
{
    const auto events = split_reply(reply);
    check_events(events);
    assert(split_reply(reply) == events);
}

// A part of an answer, such as a model or a gateway may send.
std::string consume_chunk(FuzzedDataProvider& input)
{
    static constexpr std::string_view before[] = {
        "",
        R"("role":"assistant",)",
        R"("reasoning_content":"r",)",
        R"("tool_calls":[{"index":0,"function":{"arguments":"a"}}],)",
        R"("content":[{"type":"text","text":"t"}],)",
        R"("content":["x"],"reasoning_content":7,)",
        R"("audio":null,"x":"",)",
    };
    static constexpr std::string_view behind[] = {
        "",
        R"(,"logprobs":null,"finish_reason":null)",
        R"(,"logprobs":{"content":[{"token":"t"}]})",
        R"(,"finish_reason":"stop")",
        R"(,"index":1)",
        R"(,"message":{"content":"m"})",
        R"(,"logprobs":[])",
    };

    std::string chunk = R"({"id":"c","choices":[{"delta":{)";
    chunk += input.PickValueInArray(before);
    chunk += R"("content":)";
    append_json(chunk, to_utf8(input.ConsumeRandomLengthString(4)));
    chunk += '}';
    chunk += input.PickValueInArray(behind);
    return chunk + "}]}";
}

// Whatever is gathered before it is read, the reply is the same.
void check_join(const std::vector<std::string>& chunks)
{
    ReplyJoiner fast;
    ReplyJoiner slow;
    for (const auto& data : chunks) {
        Chunk chunk;
        fast.add(data, scan_chunk(data, chunk) ? chunk.written : "");
        slow.add(data);
    }
    const auto reply = print_json(fast.finish().get());
    assert(reply == print_json(slow.finish().get()));
    assert(is_strict_json(reply));
    check_split(reply);
}

void check_answer(const std::optional<Answer>& answer, const ReplyError& error)
{
    if (answer) {
        assert(parse_foreign_json(answer->reply));
        assert(is_text(answer->text) && is_text(answer->model));
    } else {
        assert(error.status != 0 || !error.reason.empty());
        assert(is_text(error.reason) && is_text(error.message));
    }
}

void check_stream(std::string_view bytes)
{
    StreamReader reader(1024 * 1024, "{}", true);
    (void)reader.feed(bytes);
    check_events(reader.events());
    ReplyError error;
    const auto answer = reader.finish_api(error);
    check_answer(answer, error);
    assert(!answer || is_strict_json(answer->reply));
}

// Events of `responses` go to the client as they came.
void check_relayed(std::string_view bytes)
{
    StreamReader reader(1024 * 1024, "{}", true, true);
    (void)reader.feed(bytes);
    ReplyError error;
    (void)reader.finish_api(error);
    assert(is_text(error.reason) && is_text(error.message));
}

void check_reply(const std::string& bytes)
{
    ReplyError error;
    const auto answer = read_api_reply(bytes, error, "{}");
    check_answer(answer, error);
    if (answer) {
        assert(answer->reply == bytes);
        check_events(answer->events);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    FuzzedDataProvider input(data, size);
    std::vector<std::string> chunks(input.ConsumeIntegralInRange(0, 12));
    for (auto& chunk : chunks) {
        chunk = consume_chunk(input);
    }
    check_join(chunks);

    const auto bytes = input.ConsumeRemainingBytesAsString();
    chunks.push_back(bytes);
    check_join(chunks);
    check_split(bytes);
    check_stream(bytes);
    check_relayed(bytes);
    check_reply(bytes);
    for (auto path : {ApiPath::completions, ApiPath::responses}) {
        check_request(bytes, path);
    }
    return 0;
}
