// ComputeLane: the only place where the model runs. A queue of short jobs (one layer of one request, or one decode
// step), first come, first served, so requests interleave between layers: a rank that waits for pages of one works on
// another.
//   production  ThreadLane (actors/thread_lane.h): one thread beside the io_context; the engine's own threads work for
//   it. simulation  a lane on virtual time (tests/sim). threads     run() is called on the actor thread and resumes
//   there; `work` runs on the lane and does no I/O.
#pragma once

#include <functional>

#include "base/clock.h"
#include "base/task.h"

namespace runahead {

class ComputeLane {
 public:
  struct Timing {
    Duration waited{0};    // in the queue
    Duration computed{0};  // on the lane
  };
  virtual ~ComputeLane() = default;
  // Runs `work` on the lane and resumes when it has ended. It cannot be cancelled: jobs are short.
  // The caller awaits it in the same statement, so `work` may capture by reference.
  virtual asio::awaitable<Timing> run(std::function<void()> work) = 0;
};

}  // namespace runahead
