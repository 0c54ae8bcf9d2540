#pragma once

#include <deque>
#include <list>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "core/cache_health.hpp"
#include "core/errands.hpp"
#include "simulation/world.hpp"

namespace chatbot::simulation {

// The reactor's thread: the real Errands between an inbox and an outbox, and
// fakes of Redis and of the model.
class Thread final : public Errands::Services {
public:
    struct Order {
        enum class Kind { errand, listen, cancel };

        Kind kind;
        FlightId flight;
        Errand errand;
    };

    struct Call {
        ModelCall what;
        std::string answer;
        std::size_t written = 0;
        std::size_t told = 0;
        std::uint64_t deadline_ms = 0;
        bool hangs = false;  // and does not even end in time
        bool cancelled = false;
    };

    explicit Thread(World& world)
        : world_(world)
    {
    }

    void take_order()
    {
        auto order = std::move(inbox.front());
        inbox.pop_front();
        switch (order.kind) {
            case Order::Kind::errand:
                world_.say("errand " + std::to_string(order.flight));
                valid_s_[order.flight] = order.errand.cache_valid_s;
                errands.take(std::move(order.errand));
                return;
            case Order::Kind::listen:
                world_.say("listen " + std::to_string(order.flight));
                errands.listen(order.flight);
                return;
            case Order::Kind::cancel:
                world_.say("cancel " + std::to_string(order.flight));
                errands.cancel(order.flight);
                return;
        }
    }

    [[nodiscard]] bool redis_owes() const { return !pending_.empty(); }

    // Redis answers the oldest command.
    void redis_replies()
    {
        const auto command = pending_.front();
        pending_.pop_front();
        health.on_success();
        if (command.probe) {
            world_.say("redis: PONG");
            return;
        }

        std::optional<Answer> found;
        auto it = world_.redis.find(command.key);
        if (it != world_.redis.end() &&
            it->second.expires_s > world_.time_s()) {
            found = it->second.answer;
        }
        world_.say("redis: " + std::string(found ? "found " : "nothing ") +
                   std::to_string(command.flight));
        errands.on_lookup(command.flight, std::move(found));
    }

    void redis_is_lost()
    {
        world_.say("redis: lost");
        health.on_failure(world_.now());
        for (const auto& command : std::exchange(pending_, {})) {
            if (!command.probe) {
                errands.on_lookup(command.flight, std::nullopt);
            }
        }
    }

    // What is due: time-outs and probes.
    void on_time()
    {
        if (!pending_.empty() &&
            pending_.front().deadline_ms <= world_.now_ms) {
            redis_is_lost();
        }
        if (health.take_probe(world_.now())) {
            world_.say("redis: PING");
            push({.probe = true, .flight = 0, .key = {}, .deadline_ms = 0});
        }
        for (auto it = calls.begin(); it != calls.end();) {
            const auto& call = (it++)->second;
            if (call.deadline_ms <= world_.now_ms && !call.hangs) {
                end(call.what.flight, 504);
            }
        }
    }

    // The model writes a bit more.
    void model_writes(Call& call)
    {
        const auto left = call.answer.size() - call.written;
        call.written += left ? 1 + world_.random.below(left) : 0;
        world_.say("model: writes " + std::to_string(call.what.flight));
        hand_on(call);
    }

    // The model ends: with its answer, or with this status.
    void end(FlightId flight, int status = 0)
    {
        world_.say("model: ends " + std::to_string(flight) + " " +
                   std::to_string(status));
        auto& call = calls.at(flight);
        FlightEvent event;
        event.flight = flight;
        if (status == 0) {
            call.written = call.answer.size();
            hand_on(call);
            event.kind = FlightEvent::Kind::answered;
            event.answer.text = call.answer;
            if (call.what.api) {
                event.answer.reply = reply_with(call.answer);
            }
            event.answer.complete = !world_.random.one_in(8);
            event.answer.created = 1;  // its clock is wrong
        } else {
            event.problem = {.status = status,
                             .detail = "failed",
                             .reason = {},
                             .retry_after_s = 0};
        }
        calls.erase(flight);
        errands.on_model(std::move(event));
    }

    bool idle() const
    {
        return inbox.empty() && outbox.empty() && pending_.empty() &&
               calls.empty();
    }

    World& world_;
    std::deque<Order> inbox;
    std::list<FlightEvent> outbox;
    std::set<FlightId> unkept;  // their answers are for nobody else
    std::map<FlightId, Call> calls;
    CacheHealth health;
    Errands errands{*this};

private:
    // Three of them are more than waiters are answered with at once.
    static constexpr std::size_t long_answer = 100'000;

    struct Command {
        bool probe;
        FlightId flight;
        Key key;
        std::uint64_t deadline_ms;
    };

    void push(Command command)
    {
        command.deadline_ms = world_.now_ms + 250;
        pending_.push_back(command);
    }

    void hand_on(Call& call)
    {
        if (call.what.listen && call.written > call.told) {
            FlightEvent event;
            event.flight = call.what.flight;
            event.kind = FlightEvent::Kind::piece;
            event.piece =
                call.answer.substr(call.told, call.written - call.told);
            call.told = call.written;
            errands.on_model(std::move(event));
        }
    }

    std::int64_t time_s() override { return world_.time_s(); }

    bool look_up(std::size_t, FlightId flight, const Key& key) override
    {
        if (!world_.lives() || !health.up()) {
            return false;
        }
        push({.probe = false, .flight = flight, .key = key, .deadline_ms = 0});
        return true;
    }

    void store(std::size_t, const Key& key, int expire_s,
               const Answer& answer) override
    {
        world_.check(answer.complete, "an incomplete answer is stored");
        world_.check(answers(answer.text, question_of(key)) &&
                         has_its_reply(answer, question_of(key)),
                     "the answer to another question is stored");
        world_.check(!unkept.contains(flight_of(answer.text)),
                     "an answer is stored that nobody wants kept");
        world_.check(answer.created == world_.time_s(),
                     "an answer is stored with another time than now");
        if (world_.lives() && health.up() && world_.redis_up) {
            world_.redis[key] = {answer, world_.time_s() + expire_s};
        }
    }

    void ask(ModelCall&& what) override
    {
        if (!world_.lives()) {
            return;
        }
        Call call;
        call.answer = answer_to(
            what.question, what.flight,
            world_.random.one_in(64) ? long_answer : world_.random.below(40));
        call.deadline_ms =
            world_.now_ms + static_cast<unsigned>(what.settings->timeout_ms);
        call.hangs = world_.random.one_in(16);
        call.what = std::move(what);
        const auto flight = call.what.flight;
        world_.say("model: asked " + std::to_string(flight));
        world_.check(calls.try_emplace(flight, std::move(call)).second,
                     "the model is asked twice for one flight");
    }

    void listen(FlightId flight) override
    {
        auto it = calls.find(flight);
        if (world_.lives() && it != calls.end()) {
            it->second.what.listen = true;
        }
    }

    void cancel(FlightId flight) override
    {
        auto it = calls.find(flight);
        if (world_.lives() && it != calls.end()) {
            it->second.cancelled = true;
        }
    }

    void tell(FlightEvent&& event) override
    {
        if (!world_.lives()) {
            return;
        }
        world_.check(!ended_.contains(event.flight), "an errand ends twice");
        if (event.kind != FlightEvent::Kind::piece) {
            ended_.insert(event.flight);
        }
        if (event.kind == FlightEvent::Kind::hit) {
            world_.check(
                event.answer.created + valid_s_[event.flight] > world_.time_s(),
                "a stale answer is a hit");
        }
        outbox.push_back(std::move(event));
    }

    std::deque<Command> pending_;
    std::set<FlightId> ended_;
    std::map<FlightId, int> valid_s_;
};

}  // namespace chatbot::simulation
