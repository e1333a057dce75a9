#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace runahead {
namespace {

// The pair, as a real number, that makes `turns` turns within the original context.
double pair_of_turns(double turns, float base, int32_t rotated, int32_t context) {
  return rotated * std::log(context / (turns * 2 * std::numbers::pi)) / (2 * std::log(double{base}));
}

// How much of its own speed YaRN leaves pair i: 1 all, 0 that of linear scaling.
double kept_speed(int32_t i, float base, int32_t rotated, const RopeScaling& s) {
  const double first = std::max(0.0, std::floor(pair_of_turns(s.beta_fast, base, rotated, s.original_context)));
  const double last = std::min(rotated - 1.0, std::ceil(pair_of_turns(s.beta_slow, base, rotated, s.original_context)));
  return 1 - std::clamp((i - first) / std::max(0.001, last - first), 0.0, 1.0);
}

}  // namespace

RopeConfig scaled_rope(float base, int32_t head_dim, int32_t rotated, const RopeScaling& s) {
  RopeConfig rope = no_rope(head_dim);
  rope.base = base;
  for (int32_t i = 0; i < rotated / 2; ++i) {
    const double divisor = s.divisors.empty() ? 1 : s.divisors[static_cast<size_t>(i)];
    const double own = std::pow(double{base}, -2.0 * i / rotated) / divisor, scaled = own / s.factor;
    const double kept = s.yarn ? kept_speed(i, base, rotated, s) : 0;
    rope.frequencies[static_cast<size_t>(i)] = s.yarn ? scaled * (1 - kept) + own * kept : scaled;
  }
  rope.magnitude = s.attention_factor;
  if (s.yarn && s.factor > 1) rope.magnitude *= 1 + 0.1f * std::log(s.factor);
  return rope;
}

RopeConfig no_rope(int32_t head_dim) { return {.frequencies = std::vector<double>(static_cast<size_t>(head_dim / 2))}; }

}  // namespace runahead
