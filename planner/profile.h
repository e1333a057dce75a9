// Profile: a worker's speed and a link's, learnt from what they did (planner/robust_fit.h). Not thread-safe; owned by the
// coordinator.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "planner/cost_model.h"
#include "planner/robust_fit.h"

namespace runahead {

class WorkerEstimate {
 public:
  // `expected`: what it measured at its start, on a machine that may have been busy: one request outweighs it.
  WorkerEstimate(const ModelCost& model, const WorkerSpeed& expected);
  // What a rank measured: pure compute time of one chunk, without waits. Ignored if it is no time that can
  // be measured (limits::kSampleSecondsMin, kReportedSecondsMax).
  void add_chunk(TokenRange chunk, bool is_last_rank, double seconds);
  WorkerSpeed speed() const;
  int64_t samples() const { return fit_.samples(); }

 private:
  ModelCost model_;
  RobustFit fit_;
};

// Of several of one kind, itself among them: small differences are noise, which would move cuts from request to request, large
// ones are its own. A figure is drawn to their median by d^2 / (d^2 + kNoise^2), d its logarithmic distance (Wiener's weight): of
// 5 % a seventh stays, of 40 % nineteen twentieths.
double without_noise(double own, std::vector<double> alike);

// Workers of one device, as plans take them: one law for all, and how slow each is beside it. A rank of a chain sees chunks of
// one kind only (the first ones long without a prefix, the last ones short behind a long one), which tell a constant from a slope
// or a token from a pair for none of them alone, but for all together.
class DeviceEstimate {
 public:
  DeviceEstimate(const ModelCost& model, const WorkerSpeed& expected) : model_(model), law_(model, expected) {}
  // What `worker` did; `own` is what it has learnt of itself, this included.
  void add_chunk(uint64_t worker, const WorkerEstimate& own, TokenRange chunk, bool is_last_rank);
  // was_slower(worker): how slow it was beside its like when it was last known; 1 where nobody knows. What was remembered of a
  // machine in other days says who is slower than whom, and no more: how fast they are now, those say that have done something.
  // Somebody has.
  using WasSlower = std::function<double(uint64_t worker)>;
  WorkerSpeed speed_of(uint64_t worker, const WasSlower& was_slower) const;
  void remove(uint64_t worker) { members_.erase(worker); }
  bool is_empty() const { return members_.empty(); }

 private:
  struct Member {
    WorkerSpeed speed;  // by its own fit
    Work last;  // what it did last, for which that holds best
  };
  double slowness(const Member& member) const;
  double slowness_without_noise(const Member& member) const;

  ModelCost model_;
  WorkerEstimate law_;
  std::map<uint64_t, Member> members_;  // by worker; those that have done something
};

// The rate of a link. Its latency stays what was expected: transfers are timed while the link is busy for tens of milliseconds
// (ADR 20), which says nothing of it, and a rate that falls by ten must not make it ten times as long.
class LinkEstimate {
 public:
  LinkEstimate() : LinkEstimate(default_link()) {}
  explicit LinkEstimate(const LinkSpeed& expected);
  // A transfer that kept the link busy from its first to its last byte. Likewise.
  void add_transfer(double bytes, double seconds);
  LinkSpeed speed() const;
  int64_t samples() const { return fit_.samples(); }

 private:
  double latency_seconds_;
  RobustFit fit_;  // seconds of a byte
};

// What a prompt takes beyond its timeline, as a factor. The timeline knows no noise; in a chain every layer waits for whichever
// rank stutters, so the more ranks the more is lost. The median of the last prompts over about as many ranks.
class ChainStretch {
 public:
  // timeline_seconds: of workers as fast as they were in this very request, so that only what is between them counts.
  void add(int32_t ranks, double timeline_seconds, double measured_seconds);
  // 1 where nothing has been measured; of more ranks than ever what the most lost.
  double of(int32_t ranks) const;

 private:
  std::map<int32_t, std::deque<double>> last_;  // by ranks, rounded up to a power of two; none is empty
};

// What was learnt of workers that may come back, by who they are (WorkerRegistry::memory_key).
struct LearntSpeeds {
  WorkerSpeed speed;
  std::optional<double> link_bytes_per_second;  // into it
};
using SpeedMemory = std::map<std::string, LearntSpeeds>;

}  // namespace runahead
