// Files that a worker left behind, whatever is in them (journal.hpp).

#include <unistd.h>

#include <fstream>
#include <iterator>

#include "fuzz.hpp"
#include "journal/journal.hpp"
#include "journal/rejects.hpp"

using namespace chatbot;

namespace {

void write_file(const std::string& path, std::string_view bytes)
{
    std::ofstream(path, std::ios::binary) << bytes;
}

std::string read_file(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::string_view whole_lines(std::string_view bytes)
{
    return bytes.substr(0, bytes.rfind('\n') + 1);
}

// Ships all that a journal has; returns it.
std::string ship(Journal& journal)
{
    std::string all;
    for (Slice slice; !(slice = journal.next_slice()).empty();) {
        std::string lines;
        bool good = read_slice(slice, lines);
        assert(good && lines.ends_with('\n'));
        all += lines;
        journal.shipped(lines.size());
    }
    return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size)
{
    static const Directory dir;

    // A segment is read a megabyte at a time.
    FuzzedDataProvider input(data, size);
    std::size_t times = input.ConsumeIntegral<uint8_t>() == 0 ? 1000 : 1;
    auto part = input.ConsumeRemainingBytesAsString();
    std::string bytes;
    for (std::size_t i = 0; i < times; ++i) {
        bytes += part;
    }

    auto path = dir / "left-1-1.jsonl";
    write_file(path, bytes);
    {
        Journal journal(dir.path(), "new", 1024 * 1024 * 1024);
        auto found = find_orphans(dir.path(), "left", 1);
        assert(found.errors.empty() && !found.more);
        journal.adopt(std::move(found.segments));
        assert(journal.backlog() == whole_lines(bytes).size());
        assert(ship(journal) == whole_lines(bytes));
        assert(access(path.c_str(), F_OK) == -1);
    }

    auto rejected = dir / "rejected.jsonl";
    write_file(rejected, bytes);
    assert(find_orphans(dir.path(), "", 1).segments.empty());
    auto error = set_aside({.dir = dir.path(), .max_size = 1 << 30}, "{}\n");
    assert(error.empty());
    assert(read_file(rejected) == std::string(whole_lines(bytes)) + "{}\n");
    unlink(rejected.c_str());
    return 0;
}
