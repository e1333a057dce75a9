// RankClock: where the time of one rank goes, on its own machine's clock: the lane, the wait for pages, the wait for
// the lane, and what is left. The parts and `total` travel in RankTiming; clocks of two machines are never compared.
// Pure; owned by one attempt.
#pragma once

#include "actors/worker/compute_lane.h"
#include "base/clock.h"
#include "proto/common.pb.h"

namespace runahead {

class RankClock {
 public:
  explicit RankClock(Time arrived) : arrived_(arrived) {}

  void computed(ComputeLane::Timing timing) {
    compute_ += timing.computed;
    lane_wait_ += timing.waited;
  }
  void sampled(ComputeLane::Timing timing) {
    sample_ += timing.computed;
    lane_wait_ += timing.waited;
  }
  void waited_for_pages(Duration waited) { kv_wait_ += waited; }
  Duration compute() const { return compute_; }

  void report(Time now, proto::RankTiming& to) const {
    to.set_compute_seconds(seconds(compute_));
    to.set_kv_wait_seconds(seconds(kv_wait_));
    to.set_lane_wait_seconds(seconds(lane_wait_));
    to.set_sample_seconds(seconds(sample_));
    to.set_total_seconds(seconds(now - arrived_));
  }

 private:
  Time arrived_;
  Duration compute_{0}, kv_wait_{0}, lane_wait_{0}, sample_{0};
};

}  // namespace runahead
