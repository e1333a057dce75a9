// SimClock: a process's clock. SimSignal: how a simulated device lets a coroutine of its process wait.
#pragma once

#include <memory>

#include "base/clock.h"
#include "sim_world.h"

namespace runahead::sim {

class SimClock final : public Clock {
 public:
  explicit SimClock(Process& process) : process_(process) {}
  Time now() const override { return process_.now(); }
  asio::awaitable<void> sleep_until(Time at) override;

 private:
  Process& process_;
};

// A condition variable of one process, one waiter at a time: wait() returns at notify() or at the deadline. A notify()
// without a waiter is kept.
class SimSignal {
 public:
  explicit SimSignal(Process& process) : process_(process), state_(std::make_shared<State>()) {}
  void notify();
  asio::awaitable<void> wait(Deadline deadline);

 private:
  struct State {
    Action waiter;
    uint64_t generation = 0;  // of the wait under way: an old timer does not end a new wait
    bool notified = false;
  };
  Process& process_;
  std::shared_ptr<State> state_;
};

}  // namespace runahead::sim
