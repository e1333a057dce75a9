// StallTimer: calls on_stall once when progress() has not been called for `limit` while started. progress() costs one
// look at the clock: the pending wait is moved only when it ends.
//   threads  the executor's only.
//   owner    the state that uses it, which start() is given to keep alive.
#pragma once

#include <functional>
#include <memory>

#include "base/async/wake.h"

namespace runahead {

class StallTimer {
 public:
  StallTimer(asio::any_io_executor executor, Clock& clock, std::function<void()> on_stall);

  // owner keeps this timer alive while it waits.
  void start(Duration limit, std::shared_ptr<const void> owner);
  void progress() { last_ = clock_.now(); }
  void stop() { started_ = false; }
  // As stop(), and lets go of the owner soon.
  void cancel();

 private:
  static asio::awaitable<void> watch(StallTimer* self, std::shared_ptr<const void> owner);

  asio::any_io_executor executor_;
  Clock& clock_;
  std::function<void()> on_stall_;
  Duration limit_{};
  Time last_{};
  Time looks_at_{};  // when watch() looks next
  bool started_ = false;
  bool watching_ = false;
  Wake changed_;
};

}  // namespace runahead
