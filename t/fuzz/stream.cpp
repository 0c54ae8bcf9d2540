// Replies of a model as a stream of events, cut anywhere (openai_json.hpp).

#include "fuzz.hpp"
#include "text/json.hpp"
#include "openai/protocol.hpp"

using namespace chatbot;

namespace {

// What comes out of a stream, all of it.
struct Outcome {
    bool worth_reading = true;
    std::string pieces;
    std::optional<Answer> answer;
    Problem problem;
};

Outcome read(const std::vector<std::string_view>& pieces, std::size_t max_size)
{
    Outcome outcome;
    StreamReader reader(max_size);
    for (auto piece : pieces) {
        outcome.worth_reading = reader.feed(piece, outcome.pieces);
        if (!outcome.worth_reading) {
            break;
        }
    }
    outcome.answer = reader.finish(outcome.problem);
    return outcome;
}

void check(const Outcome& outcome, std::size_t max_size)
{
    assert(is_text(outcome.pieces));
    assert(outcome.answer.has_value() == !outcome.problem);
    if (!outcome.answer) {
        assert(outcome.problem.status == 502 &&
               is_text(outcome.problem.reason));
        return;
    }

    assert(outcome.worth_reading);
    assert(outcome.answer->text == outcome.pieces);
    assert(!outcome.pieces.empty() && outcome.pieces.size() <= max_size);
    assert(trim(outcome.pieces) == outcome.pieces);
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
