// Mailbox<T>: a bounded queue between coroutines of one executor, one reader.
//   limits  push() says false when `capacity` items wait: the sender decides what that means (drop, cancel, refuse).
#pragma once

#include <deque>

#include "base/async/wake.h"
#include "base/task.h"

namespace runahead {

template <class T>
class Mailbox {
 public:
  Mailbox(asio::any_io_executor executor, Clock& clock, size_t capacity)
      : wake_(std::move(executor), clock), capacity_(capacity) {}

  [[nodiscard]] bool push(T item) {
    if (items_.size() >= capacity_) return false;
    items_.push_back(std::move(item));
    wake_.notify();
    return true;
  }

  // The oldest item; kDeadlineExceeded if none comes in time.
  Task<T> pop(Deadline deadline) {
    while (items_.empty()) {
      const bool in_time = co_await wake_.wait_until(deadline);
      if (!in_time) co_return fail(ErrorCode::kDeadlineExceeded, "nothing came in time");
    }
    T item = std::move(items_.front());
    items_.pop_front();
    co_return item;
  }

  // The newest waiting item, if any: senders merge into it instead of queueing another one.
  T* newest() { return items_.empty() ? nullptr : &items_.back(); }
  size_t size() const { return items_.size(); }

 private:
  Wake wake_;
  size_t capacity_;
  std::deque<T> items_;
};

}  // namespace runahead
