// Norms, rotary positions and the layout of queries, keys and values.
#pragma once

#include <cmath>

#include "kernels/cpu/number.h"

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

template <class Num>
void store_query(const float* head, float scale, int32_t head_dim, std::byte* out) {
  auto* to = reinterpret_cast<typename Num::Element*>(out);
  for (int32_t i = 0; i < head_dim; i += 16) Num::store_row(to + i, mul(load(head + i), set1(scale)));
}

// keys [head_dim / kPack, 64, kPack]: one token is a column.
template <class Num>
void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  typename Num::Element row[16];
  auto* to = reinterpret_cast<typename Num::Element*>(keys) + slot * Num::kPack;
  for (int32_t i = 0; i < head_dim; i += 16) {
    Num::store_row(row, load(head + i));
    for (int32_t j = 0; j < 16; j += Num::kPack, to += kPageTokens * Num::kPack)
      std::memcpy(to, row + j, Num::kPack * sizeof(*row));
  }
}

// values [64 / kPack, head_dim, kPack]: one token is every kPack-th element of a row.
template <class Num>
void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  typename Num::Element row[16];
  auto* to = reinterpret_cast<typename Num::Element*>(values) +
             static_cast<size_t>(slot / Num::kPack) * static_cast<size_t>(head_dim) * Num::kPack + slot % Num::kPack;
  for (int32_t i = 0; i < head_dim; i += 16) {
    Num::store_row(row, load(head + i));
    for (int32_t j = 0; j < 16; ++j, to += Num::kPack) *to = row[j];
  }
}

inline void finish_attention(float* out, const float* row_sum, int32_t rows, int32_t head_dim) {
  for (int32_t r = 0; r < rows; ++r, out += head_dim, row_sum += 16) {
    const VecF scale = set1(1.0f / reduce_add(load(row_sum)));
    for (int32_t i = 0; i < head_dim; i += 16) store(out + i, mul(load(out + i), scale));
  }
}

}  // namespace runahead::RUNAHEAD_ISA
