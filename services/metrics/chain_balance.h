// What the reports of all ranks of a chain say of it: which rank bounded the time to first token, and how uneven the work was.
// Pure.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "actors/inference.h"

namespace runahead {

// A rank that waited for less than this share of its time was not held up by the one before it.
inline constexpr double kHeldUpShare = 0.1;

// Follows the wait for K/V from the last rank upstream, to the rank that was not held up. The page draws the same path
// (services/gateway/page/page.js, criticalPath()). ranks: not empty.
inline int32_t critical_rank(const std::vector<RankReport>& ranks) {
  auto rank = static_cast<int32_t>(ranks.size()) - 1;
  for (; rank > 0; --rank) {
    const RankReport& report = ranks[static_cast<size_t>(rank)];
    if (report.kv_wait_seconds < kHeldUpShare * (report.compute_seconds + report.kv_wait_seconds)) break;
  }
  return rank;
}

// Most over mean of what the ranks computed: 1 is balanced. 0: nothing was computed.
inline double imbalance_ratio(const std::vector<RankReport>& ranks) {
  double sum = 0, most = 0;
  for (const RankReport& rank : ranks) {
    const double computed = rank.compute_seconds + rank.sample_seconds;
    sum += computed;
    most = std::max(most, computed);
  }
  return sum > 0 ? most * static_cast<double>(ranks.size()) / sum : 0;
}

}  // namespace runahead
