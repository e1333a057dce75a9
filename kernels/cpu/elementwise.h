// Norms, rotary positions, and functions of single values.
#pragma once

#include <cmath>

#include "kernels/cpu/number_format.h"
#include "kernels/ops.h"

namespace runahead::RUNAHEAD_ISA {

inline void rms_norm(const NormArgs& args) {
  VecF sum = zero();
  for (int32_t i = 0; i < args.padded; i += 16) {
    const VecF v = load(args.x + i);
    sum = fma(v, v, sum);
  }
  const float mean = reduce_add(sum) / static_cast<float>(args.count);
  const VecF scale = set1(1.0f / __builtin_sqrtf(mean + args.epsilon));
  for (int32_t i = 0; i < args.padded; i += 16)
    store(args.out + i, mul(mul(load(args.x + i), scale), load(args.gain + i)));
}

inline void layer_norm(const NormArgs& args) {
  VecF sum = zero();
  for (int32_t i = 0; i < args.padded; i += 16) sum = add(load(args.x + i), sum);
  const VecF mean = set1(reduce_add(sum) / static_cast<float>(args.count));
  int32_t lanes[16];
  for (int lane = 0; lane < 16; ++lane) lanes[lane] = args.count - 1 - lane;
  const VecI last = load_bytes(lanes);  // lane l: the largest i whose value i + l is one
  VecF squares = zero();
  for (int32_t i = 0; i < args.padded; i += 16) {
    const VecF v = keep_where_least(sub(load(args.x + i), mean), last, i, 0.0f);
    squares = fma(v, v, squares);
  }
  const float variance = reduce_add(squares) / static_cast<float>(args.count);
  const VecF scale = set1(1.0f / __builtin_sqrtf(variance + args.epsilon));
  for (int32_t i = 0; i < args.padded; i += 16) {
    const VecF y = mul(mul(sub(load(args.x + i), mean), scale), load(args.gain + i));
    store(args.out + i, args.bias != nullptr ? add(y, load(args.bias + i)) : y);
  }
}

inline void gelu_row(float* x, int32_t k) {
  for (int32_t i = 0; i < k; i += 16) store(x + i, gelu(load(x + i)));
}

inline void soft_cap_row(float* x, float cap, int32_t k) {
  for (int32_t i = 0; i < k; i += 16) store(x + i, soft_cap(load(x + i), cap));
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
