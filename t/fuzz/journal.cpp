// A journal in the hands of processes that append, ship and die in any order
// (journal.hpp).

#include "journal/journal.hpp"

#include <deque>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "fuzz.hpp"

using namespace chatbot;

namespace {

constexpr std::uint64_t max_size = 64 * 1024;
constexpr std::uint64_t max_line = max_size / 4;

class Life {
public:
    explicit Life(const Directory& dir)
        : dir_(dir)
    {
        start();
    }
    ~Life()
    {
        journal_.reset();
        for (const auto& file :
             std::filesystem::directory_iterator(dir_.path())) {
            std::filesystem::remove(file);
        }
    }

    void reserve(std::size_t size)
    {
        if (journal_->reserve(size)) {
            reserved_.push_back(size);
        }
    }

    // Whoever was let in is recorded, even with more than was reserved.
    void append(std::size_t size)
    {
        if (reserved_.empty()) {
            return;
        }
        journal_->release(reserved_.front());
        reserved_.pop_front();

        auto line = std::to_string(++made_);
        line.resize(std::max(line.size(), size), ' ');
        bool good = journal_->append(line += '\n');
        assert(good);
        to_ship_.insert(made_);
    }

    // Between its start and its end things go on.
    void start_to_ship()
    {
        if (lines_.empty()) {
            slice_ = journal_->next_slice();
            if (!slice_.empty()) {
                bool good = read_slice(slice_, lines_);
                assert(good && lines_.ends_with('\n'));
            }
        }
    }

    void end_to_ship()
    {
        std::istringstream lines(std::exchange(lines_, {}));
        journal_->shipped(lines.str().size());
        for (std::string line; std::getline(lines, line);) {
            bool once = to_ship_.erase(std::stoul(line)) == 1;
            assert(once || restarted_);
        }
    }

    void fail_to_ship() { lines_.clear(); }

    // Its end may tear a line; another process adopts what it left.
    void restart(bool torn)
    {
        lines_.clear();
        restarted_ = true;
        journal_.reset();
        reserved_.clear();
        if (torn) {
            for (const auto& file :
                 std::filesystem::directory_iterator(dir_.path())) {
                std::ofstream(file.path(), std::ios::app) << "torn";
            }
        }
        start();
    }

    // Nothing is lost.
    void ship_all()
    {
        end_to_ship();
        do {
            adopt();
            for (start_to_ship(); !lines_.empty(); start_to_ship()) {
                end_to_ship();
            }
        } while (journal_->take_left_behind());
        assert(to_ship_.empty());
        assert(journal_->backlog() == 0);
    }

private:
    void adopt()
    {
        auto found = find_orphans(dir_.path(), "j", journal_->vacancies());
        assert(found.errors.empty());
        journal_->adopt(std::move(found.segments));
    }

    void start()
    {
        journal_ = std::make_unique<Journal>(dir_.path(), "j", max_size);
        adopt();
    }

    const Directory& dir_;
    std::unique_ptr<Journal> journal_;
    Slice slice_;
    std::string lines_;  // being shipped
    std::deque<std::size_t> reserved_;
    unsigned long made_ = 0;
    std::set<unsigned long> to_ship_;
    bool restarted_ = false;  // may ship again what was shipped before
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    static const Directory dir;

    FuzzedDataProvider input(data, size);
    Life life(dir);
    while (input.remaining_bytes() != 0) {
        auto size = input.ConsumeIntegralInRange<std::size_t>(0, max_line);
        switch (input.ConsumeIntegralInRange(0, 9)) {
            case 0:
                life.restart(input.ConsumeBool());
                break;
            case 1:
                life.start_to_ship();
                break;
            case 2:
                life.end_to_ship();
                break;
            case 3:
                life.fail_to_ship();
                break;
            case 4:
            case 5:
            case 6:
                life.reserve(size);
                break;
            default:
                life.append(size);
        }
    }
    life.ship_all();
    return 0;
}
