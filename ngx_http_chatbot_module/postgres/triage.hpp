#pragma once

#include <cstddef>
#include <map>
#include <vector>

namespace chatbot {

// Decides which lines of a batch are refused for what they are.
//
// The code of an error does not tell whether a line is at fault or the table:
// so the test is whether other lines go in.  A line is set aside once it was
// refused, others went in after that, and it was refused again.  As long as no
// line goes in, none is set aside: the batch is held.
//
// Where the error tells of the server's state, this has to be seen in several
// rounds: on a disk that is nearly full some lines may go in, and some not.
//
// Lines that are refused are found by halving: k of n take about k log n
// trials.  A trial that takes too long is repeated with half the lines.
//
// Use:      make the trial that next() says and tell report() what it came to,
//           until next() returns none; then the batch is finished() or held,
//           and go_on() starts another round of trials.
// Threads:  any, one at a time.  It does no I/O.
class Triage {
public:
    static constexpr std::size_t no_limit = static_cast<std::size_t>(-1);

    enum class Result {
        inserted,     // all lines are committed
        known,        // the same, but they may all have been there already
        refused,      // none was inserted, for a reason that may be a line's
        unable,       // the same, but the server says that it is its own state
        out_of_time,  // none was inserted in time
    };

    struct Trial {
        enum class Kind {
            insert,
            confirm,   // the last trial of a line that was refused before
            rehearse,  // of a line of another batch, to be rolled back
        };

        Kind kind = Kind::insert;
        std::vector<std::size_t> lines;  // their numbers; empty: no trial

        [[nodiscard]] bool single() const { return lines.size() == 1; }
    };

    // A batch of `lines` lines, of which at most `max_trial` are to be tried at
    // once.
    explicit Triage(std::size_t lines, std::size_t max_trial = no_limit);

    // Starts a round of trials.  `others` lines of other batches can be
    // rehearsed.
    void go_on(std::size_t others);

    [[nodiscard]] Trial next();

    // `fast`: the trial took so little time that more lines can be tried at
    // once.
    void report(const Trial& trial, Result result, bool fast);

    // Whether each line is either inserted or set aside.
    [[nodiscard]] bool finished() const { return undecided_ == 0; }

    // Whether the line is to be set aside.
    [[nodiscard]] bool is_rejected(std::size_t line) const
    {
        return lines_[line] == State::rejected;
    }

    // The first line that was refused while nothing went in since.
    [[nodiscard]] std::size_t first_suspect() const;

    // Whether lines are about to be set aside unless they go in now.
    [[nodiscard]] bool accuses() const;

    // How many lines may be tried at once, as found so far.
    [[nodiscard]] std::size_t max_trial() const { return max_trial_; }

private:
    enum class State : unsigned char {
        open,      // not known to be refused
        suspect,   // refused; nothing went in since
        accused,   // refused, and others went in after that
        excused,   // the same, but it may be the server's state: next round
        inserted,  // decided
        rejected,  // decided
    };

    [[nodiscard]] std::vector<std::size_t> first(State state, std::size_t n,
                                                 std::size_t end) const;
    [[nodiscard]] std::size_t count(State state, std::size_t end) const;
    [[nodiscard]] Trial sweep() const;
    [[nodiscard]] Trial look_for_progress();
    void on_inserted(const Trial& trial, bool is_new, bool fast);
    void on_refused(const Trial& trial, Result result);
    void decide(std::size_t line, State state);
    void accuse_suspects();
    bool is_excused(std::size_t line) const;

    std::vector<State> lines_;
    std::size_t undecided_;
    std::size_t max_trial_;
    std::size_t confirmations_ = 1;       // accused lines to try at once
    std::map<std::size_t, int> excuses_;  // of lines, in rounds

    // Among the open lines before this one there is one that is refused; 0:
    // nothing is known.
    std::size_t refused_before_ = 0;

    std::size_t probes_ = 0;  // single lines that may be tried this round
    std::size_t max_probes_ = 16;
    std::size_t rehearsals_ = 0;  // lines of other batches to try this round
    std::size_t others_ = 0;
    std::size_t next_other_ = 0;
    bool retry_suspect_ = false;  // one of them opens the round
    bool progress_ = false;       // something went in this round
    bool probe_last_ = true;      // the last open line is the next probe
};

}  // namespace chatbot
