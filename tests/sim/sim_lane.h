// SimLane: the compute lane on virtual time. Jobs run one after the other; how long each takes is drawn from the seed.
// A job's work is done at its start or at its end, by chance: a page that is read too early or changed too soon shows.
#pragma once

#include "actors/worker/compute_lane.h"
#include "sim_world.h"

namespace runahead::test {

struct LaneWeather {
  Duration job_mean = std::chrono::microseconds(300);
  double slow_probability = 0;  // of a job that takes slow_factor times as long
  int32_t slow_factor = 100;
};

class SimLane final : public ComputeLane {
 public:
  SimLane(Process& process, Prng& rng, const LaneWeather& weather) : process_(process), rng_(rng), weather_(weather) {}
  asio::awaitable<Timing> run(LaneOrder order, std::function<void()> work) override;
  bool may_go_on(LaneOrder order) override { return rng_.chance(0.5) && !jobs_.is_wanted_before(order); }
  void hold(LaneOrder order) override { jobs_.hold(order); }
  void release(LaneOrder order) override;
  // The next job takes so much longer: the process lives, its heart beats, and nothing moves.
  void stick(Duration time) { stuck_for_ = time; }

 private:
  struct Job {
    std::function<void()> work;
    Time queued{0}, started{0};
    Action resume;
  };
  void start_next();
  void start(std::shared_ptr<Job> job);

  Process& process_;
  Prng& rng_;
  const LaneWeather& weather_;
  Duration stuck_for_{0};
  LaneQueue<std::shared_ptr<Job>> jobs_;
  bool busy_ = false;
};

}  // namespace runahead::test
