#include "postgres/triage.hpp"

#include <algorithm>

#include "text/invariant.hpp"

namespace chatbot {
namespace {

constexpr std::size_t most_probes = 64;
constexpr std::size_t most_rehearsals = 8;

// Of a trial that costs the server much, in probes or rehearsals.
constexpr std::size_t high_price = 4;

// How many rounds the server's state is an excuse for a line.
constexpr int most_excuses = 6;

}  // namespace

Triage::Triage(std::size_t lines, std::size_t max_trial)
    : lines_(lines, State::open),
      undecided_(lines),
      max_trial_(std::max<std::size_t>(max_trial, 1))
{
}

void Triage::go_on(std::size_t others)
{
    others_ = others;
    rehearsals_ = std::min(others, most_rehearsals);
    probes_ = max_probes_;
    max_probes_ = std::min(2 * max_probes_, most_probes);
    retry_suspect_ = true;
    progress_ = false;

    std::replace(lines_.begin(), lines_.end(), State::excused, State::open);
    for (auto& [line, rounds] : excuses_) {
        rounds--;
    }
}

Triage::Trial Triage::next()
{
    if (finished()) {
        return {};
    }

    // At once: what went in just now would not prove much later.
    if (accuses()) {
        return {.kind = Trial::Kind::confirm,
                .lines = first(State::accused, confirmations_, lines_.size())};
    }
    return count(State::suspect, lines_.size()) != 0 ? look_for_progress()
                                                     : sweep();
}

// From the first open line on as many as may go in together.
Triage::Trial Triage::sweep() const
{
    auto known = count(State::open, refused_before_);
    auto n = known == 0
                 ? max_trial_
                 : std::min(std::max<std::size_t>(known / 2, 1), max_trial_);
    return {.lines = first(State::open, n, lines_.size())};
}

// Tries whether anything goes in, now that a line was refused: all others
// together, then lines of other batches, then single ones here and there.
Triage::Trial Triage::look_for_progress()
{
    if (retry_suspect_) {
        return {.lines = first(State::suspect, 1, lines_.size())};
    }

    auto open = first(State::open, no_limit, lines_.size());
    auto untried = count(State::open, refused_before_) == 0;
    if (open.size() > 1 && untried && max_trial_ > 1) {
        return sweep();
    }
    if (rehearsals_ != 0) {
        rehearsals_--;
        return {.kind = Trial::Kind::rehearse,
                .lines = {next_other_++ % others_}};
    }
    if (!open.empty() && probes_ != 0) {
        probe_last_ = !probe_last_;
        auto at = probe_last_ ? open.size() / 2 : open.size() - 1;
        return {.lines = {open[at]}};
    }
    return {};
}

void Triage::report(const Trial& trial, Result result, bool fast)
{
    retry_suspect_ = false;
    if (result == Result::inserted || result == Result::known) {
        on_inserted(trial, result == Result::inserted, fast);
    } else if (trial.kind != Trial::Kind::rehearse) {
        on_refused(trial, result);
    } else if (result == Result::unable) {
        rehearsals_ -= std::min(rehearsals_, high_price);
    }
}

void Triage::on_inserted(const Trial& trial, bool is_new, bool fast)
{
    if (is_new) {
        progress_ = true;
        accuse_suspects();
    }
    if (trial.kind == Trial::Kind::rehearse) {
        rehearsals_++;  // the next suspect may need it, too
        next_other_ = trial.lines.front();
        return;
    }

    for (auto line : trial.lines) {
        decide(line, State::inserted);
    }

    if (trial.kind == Trial::Kind::confirm) {
        confirmations_ *= 2;  // it was the table's fault
    } else if (fast && trial.lines.size() >= max_trial_ / 2) {
        max_trial_ = max_trial_ > no_limit / 2 ? no_limit : 2 * max_trial_;
    }
}

void Triage::decide(std::size_t line, State state)
{
    if (invariant(lines_[line] < State::inserted, "a line is decided twice")) {
        lines_[line] = state;
        undecided_--;
    }
}

void Triage::accuse_suspects()
{
    for (std::size_t i = 0; i < lines_.size(); i++) {
        if (lines_[i] == State::suspect) {
            lines_[i] = is_excused(i) ? State::excused : State::accused;
        }
    }
}

bool Triage::is_excused(std::size_t line) const
{
    auto excuse = excuses_.find(line);
    return excuse != excuses_.end() && excuse->second > 0;
}

bool Triage::accuses() const
{
    return count(State::accused, lines_.size()) != 0;
}

void Triage::on_refused(const Trial& trial, Result result)
{
    auto price = result == Result::refused ? 1 : high_price;
    auto is_probe = trial.single() && count(State::suspect, lines_.size()) != 0;
    if (is_probe) {
        probes_ -= std::min(probes_, price);
    }

    if (trial.kind == Trial::Kind::confirm) {
        confirmations_ = 1;
        if (trial.single()) {
            decide(trial.lines.front(), State::rejected);
        }
        return;
    }

    if (trial.single()) {
        auto line = trial.lines.front();
        if (result == Result::unable) {
            excuses_.try_emplace(line, most_excuses);
        }
        lines_[line] =
            progress_ && is_excused(line) ? State::excused : State::suspect;
        if (!is_probe) {
            refused_before_ = 0;
        }
    } else if (result == Result::out_of_time) {
        max_trial_ = trial.lines.size() / 2;
    } else {
        refused_before_ = trial.lines.back() + 1;
    }
}

std::size_t Triage::first_suspect() const
{
    auto suspect = std::find(lines_.begin(), lines_.end(), State::suspect);
    return static_cast<std::size_t>(suspect - lines_.begin());
}

std::vector<std::size_t> Triage::first(State state, std::size_t n,
                                       std::size_t end) const
{
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < end && found.size() < n; i++) {
        if (lines_[i] == state) {
            found.push_back(i);
        }
    }
    return found;
}

std::size_t Triage::count(State state, std::size_t end) const
{
    auto last = lines_.begin() + static_cast<std::ptrdiff_t>(end);
    return static_cast<std::size_t>(std::count(lines_.begin(), last, state));
}

}  // namespace chatbot
