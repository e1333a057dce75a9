// Profile: a worker's speed and a link's, learnt from what they did. Least squares on relative errors, old samples
// forgotten exponentially, so that a worker that slows down (a neighbour, a hot core) gets fewer tokens within some
// requests. Before the first sample: the defaults of cost_model.h. Not thread-safe; owned by the coordinator.
#pragma once

#include <cstdint>

#include "planner/cost_model.h"

namespace runahead {

// Fits y = p * u + q * v. The prior fixes the ratio p : q, weakly: samples that all look alike tell the scale but not
// the ratio. Never negative.
class TwoTermFit {
 public:
  TwoTermFit(double prior_p, double prior_q) : prior_p_(prior_p), prior_q_(prior_q) {}
  void add(double u, double v, double y);  // y > 0, u and v >= 0 and not both 0
  double p() const { return prior_p_ * scale_p_; }
  double q() const { return prior_q_ * scale_q_; }
  int64_t samples() const { return samples_; }

 private:
  void solve();

  double prior_p_, prior_q_;
  double uu_ = 0, uv_ = 0, vv_ = 0, uy_ = 0, vy_ = 0;  // normal equations of the scaled, relative problem
  double scale_p_ = 1, scale_q_ = 1;
  int64_t samples_ = 0;
};

class WorkerEstimate {
 public:
  explicit WorkerEstimate(const ModelCost& model);
  // What a rank measured: pure compute time of one chunk, without waits. Ignored if it is no time that can
  // be measured (limits::kSampleSecondsMin, kReportedSecondsMax).
  void add_chunk(TokenRange chunk, bool is_last_rank, double seconds);
  WorkerSpeed speed() const { return {.seconds_per_token = fit_.p(), .seconds_per_pair = fit_.q()}; }
  int64_t samples() const { return fit_.samples(); }

 private:
  ModelCost model_;
  TwoTermFit fit_;
};

class LinkEstimate {
 public:
  LinkEstimate();
  // A transfer that kept the link busy from its first to its last byte. Likewise.
  void add_transfer(double bytes, double seconds);
  LinkSpeed speed() const { return {.latency_seconds = fit_.p(), .bytes_per_second = 1 / fit_.q()}; }
  int64_t samples() const { return fit_.samples(); }

 private:
  TwoTermFit fit_;
};

}  // namespace runahead
