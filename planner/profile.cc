#include "planner/profile.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"

namespace runahead {
namespace {

constexpr double kForget = 0.9;        // a sample weighs half after 7 more
constexpr double kRatioWeight = 1e-3;  // of the prior's ratio against one sample: decides only what samples leave open
constexpr double kScaleMin = 1e-6;  // nothing is a million times faster than its prior; keeps speeds positive

// Measured, and of this world: squares of its inverse are sums that doubles hold.
bool is_sample(double seconds) {
  return seconds >= limits::kSampleSecondsMin && seconds <= limits::kReportedSecondsMax;
}

}  // namespace

void TwoTermFit::add(double u, double v, double y) {
  RUNAHEAD_CHECK(y > 0 && u >= 0 && v >= 0 && u + v > 0, "a sample is positive");
  const double x = u * prior_p_ / y, z = v * prior_q_ / y;  // scale_p * x + scale_q * z should be 1
  uu_ = uu_ * kForget + x * x;
  uv_ = uv_ * kForget + x * z;
  vv_ = vv_ * kForget + z * z;
  uy_ = uy_ * kForget + x;
  vy_ = vy_ * kForget + z;
  ++samples_;
  solve();
}

void TwoTermFit::solve() {
  // Plus kRatioWeight * (size * (scale_p - scale_q))^2, where size makes the term independent of the prior's own scale.
  const double ratio = kRatioWeight * (uu_ + vv_);
  const double a = uu_ + ratio, b = uv_ - ratio, c = vv_ + ratio;
  const double det = a * c - b * b;
  scale_p_ = (uy_ * c - vy_ * b) / det;
  scale_q_ = (vy_ * a - uy_ * b) / det;
  // A negative part means that the other one explains everything.
  if (scale_p_ < kScaleMin) {
    scale_p_ = kScaleMin;
    scale_q_ = std::max(kScaleMin, vv_ > 0 ? vy_ / vv_ : 1);
  } else if (scale_q_ < kScaleMin) {
    scale_q_ = kScaleMin;
    scale_p_ = std::max(kScaleMin, uu_ > 0 ? uy_ / uu_ : 1);
  }
}

WorkerEstimate::WorkerEstimate(const ModelCost& model)
    : model_(model), fit_(default_speed(model).seconds_per_token, default_speed(model).seconds_per_pair) {}

void WorkerEstimate::add_chunk(TokenRange chunk, bool is_last_rank, double seconds) {
  if (!is_sample(seconds) || chunk.empty()) return;
  const Work work = chunk_work(model_, chunk, is_last_rank);
  fit_.add(work.tokens, work.pairs, seconds);
}

LinkEstimate::LinkEstimate() : fit_(default_link().latency_seconds, 1 / default_link().bytes_per_second) {}

void LinkEstimate::add_transfer(double bytes, double seconds) {
  if (!is_sample(seconds) || !(bytes >= 1 && bytes <= static_cast<double>(limits::kReportedBytesMax))) return;
  fit_.add(1, bytes, seconds);
}

}  // namespace runahead
