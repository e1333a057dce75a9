// Signal and StallTimer: the two ways in which the transports wait. Both live on the process's io_context thread, take
// time from the Clock, and are owned by the state that uses them, which every waiting coroutine keeps alive.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

// Asio calls give (error_code, ...) instead of throwing.
inline constexpr auto kAsTuple = asio::as_tuple(asio::use_awaitable);

// A wait that nothing but notify() needs to end.
inline constexpr Deadline kNoDeadline{Time::max()};

// A condition variable for coroutines of one thread: wait() returns at the next notify() or at the deadline, and may
// return early, so callers loop over their condition.
class Signal {
 public:
  Signal(asio::any_io_executor executor, const Clock& clock) : executor_(std::move(executor)), clock_(clock) {}
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  void notify();
  asio::awaitable<void> wait(Deadline deadline);

 private:
  asio::any_io_executor executor_;
  const Clock& clock_;
  std::vector<asio::steady_timer*> waiters_;  // in the frames of the coroutines that wait
};

// Calls on_stall once when progress() has not been called for `limit` while started. progress() costs one look at the
// clock: the pending timer is moved only when it fires.
class StallTimer {
 public:
  StallTimer(asio::any_io_executor executor, const Clock& clock, std::function<void()> on_stall)
      : clock_(clock), timer_(std::move(executor)), on_stall_(std::move(on_stall)) {}

  // owner keeps this timer alive while it waits.
  void start(Duration limit, std::shared_ptr<const void> owner);
  void progress() { last_ = clock_.now(); }
  void stop() { started_ = false; }
  // As stop(), and lets go of the owner soon.
  void cancel();

 private:
  void wait(std::shared_ptr<const void> owner);

  const Clock& clock_;
  asio::steady_timer timer_;
  std::function<void()> on_stall_;
  Duration limit_{};
  Time last_{};
  bool started_ = false;
  bool waiting_ = false;
};

}  // namespace runahead
