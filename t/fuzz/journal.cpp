// A journal in the hands of processes that append, ship and die in any order
// (journal.hpp).

#include "journal/journal.hpp"

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "fuzz.hpp"

using namespace chatbot;

namespace {

constexpr std::uint64_t max_size = 16 * 1024;
constexpr std::uint64_t segment_size = max_size / 4;

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

    void append(std::size_t size)
    {
        bool roomy = journal_->has_room();
        auto line = std::to_string(++made_);
        line.resize(std::max(line.size(), size), ' ');
        if (journal_->append(line += '\n')) {
            to_ship_.insert(made_);
        } else {
            assert(!roomy || line.size() > segment_size / 4);
        }
        assert(journal_->backlog() <= max_size + segment_size);
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
        for (start_to_ship(); !lines_.empty(); start_to_ship()) {
            end_to_ship();
        }
        assert(to_ship_.empty());
        assert(journal_->backlog() == 0);
    }

private:
    void start()
    {
        journal_ = std::make_unique<Journal>(dir_.path(), "j", max_size);
        std::string error;
        journal_->adopt(find_orphans(dir_.path(), "j", error));
        assert(error.empty());
    }

    const Directory& dir_;
    std::unique_ptr<Journal> journal_;
    Slice slice_;
    std::string lines_;  // being shipped
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
        switch (input.ConsumeIntegralInRange(0, 7)) {
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
            default:
                life.append(input.ConsumeIntegralInRange<std::size_t>(
                    0, segment_size - 1));
        }
    }
    life.ship_all();
    return 0;
}
