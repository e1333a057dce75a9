// ThreadLane: the production ComputeLane: one thread, first come first served. The engine's own threads work for it.
//   threads  run() on the actor thread; the job on the lane's thread; the completion is posted back to the executor.
//   owner    services; it outlives every actor that uses it, and is empty when it is destroyed.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "actors/compute_lane.h"

namespace runahead {

class ThreadLane final : public ComputeLane {
 public:
  explicit ThreadLane(Clock& clock);
  ~ThreadLane() override;

  asio::awaitable<Timing> run(std::function<void()> work) override;

 private:
  void serve();

  Clock& clock_;  // now() is read on both threads
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::move_only_function<void()>> jobs_;  // bounded by the attempts in work: each has one job at a time
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace runahead
