// TTFT by stage: one list of stages, one table of names, one array of seconds. What shows them (the API, metrics, reports,
// jobs) goes through the list.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string_view>

namespace runahead {

enum class TtftStage : uint8_t {
  kQueue,
  kTokenize,
  kPlan,
  kDispatch,
  kPrefillCompute,
  kKvWait,
  kSample,
  kRespond,
  kOther
};

inline constexpr std::array kTtftStages = {TtftStage::kQueue,    TtftStage::kTokenize,       TtftStage::kPlan,
                                           TtftStage::kDispatch, TtftStage::kPrefillCompute, TtftStage::kKvWait,
                                           TtftStage::kSample,   TtftStage::kRespond,        TtftStage::kOther};

constexpr std::string_view name(TtftStage stage) {
  constexpr std::array<std::string_view, kTtftStages.size()> kNames = {
      "queue", "tokenize", "plan", "dispatch", "prefill_compute", "kv_wait", "sample", "respond", "other"};
  return kNames[static_cast<size_t>(stage)];
}

// Seconds. They partition the critical path: their sum is TTFT within 1 %.
class TtftStages {
 public:
  double& operator[](TtftStage stage) { return seconds_[static_cast<size_t>(stage)]; }
  double operator[](TtftStage stage) const { return seconds_[static_cast<size_t>(stage)]; }
  double sum() const { return std::accumulate(seconds_.begin(), seconds_.end(), 0.0); }

 private:
  std::array<double, kTtftStages.size()> seconds_{};
};

}  // namespace runahead
