// ComputeLane: the only place where the model runs. Jobs are short (a slice of one layer of one request, or one decode
// step); between two of them the lane takes the one that is first in order (actors/worker/lane_queue.h). So a request that was
// admitted first ends first, a short one passes a long one, and a rank that waits for pages of one works on another. A job whose
// next slice nobody stands before goes on with it: a hand-over wakes two threads, and under a CPU limit the kernel's pauses fall
// into it, where no job is charged with them (a worker of 25 % of a core seemed a fifth faster than it was).
//   production  ThreadLane (actors/worker/thread_lane.h): one thread beside the io_context; the engine's own threads work
//               for it.
//   simulation  a lane on virtual time (tests/sim).
//   threads     run() and holds on the actor thread; `work` runs on the lane and does no I/O; may_go_on() within it.
#pragma once

#include <functional>
#include <utility>

#include "actors/worker/lane_queue.h"
#include "base/clock.h"
#include "base/task.h"

namespace runahead {

// So long a job goes on at most: its attempt sees by then that it was cancelled, and says how far it is (four times a second).
inline constexpr Duration kLaneTurn = std::chrono::milliseconds(200);

class ComputeLane {
 public:
  struct Timing {
    Duration waited{0};  // in the queue, while others computed
    Duration computed{0};  // on the lane
  };
  virtual ~ComputeLane() = default;
  // Runs `work` on the lane and resumes when it has ended. It cannot be cancelled: jobs are short.
  // The caller awaits it in the same statement, so `work` may capture by reference. Its std::bad_alloc comes here.
  virtual asio::awaitable<Timing> run(LaneOrder order, std::function<void()> work) = 0;

  // Within a job of `order`: it may do its next slice at once, for nobody before it waits and its turn is not over.
  virtual bool may_go_on(LaneOrder order) = 0;

  // "My next job is on its way." Released while the holder waits for anything but the lane, and when it ends.
  virtual void hold(LaneOrder order) = 0;
  virtual void release(LaneOrder order) = 0;
};

// One attempt's hold.
class LaneHold {
 public:
  LaneHold(ComputeLane& lane, LaneOrder order) : lane_(lane), order_(order) { acquire(); }
  ~LaneHold() { release(); }
  LaneHold(const LaneHold&) = delete;
  LaneHold& operator=(const LaneHold&) = delete;
  void acquire() {
    if (!std::exchange(held_, true)) lane_.hold(order_);
  }
  void release() {
    if (std::exchange(held_, false)) lane_.release(order_);
  }

 private:
  ComputeLane& lane_;
  LaneOrder order_;
  bool held_ = false;
};

}  // namespace runahead
