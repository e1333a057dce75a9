// Norms and rotary positions.
#pragma once

#include <cmath>

#include "kernels/cpu/number_format.h"

namespace runahead::RUNAHEAD_ISA {

inline void rms_norm(const float* x, const float* gain, float epsilon, int32_t k, float* out) {
  VecF sum = zero();
  for (int32_t i = 0; i < k; i += 16) {
    const VecF v = load(x + i);
    sum = fma(v, v, sum);
  }
  const float mean = reduce_add(sum) / static_cast<float>(k);
  const VecF scale = set1(1.0f / __builtin_sqrtf(mean + epsilon));
  for (int32_t i = 0; i < k; i += 16) store(out + i, mul(mul(load(x + i), scale), load(gain + i)));
}

inline void rotate(float* head, const float* cos_sin, int32_t head_dim) {
  const int32_t half = head_dim / 2;
  for (int32_t i = 0; i < half; i += 16) {
    const VecF a = load(head + i), b = load(head + half + i), c = load(cos_sin + i), s = load(cos_sin + half + i);
    store(head + i, sub(mul(a, c), mul(b, s)));
    store(head + half + i, add(mul(b, c), mul(a, s)));
  }
}

}  // namespace runahead::RUNAHEAD_ISA
