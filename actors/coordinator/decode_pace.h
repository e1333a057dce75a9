// DecodePace: how fast the cluster decodes and how long answers get, learnt from the tokens that come, for the guess at
// when a queue is empty (Retry-After). Pure; owned by CoordinatorCore.
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace runahead {

class DecodePace {
 public:
  // `tokens` more have come, of whatever requests.
  void decoded(size_t tokens, Time now) {
    const Duration gap = now - last_;
    last_ = now;
    if (gap > kIdle) return;  // nobody decoded: that says nothing of the speed
    tokens_ = tokens_ * kForget + static_cast<double>(tokens);
    seconds_ = seconds_ * kForget + seconds(gap);
  }
  void ended(int32_t tokens) {
    mean_tokens_ = mean_tokens_ < 0 ? tokens : mean_tokens_ + (tokens - mean_tokens_) * kNewAnswer;
  }

  // Of a request that may make `at_most` more tokens. 0 while nothing was measured.
  double expected_seconds(int32_t at_most) const {
    if (tokens_ <= 0) return 0;
    const double expected = mean_tokens_ < 0 ? at_most : std::min<double>(at_most, mean_tokens_);
    return expected * seconds_ / tokens_;
  }

 private:
  static constexpr Duration kIdle = std::chrono::seconds(1);  // far longer than a step
  static constexpr double kForget = 0.995;  // a message weighs half after 138 more
  static constexpr double kNewAnswer = 0.1;

  Time last_{0};
  double tokens_ = 0, seconds_ = 0;
  double mean_tokens_ = -1;  // of an answer; negative: none has ended
};

}  // namespace runahead
