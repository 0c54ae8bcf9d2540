// Replies of a model, whole (openai/protocol.hpp).

#include "fuzz.hpp"
#include "text/json.hpp"
#include "openai/protocol.hpp"

using namespace chatbot;

namespace {

void check_answer(const Answer& answer)
{
    assert(is_text(answer.text) && is_text(answer.model));
    assert(!answer.text.empty() && trim(answer.text) == answer.text);
    assert(answer.created >= 0);
    assert(answer.prompt_tokens >= -1 && answer.completion_tokens >= -1);
}

// One line for the error log, without what looks like a key.
void check_reason(std::string_view reason)
{
    assert(is_text(reason) && reason.size() <= 600);
    for (unsigned char c : reason) {
        assert(c >= 0x20 && c != 0x7F);
    }
    assert(reason.find("sk-") == reason.npos ||
           reason[reason.find("sk-") - 1] != ' ');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    std::string_view body(reinterpret_cast<const char*>(data), size);

    ReplyError problem;
    auto answer = read_reply(body, problem);
    if (answer) {
        check_answer(*answer);
    } else {
        assert(problem.status == 0 ||
               (problem.status >= 400 && problem.status < 600));
        assert(problem.status != 0 || !problem.reason.empty());
        check_reason(problem.reason);
    }

    auto request = R"({"model": "m", "stream_options": {}, "seed": 1})";
    for (int status : {400, 404, 500}) {
        auto error = read_error(status, body, request);
        assert(error.refused_member.empty() ||
               error.refused_member == "stream_options" ||
               error.refused_member == "seed");
        check_reason(error.reason);
        assert(error.reason.size() <= 500);
        assert(!error.model_missing || (status >= 400 && status < 500));
    }

    auto text = to_utf8(body);
    ModelSettings settings;
    settings.system_prompt = text;
    assert(!check_json(request_body(settings, text, {}, text, true)));
    settings.params.push_back({"x", param_value(body).value_or("0")});
    assert(!check_json(request_body(settings, text, {}, text, true)));

    std::string reply = "{\"choices\":[{\"message\":{\"content\":";
    append_json(reply, text);
    reply += "},\"finish_reason\":\"stop\"}]}";
    answer = read_reply(reply, problem);
    assert(answer.has_value() == !trim(text).empty());
    assert(!answer || (answer->text == trim(text) && answer->complete));
    return 0;
}
