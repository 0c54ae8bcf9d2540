#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

namespace chatbot {

// A Lane is the event loop's queue in front of one connection to one slow
// service (Redis, OpenAI, PostgreSQL).
//
// An idle lane sends an item at once.  While a batch is out, items wait; when
// it returns, everything that waited leaves as the next batch.  So the batch
// grows with the load by itself, and no item waits for a timer.
//
// Threads:    every member is called on the event loop only.  A batch belongs
//             to the worker thread from start() until finished(); nothing is
//             shared, so nothing is locked.
// Ownership:  items are moved in, and handed back to `done` by reference.
// Promise:    every item for which push() returned true reaches `done` exactly
//             once, in the order pushed, even if start() fails.
template <class Item>
class Lane {
public:
    using Batch = std::vector<Item>;

    // Has another thread work on the batch, then finished() called on the
    // event loop.  Returns false if it cannot; the items then come back as
    // they left.
    using Start = std::function<bool(Batch&)>;

    // Takes one batch back.  May push(), to this lane too.
    using Done = std::function<void(Batch&)>;

    Lane(std::size_t max_waiting, Start start, Done done)
        : max_waiting_(max_waiting),
          start_(std::move(start)),
          done_(std::move(done))
    {
    }

    Lane(const Lane&) = delete;
    Lane& operator=(const Lane&) = delete;

    // Returns false, leaving the item alone, if too many wait already.
    [[nodiscard]] bool push(Item&& item)
    {
        if (waiting_.size() == max_waiting_) {
            return false;
        }

        waiting_.push_back(std::move(item));
        send(false);
        return true;
    }

    // With `again` a batch leaves at once even if nothing waits: the service
    // still works on items of earlier batches.
    void finished(bool again = false)
    {
        done_(out_);
        out_.clear();
        busy_ = false;
        send(again);
    }

    [[nodiscard]] bool busy() const { return busy_; }

private:
    void send(bool even_if_empty)
    {
        if (busy_ || (waiting_.empty() && !even_if_empty)) {
            return;
        }

        std::swap(out_, waiting_);
        busy_ = true;

        if (!start_(out_)) {
            finished();
        }
    }

    const std::size_t max_waiting_;
    const Start start_;
    const Done done_;

    Batch waiting_;
    Batch out_;  // the worker thread's while busy_
    bool busy_ = false;
};

}  // namespace chatbot
