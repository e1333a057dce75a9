#include "planner/profile.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "base/limits.h"

namespace runahead {
namespace {

// Measured, and of this world: squares of its inverse are sums that doubles hold.
bool is_sample(double seconds) {
  return seconds >= limits::kSampleSecondsMin && seconds <= limits::kReportedSecondsMax;
}

RobustFit::Terms terms(const Work& work) { return {work.tokens, work.pairs, work.chunks, work.prefix_tokens}; }
RobustFit::Terms terms(const WorkerSpeed& speed) {
  return {speed.seconds_per_token, speed.seconds_per_pair, speed.seconds_per_chunk, speed.seconds_per_prefix_token};
}

// How far equal workers are apart by chance: the testbed's by 5 to 12 % from request to request (docs/benchmarks.md).
constexpr double kNoiseOfEquals = 0.12;

// The prompts whose median counts; and what is noise at most: more is something else, and not to be planned with.
constexpr size_t kStretchSamples = 7;
constexpr double kStretchMost = 1.5;

}  // namespace

double without_noise(double own, std::vector<double> alike) {
  RUNAHEAD_CHECK(!alike.empty(), "it is one of its kind");
  std::ranges::sort(alike);
  const double median = std::sqrt(alike[(alike.size() - 1) / 2] * alike[alike.size() / 2]);
  const double distance = std::log(own / median);
  const double kept = distance * distance / (distance * distance + kNoiseOfEquals * kNoiseOfEquals);
  return median * std::exp(kept * distance);
}

double DeviceEstimate::slowness(const Member& member) const {
  return compute_seconds(member.speed, member.last) / compute_seconds(law_.speed(), member.last);
}

double DeviceEstimate::slowness_without_noise(const Member& member) const {
  std::vector<double> all;
  for (const auto& [worker, other] : members_) all.push_back(slowness(other));
  return without_noise(slowness(member), std::move(all));
}

void DeviceEstimate::add_chunk(uint64_t worker, const WorkerEstimate& own, TokenRange chunk, bool is_last_rank) {
  const Member member{own.speed(), chunk_work(model_, chunk, is_last_rank)};
  members_.insert_or_assign(worker, member);
  // What is left of its time when its own slowness is out of it: by its own fit, which knows an outlier.
  law_.add_chunk(chunk, is_last_rank, compute_seconds(member.speed, member.last) / slowness_without_noise(member));
}

WorkerSpeed DeviceEstimate::speed_of(uint64_t worker, const WasSlower& was_slower) const {
  if (const auto member = members_.find(worker); member != members_.end())
    return scaled(law_.speed(), slowness_without_noise(member->second));
  std::vector<double> all;
  for (const auto& [id, member] : members_) all.push_back(slowness(member) / without_noise(was_slower(id), {1.0}));
  const auto median = all.begin() + std::ssize(all) / 2;
  std::ranges::nth_element(all, median);
  return scaled(law_.speed(), *median * without_noise(was_slower(worker), {1.0}));
}

WorkerEstimate::WorkerEstimate(const ModelCost& model, const WorkerSpeed& expected)
    : model_(model), fit_(terms(expected)) {}

WorkerSpeed WorkerEstimate::speed() const {
  const auto [per_token, per_pair, per_chunk, per_prefix_token] = fit_.coefficients();
  return {per_token, per_pair, per_chunk, per_prefix_token};
}

void WorkerEstimate::add_chunk(TokenRange chunk, bool is_last_rank, double seconds) {
  if (is_sample(seconds) && !chunk.empty()) fit_.add(terms(chunk_work(model_, chunk, is_last_rank)), seconds);
}

void ChainStretch::add(int32_t ranks, double timeline_seconds, double measured_seconds) {
  if (!is_sample(timeline_seconds) || !is_sample(measured_seconds)) return;
  std::deque<double>& last = last_[std::bit_ceil(static_cast<uint32_t>(ranks))];
  last.push_back(std::clamp(measured_seconds / timeline_seconds, 1 / kStretchMost, kStretchMost));
  if (last.size() > kStretchSamples) last.pop_front();
}

double ChainStretch::of(int32_t ranks) const {
  const auto found = last_.upper_bound(std::bit_ceil(static_cast<uint32_t>(ranks)));
  if (found == last_.begin()) return 1;
  const std::deque<double>& last = std::prev(found)->second;
  std::vector<double> sorted(last.begin(), last.end());
  std::ranges::sort(sorted);
  return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
}

LinkEstimate::LinkEstimate(const LinkSpeed& expected)
    : latency_seconds_(expected.latency_seconds), fit_({1 / expected.bytes_per_second}) {}

LinkSpeed LinkEstimate::speed() const {
  return {.latency_seconds = latency_seconds_, .bytes_per_second = 1 / fit_.coefficients()[0]};
}

void LinkEstimate::add_transfer(double bytes, double seconds) {
  if (is_sample(seconds) && bytes >= 1 && bytes <= static_cast<double>(limits::kReportedBytesMax))
    fit_.add({bytes}, seconds);
}

}  // namespace runahead
