// Canary: a completion of one token, over every prefill worker that is ready, on which readiness depends. It is asked for at the
// start, and again whenever workers have come or gone; meanwhile what it found last holds.
//   threads  the executor's one thread.
//   owner    what is passed in outlives it; destroy it after run() has returned.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "actors/inference.h"
#include "base/async/wake.h"

namespace runahead {

class Canary {
 public:
  using OnResult = std::function<void(bool passed, double seconds)>;

  Canary(asio::any_io_executor executor, Clock& clock, InferenceService& inference, Duration deadline,
         OnResult on_result);

  asio::awaitable<void> run();  // until stop()
  void stop();
  // Why no request would be served, beside what the cluster itself says; empty: the last one has passed.
  std::vector<std::string> reasons_not_ready() const;

 private:
  InferenceRequest request(const ClusterView& cluster) const;
  Task<void> complete(const ClusterView& cluster);

  Clock& clock_;
  InferenceService& inference_;
  const Duration deadline_;
  const OnResult on_result_;
  Wake stopped_;
  bool stopping_ = false;
  bool passed_ = false;
  std::string why_not_ = "no canary completion has been tried yet";
  std::set<WorkerId> passed_for_;  // the ready workers when it passed
};

}  // namespace runahead
