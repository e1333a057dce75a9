// SimWorld: virtual time, processes and the order of everything, decided by one seed. A process is one incarnation of a
// node: it has a clock of its own (offset and drift), the tasks that its coroutines have posted, and its timers. The
// world runs a random ready task; if none is ready, time jumps to the next timer. The same seed always gives the same
// trace.
//
//   pause    a process keeps its tasks and timers and runs none: SIGSTOP. Due timers fire in a burst at resume().
//   isolate  a process can be seen and reached by nobody any more: SIGKILL. What it holds is then taken down in private
//            time by run_isolated(), so that destructors run in an order that production knows; nothing of that can
//            reach another process. It shows, in passing, that stop() ends from any state.
//
// What Boost 1.81 asks for: destroying a suspended coroutine posts through its executor, so execute() of an ended
// process drops the function; an Asio timer on this executor would never fire, so time only comes from Clock
// (base/clock.h). Not thread-safe: a world lives on one thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/execution.hpp>
#include <boost/asio/execution_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "prng.h"

namespace runahead::test {

using NodeId = int32_t;
using Action = std::move_only_function<void()>;

class SimWorld;

// Timers of one owner, earliest first; equal times in the order they were set.
class TimerHeap {
 public:
  void push(Time due, uint64_t sequence, Action action);
  bool empty() const { return timers_.empty(); }
  Time next_due() const { return timers_.front().due; }
  Action pop();
  void clear() { timers_.clear(); }

 private:
  struct Timer {
    Time due;
    uint64_t sequence;
    Action action;
  };
  static bool later(const Timer& a, const Timer& b) { return a.due != b.due ? a.due > b.due : a.sequence > b.sequence; }
  std::vector<Timer> timers_;
};

class Process {
 public:
  enum class State { kRunning, kPaused, kIsolated, kEnded };

  Process(SimWorld& world, NodeId node, uint64_t incarnation);

  NodeId node() const { return node_; }
  uint64_t incarnation() const { return incarnation_; }
  State state() const { return state_; }
  bool reachable() const { return state_ == State::kRunning || state_ == State::kPaused; }

  Time now() const;  // this process's clock
  void post(Action action);
  void at(Time due, Action action);  // `due` on this process's clock
  asio::any_io_executor executor();
  // Starts a coroutine; an exception in it ends the program.
  void spawn(asio::awaitable<void> coroutine);
  int coroutines() const { return coroutines_; }

 private:
  friend class SimWorld;
  SimWorld& world_;
  const NodeId node_;
  const uint64_t incarnation_;
  State state_ = State::kRunning;
  double rate_ = 1;  // its seconds per second of the world
  Time offset_{0};  // its clock's start
  Duration private_time_{0};  // passed in run_isolated()
  std::vector<Action> ready_;
  TimerHeap timers_;
  int coroutines_ = 0;
};

class SimWorld : public asio::execution_context {
 public:
  explicit SimWorld(uint64_t seed);
  ~SimWorld();

  Prng rng;
  Time now() const { return now_; }
  uint64_t steps() const { return steps_; }
  uint64_t trace() const { return trace_; }

  // Something that belongs to no process: a message under way, the weather.
  void at(Time due, Action action);
  Process& start(NodeId node);
  void pause(Process& process);
  void resume(Process& process);
  void isolate(Process& process);
  // Runs tasks and timers of an isolated process only, until done() or nothing is left or steps_max is used up. True:
  // done.
  bool run_isolated(Process& process, const std::function<bool()>& done, uint64_t steps_max);
  // Nothing of it runs any more; its tasks are destroyed.
  void end(Process& process);
  // Nothing of it runs any more, and nothing of it is destroyed: for a process that is broken already.
  void bury(Process& process);

  // One task or timer; false when nothing is left before `until`, and then it is `until`.
  bool step(Time until);
  // Folded into the trace, for what the schedule alone does not show.
  void note(uint64_t value) { trace_ = (trace_ ^ value) * 1099511628211ull; }

 private:
  friend class Process;
  bool run_ready();
  bool run_timer(Time until);
  void run(Action action);

  Time now_{0};
  uint64_t steps_ = 0, sequence_ = 0, trace_ = 1469598103934665603ull;
  uint64_t incarnations_ = 0;
  std::vector<std::unique_ptr<Process>> processes_;  // all that ever were: executors point to them
  std::vector<Process*> live_;  // running or paused
  TimerHeap timers_;
};

// The least that converts to asio::any_io_executor.
struct ProcessExecutor {
  SimWorld* world;
  Process* process;

  asio::execution_context& query(asio::execution::context_t) const noexcept { return *world; }
  static constexpr asio::execution::blocking_t query(asio::execution::blocking_t) noexcept {
    return asio::execution::blocking.never;
  }
  ProcessExecutor require(asio::execution::blocking_t::never_t) const { return *this; }
  template <class F>
  void execute(F&& f) const {
    process->post(Action(std::forward<F>(f)));
  }
  friend bool operator==(const ProcessExecutor&, const ProcessExecutor&) noexcept = default;
};

}  // namespace runahead::test
