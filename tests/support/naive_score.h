// The oracle of log-probabilities: a softmax in double over all logits from the lowest id up, and a full sort.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include "model/sampling_params.h"

namespace runahead::test {

inline SampledToken naive_score(std::span<const float> logits, TokenId token, int32_t top) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  const double all = largest + std::log(sum);
  const auto logprob = [&](TokenId id) { return static_cast<float>(logits[static_cast<size_t>(id)] - all); };
  std::vector<TokenId> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::stable_sort(
      ids, [&](TokenId a, TokenId b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  SampledToken scored{.token = token, .logprob = logprob(token)};
  for (int32_t i = 0; i < std::min<int32_t>(top, static_cast<int32_t>(ids.size())); ++i)
    scored.top.push_back({ids[static_cast<size_t>(i)], logprob(ids[static_cast<size_t>(i)])});
  return scored;
}

}  // namespace runahead::test
