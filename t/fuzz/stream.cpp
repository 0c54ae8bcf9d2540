// Replies of a model as a stream of events, cut anywhere (openai/stream.hpp).

#include "fuzz.hpp"
#include "text/json.hpp"
#include "openai/chunk.hpp"
#include "openai/stream.hpp"

using namespace chatbot;

namespace {

// What comes out of a stream, all of it.
struct Outcome {
    bool worth_reading = true;
    std::string pieces;
    std::optional<Answer> answer;
    ReplyError problem;
};

Outcome read(const std::vector<std::string_view>& pieces, std::size_t max_size)
{
    Outcome outcome;
    StreamReader reader(max_size);
    for (auto piece : pieces) {
        outcome.worth_reading = reader.feed(piece);
        if (!outcome.worth_reading) {
            break;
        }
    }
    outcome.pieces = reader.text();
    outcome.answer = reader.finish(outcome.problem);
    return outcome;
}

// What the scanner reads of a chunk, the tree reads too.
void check_scanner(std::string_view data)
{
    Chunk fast;
    if (!scan_chunk(data, fast)) {
        return;
    }

    Json json = parse_foreign_json(data);
    Chunk slow;
    assert(json && !find_error(json.get()));
    read_chunk(json.get(), slow);
    assert(fast.text == slow.text && fast.refusal == slow.refusal);
    assert(fast.finish_reason == slow.finish_reason);
    assert(fast.head.model == slow.head.model);
    assert(fast.head.created == slow.head.created);
    assert(fast.head.prompt_tokens == slow.head.prompt_tokens);
    assert(fast.head.completion_tokens == slow.head.completion_tokens);
    assert(fast.head.cached_tokens == slow.head.cached_tokens);
    assert(fast.head.reasoning_tokens == slow.head.reasoning_tokens);
}

void check(const Outcome& outcome, std::size_t max_size)
{
    assert(is_text(outcome.pieces));
    if (!outcome.answer) {
        assert(is_text(outcome.problem.reason));
        assert(outcome.problem.status != 0 || !outcome.problem.reason.empty());
        return;
    }

    assert(outcome.worth_reading);
    const auto& text = outcome.answer->text;
    assert(text.starts_with(outcome.pieces));
    assert(!text.empty() && text.size() <= max_size && trim(text) == text);
    assert(is_text(outcome.answer->model));
}

void check_equal(const Outcome& a, const Outcome& b)
{
    assert(a.worth_reading == b.worth_reading && a.pieces == b.pieces);
    assert(a.problem.reason == b.problem.reason);
    assert(a.answer.has_value() == b.answer.has_value());
    if (a.answer) {
        assert(a.answer->model == b.answer->model);
        assert(a.answer->created == b.answer->created);
        assert(a.answer->prompt_tokens == b.answer->prompt_tokens);
        assert(a.answer->completion_tokens == b.answer->completion_tokens);
        assert(a.answer->complete == b.answer->complete);
    }
}

// The stream of a model that writes these texts.
std::string written(const std::vector<std::string>& texts, const char* newline)
{
    std::string out;
    for (const auto& text : texts) {
        out += "data: {\"choices\":[{\"delta\":{\"content\":";
        append_json(out, text);
        ((out += "}}]}") += newline) += newline;
    }
    out += "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    (((out += newline) += newline) += "data:[DONE]") += newline;
    return out += newline;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    FuzzedDataProvider input(data, size);
    auto newline = input.PickValueInArray({"\n", "\r\n", "\r"});
    auto max_size =
        input.ConsumeBool() ? 1024 * 1024 : input.ConsumeIntegral<uint8_t>();
    auto sizes = input.ConsumeBytes<uint8_t>(
        input.ConsumeIntegralInRange<std::size_t>(0, 16));
    auto bytes = input.ConsumeRemainingBytesAsString();

    check_scanner(bytes);
    auto whole = read({bytes}, max_size);
    check(whole, max_size);
    check_equal(read(cut(bytes, sizes), max_size), whole);

    std::vector<std::string> texts;
    std::string all;
    for (auto piece : cut(bytes, sizes)) {
        texts.push_back(to_utf8(piece));
        all += texts.back();
    }
    auto outcome = read({written(texts, newline)}, 3 * size + 1);
    assert(outcome.worth_reading && outcome.pieces == trim(all));
    assert(outcome.answer.has_value() == !outcome.pieces.empty());
    assert(!outcome.answer || outcome.answer->complete);
    return 0;
}
