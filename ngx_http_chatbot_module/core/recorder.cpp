#include "core/recorder.hpp"

#include <memory>
#include <utility>

#include "core/route.hpp"
#include "text/invariant.hpp"

namespace chatbot {
namespace {

constexpr std::size_t max_portion = 256 * 1024;  // bytes of answers

constexpr int client_closed_request = 499;  // nginx's own

}  // namespace

void Seat::move_on(Stage next)
{
    invariant(static_cast<int>(next) == static_cast<int>(stage) + 1,
              "a question is not settled, recorded, answered, each once");
    stage = next;
}

Recorder::Recorder(Services& services, std::size_t journals)
    : services_(services),
      lines_(journals)
{
}

void Recorder::add(std::list<Seat>& seats, const SharedReply& reply)
{
    for (auto& seat : seats) {
        seat.move_on(Seat::Stage::settled);
        seat.reply = reply;
        seat.flight = nullptr;
        if (reply->hit) {
            seat.status = CacheStatus::hit;
        }
    }
    settled_.splice(settled_.end(), seats);
}

std::list<Seat> Recorder::record_some()
{
    auto seats = take_portion();
    for (auto& seat : seats) {
        complete(seat);
        if (seat.journal != Route::none) {
            append_line(lines_[seat.journal], seat.record);
            services_.release(seat.journal, seat.reserved);
        }
    }

    for (std::size_t journal = 0; journal < lines_.size(); ++journal) {
        write(seats, journal);
    }

    for (auto& seat : seats) {
        seat.move_on(Seat::Stage::recorded);
        services_.settled(seat.record, seat.journal != Route::none);
    }
    return seats;
}

std::list<Seat> Recorder::take_portion()
{
    std::size_t bytes = 0;
    auto end = settled_.begin();
    while (end != settled_.end() && bytes < max_portion) {
        const auto& answer = (end++)->reply->answer;
        bytes += answer.text.size() + answer.reply.size();
    }

    std::list<Seat> portion;
    portion.splice(portion.end(), settled_, settled_.begin(), end);
    return portion;
}

// Fills in what the answer says.
void Recorder::complete(Seat& seat)
{
    const auto& reply = *seat.reply;
    auto& record = seat.record;

    record.cache_status = to_string(seat.status);
    record.duration_ms = static_cast<int>(services_.now_ms() - seat.since_ms);
    record.call = reply.call;
    if (reply.problem) {
        record.status = "error";
        record.response_text = "Error: " + reply.problem.detail;
        record.http_status = reply.problem.status;
    } else {
        record.status = reply.hit ? "cached" : "success";
        record.response_text = reply.answer.text;
        record.http_status = 200;
        record.model = reply.answer.model;
        record.prompt_tokens = reply.answer.prompt_tokens;
        record.completion_tokens = reply.answer.completion_tokens;
        record.cached_tokens = reply.answer.cached_tokens;
        record.reasoning_tokens = reply.answer.reasoning_tokens;
    }
    if (!seat.waiter) {
        record.http_status = client_closed_request;
    }
}

// Writes the lines of a journal.
void Recorder::write(std::list<Seat>& seats, std::size_t journal)
{
    auto& lines = lines_[journal];
    const bool done = lines.empty() || services_.record(journal, lines);
    lines.clear();
    if (done) {
        return;
    }

    const auto unrecorded = refusal();
    for (auto& seat : seats) {
        if (seat.journal == journal) {
            seat.reply = unrecorded;
            seat.journal = Route::none;
        }
    }
}

void Recorder::leave_all()
{
    for (auto& seat : settled_) {
        seat.waiter = nullptr;
    }
}

SharedReply Recorder::refusal()
{
    auto reply = std::make_shared<Reply>();
    reply->problem = {503, "The request cannot be recorded at the moment.", "",
                      1};
    return reply;
}

}  // namespace chatbot
