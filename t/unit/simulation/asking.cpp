#include <algorithm>
#include <cstdlib>

#include "simulation/worker.hpp"

// What clients ask, what they are answered, and what is recorded of it.

namespace chatbot::simulation {

void Client::on_text()
{
    auto& world = worker->world();
    if (!world.lives() ||
        !world.check(!in_ask, "a waiter is called from within ask()")) {
        return;
    }
    world.check(state == State::waiting, "told of text after the end");
    world.check(stream, "told of text without having asked for it");
    const auto text = Conductor::text(seat);
    world.check(!text.empty(), "told of text that is not there");
    world.check(text.starts_with(read), "the text changed");
    if (!slow) {
        read = text;
    }
    if (world.random.one_in(16)) {
        worker->leave(*this);  // its connection is found broken
    }
}

void Client::on_answer(const SharedReply& shared, CacheStatus status)
{
    const auto& reply = *shared;
    auto& world = worker->world();
    if (!world.lives()) {
        return;
    }
    world.say(id + " is answered");
    world.check(!in_ask, "a waiter is called from within ask()");
    world.check(state == State::waiting, "answered a second time");
    state = State::answered;

    const bool unrecorded =
        reply.problem &&
        reply.problem.detail.find("recorded") != std::string::npos;
    const auto row = world.recorded.find(id);
    world.check(unrecorded == (row == world.recorded.end()),
                "answered without a record");
    if (reply.problem || !world.fault.empty()) {
        return;
    }

    check_text(reply.answer, row->second);
    check_status(reply, status, row->second);

    if (world.random.one_in(8)) {
        worker->ask();  // the next request of the same connection
    }
}

void Client::check_text(const Answer& answer, const std::string& row) const
{
    auto& world = worker->world();
    const auto& text = answer.text;
    world.check(answers(text, question), "the answer to another question");
    world.check(has_its_reply(answer, question), "another service's reply");
    world.check(text.starts_with(read), "what was read is no prefix");
    world.check(row.find(text) != std::string::npos,
                "another answer is recorded");
}

void Client::check_status(const Reply& reply, CacheStatus status,
                          const std::string& row) const
{
    auto& world = worker->world();
    const auto expected = reply.hit ? CacheStatus::hit
                          : joined  ? CacheStatus::collapsed
                          : use != CacheUse::usual || question.empty()
                              ? CacheStatus::bypass
                              : CacheStatus::miss;
    world.check(status == expected, "another cache status");
    world.check(row.find(std::string("\"cache_status\":\"") +
                         to_string(expected) + '"') != row.npos,
                "another cache status is recorded");
    world.check(row.find(reply.hit ? "\"cached\"" : "\"success\"") != row.npos,
                "another status is recorded");
    world.check(!reply.hit || reply.ttl_s > 0, "a hit that is stale");
    world.check(!reply.hit || use == CacheUse::usual,
                "a kept answer for a client that wants a new one");
    world.check(reply.hit || flight_of(reply.answer.text) == flight,
                "the answer of another flight");
}

void Worker::ask()
{
    static const char* const questions[] = {"one", "two", "three", "four", ""};

    auto& random = world_.random;
    auto& client = clients_.emplace_back();
    client.worker = this;
    client.id = "c" + std::to_string(clients_.size());
    asked_route_ = random.below(routes_.size());
    client.question = questions[random.below(5)];
    if (asked_route_ == api_route && !client.question.empty()) {
        client.question = std::string(api_mark) + client.question;
    }
    client.stream = random.one_in(2);
    client.slow = random.one_in(3);
    client.use = random.one_in(6)   ? CacheUse::renew
                 : random.one_in(6) ? CacheUse::nothing
                                    : CacheUse::usual;
    asked_use_ = client.use;
    keyed_ = !client.question.empty() && client.use != CacheUse::nothing;
    world_.say(client.id + " asks \"" + client.question + "\" of route " +
               std::to_string(asked_route_) +
               (client.stream ? ", stream" : "") +
               (client.use == CacheUse::renew     ? ", no-cache"
                : client.use == CacheUse::nothing ? ", no-store"
                                                  : ""));
    ask_for(client);
}

// The flight that a client joins; 0: none.
FlightId Worker::find_open(const Client& client)
{
    for (const auto& [id, flight] : flights_) {
        if (keyed_ && asks_what(flight, asked_route_, client.question) &&
            (client.use == CacheUse::usual || flight.renews)) {
            return id;
        }
    }
    return 0;
}

void Worker::ask_for(Client& client)
{
    const auto open = find_open(client);
    const auto& route = routes_[asked_route_];
    asked_history_ = world_.random.below(3);
    asked_client_ = client.id;

    Record record;
    record.request_id = client.id;
    record.request_text = client.question;
    sent_ = 0;
    client.in_ask = true;
    const auto before = reserved_;
    client.seat = conductor_.ask(
        client, route,
        client.question.empty() ? std::nullopt
                                : std::optional(key_of(client.question)),
        std::move(record),
        {.stream = client.stream,
         .cache = client.use,
         .history = std::vector<Message>(asked_history_, {"user", "before"}),
         .client = asked_client_,
         .api = {.model = is_of_api(client.question) ? "m" : ""}});
    client.in_ask = false;

    client.unrecordable = reserved_ == before;
    const bool refused =
        client.unrecordable || conductor_.in_flight() > max_in_flight;
    client.joined = !refused && open;
    client.flight = refused ? 0 : open ? open : last_flight_;
    world_.check(world_.killed || sent_ == (refused || open ? 0 : 1),
                 "an errand too many, or none");
    world_.check(!refused || settle_, "a refusal that nobody will tell");
}

bool Worker::record(std::size_t, std::string_view lines)
{
    if (world_.until_kill == 1 && world_.random.one_in(2)) {
        // Killed within write(2): some lines are there, and half of one.
        const auto cut = world_.random.below(lines.size());
        const auto whole = lines.substr(0, lines.rfind('\n', cut) + 1);
        if (whole.size() <= cut && !whole.empty() && journal_.append(whole)) {
            note(whole);
            (void)world_.lives();
            world_.journal.tear(lines.substr(whole.size(), cut - whole.size()));
            return true;
        }
    }
    if (!world_.lives() || !world_.disk || !journal_.append(lines)) {
        refuse(lines);
        return false;
    }
    note(lines);
    return true;
}

Client& Worker::client_of(std::string_view line)
{
    return clients_.at(
        std::strtoul(std::string(id_of(line).substr(1)).c_str(), nullptr, 10) -
        1);
}

void Worker::refuse(std::string_view lines)
{
    for_each_line(lines,
                  [&](auto line) { client_of(line).unrecordable = true; });
}

void Worker::note(std::string_view lines)
{
    for_each_line(lines, [&](auto line) {
        auto id = std::string(id_of(line));
        const bool left = client_of(line).state == Client::State::left;
        world_.check(
            left == (line.find("\"http_status\":499") != line.npos),
            "499 is recorded for who did not leave, or not for who did");
        world_.say("recorded " + id);
        world_.check(world_.recorded.try_emplace(id, line).second,
                     "a request is recorded twice");
    });
}

}  // namespace chatbot::simulation
