// ThreadLane: the production ComputeLane: one thread. The engine's own threads work for it.
//   threads  run() and holds on the actor thread; the job on the lane's thread; the completion is posted back to the
//            executor.
//   owner    services; it outlives every actor that uses it, and is empty when it is destroyed.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "actors/worker/compute_lane.h"

namespace runahead {

class ThreadLane final : public ComputeLane {
 public:
  explicit ThreadLane(Clock& clock);
  ~ThreadLane() override;

  asio::awaitable<Timing> run(LaneOrder order, std::function<void()> work) override;
  bool may_go_on(LaneOrder order) override;
  void hold(LaneOrder order) override;
  void release(LaneOrder order) override;

 private:
  using Job = std::move_only_function<void()>;
  void serve();
  std::optional<Job> next_job();

  Clock& clock_;  // now() is read on both threads
  std::mutex mutex_;
  std::condition_variable changed_;
  LaneQueue<Job> jobs_;
  Time turn_began_{0};  // of the job in work; the lane's thread only
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace runahead
