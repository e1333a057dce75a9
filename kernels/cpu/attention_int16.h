// Attention over int16 pages. Each query, key and value is int16 with one fp32 scale of its own; dot products are
// exact.
//   scores   queries and keys are scaled by their length to 32,000, so that by Cauchy-Schwarz no sum leaves int32
//   values   are scaled by their largest entry; a row's probabilities, times the values' scales, are scaled to sum to
//            32,767 over the page, so that no sum leaves 2^30, and rounded to 15 bits of that
//   query row [head_dim] int16, then its scale
#pragma once

#include "kernels/cpu/attention.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr float kUnitLength = 32000;
inline constexpr float kUnitSum = 32767;

inline size_t int16_query_row_bytes(int32_t head_dim) {
  return static_cast<size_t>(head_dim) * sizeof(int16_t) + sizeof(float);
}

// Writes head * unit / size as int16 and returns the scale that undoes it.
inline float quantize_head(const float* head, int32_t head_dim, float size, float unit, int16_t* codes) {
  const VecF inverse = set1(size > 0 ? unit / size : 0.0f);
  for (int32_t i = 0; i < head_dim; i += 16) store_int16(codes + i, mul(load(head + i), inverse));
  return size / unit;
}

inline float length(const float* head, int32_t head_dim) {
  VecF sum = zero();
  for (int32_t i = 0; i < head_dim; i += 16) sum = fma(load(head + i), load(head + i), sum);
  return __builtin_sqrtf(reduce_add(sum));
}

inline void store_query_int16(const float* head, float scale, int32_t head_dim, std::byte* out) {
  const float undo =
      quantize_head(head, head_dim, length(head, head_dim), kUnitLength, reinterpret_cast<int16_t*>(out)) * scale;
  std::memcpy(out + static_cast<size_t>(head_dim) * sizeof(int16_t), &undo, sizeof(undo));
}

inline void store_key_int16(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  int16_t codes[kHeadDimMax];
  const float scale = quantize_head(head, head_dim, length(head, head_dim), kUnitLength, codes);
  auto* to = reinterpret_cast<int16_t*>(keys) + slot * 2;
  for (int32_t i = 0; i < head_dim; i += 2, to += kPageTokens * 2) std::memcpy(to, codes + i, 2 * sizeof(int16_t));
  reinterpret_cast<float*>(keys + static_cast<size_t>(kPageTokens * head_dim) * sizeof(int16_t))[slot] = scale;
}

inline void store_value_int16(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  int16_t codes[kHeadDimMax];
  VecF largest = zero();
  for (int32_t i = 0; i < head_dim; i += 16) largest = max(largest, abs(load(head + i)));
  const float scale = quantize_head(head, head_dim, reduce_max(largest), kInt16Max, codes);
  auto* to =
      reinterpret_cast<int16_t*>(values) + static_cast<size_t>(slot / 2) * static_cast<size_t>(head_dim) * 2 + slot % 2;
  for (int32_t i = 0; i < head_dim; ++i, to += 2) *to = codes[i];
  reinterpret_cast<float*>(values + static_cast<size_t>(kPageTokens * head_dim) * sizeof(int16_t))[slot] = scale;
}

struct RowStep {
  VecF shrink;  // what the old sums shrink by
  VecF scale;   // of the page's int32 sums of weights * values
};

// One row's online-softmax step. scores [64] int32; weights [64] int16 come out.
inline RowStep softmax_step_int16(const int32_t* scores, float query_scale, const float* key_scales,
                                  const float* value_scales, int visible, float& row_max, float* row_sum,
                                  int16_t* weights) {
  VecF s[kKeyVecs];
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVecs; ++v)
    s[v] = mul(to_float(load_bytes(scores + 16 * v)), mul(load(key_scales + 16 * v), set1(query_scale)));
  if (visible < kPageTokens)
    for (int v = 0; v < kKeyVecs; ++v) s[v] = keep_first(s[v], visible - 16 * v, kNoScore);
  const float page_max = reduce_max(max(max(s[0], s[1]), max(s[2], s[3])));
  const float new_max = page_max > row_max ? page_max : row_max;
  RowStep step;
  step.shrink = exp2(set1(row_max - new_max));
  row_max = new_max;
  VecF p[kKeyVecs], scaled[kKeyVecs];
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVecs; ++v) {
    p[v] = exp2(sub(s[v], set1(new_max)));
    if (visible < kPageTokens) p[v] = keep_first(p[v], visible - 16 * v, 0.0f);
    scaled[v] = mul(p[v], load(value_scales + 16 * v));
  }
  store(row_sum, fma(load(row_sum), step.shrink, add(add(p[0], p[1]), add(p[2], p[3]))));
  const float total = reduce_add(add(add(scaled[0], scaled[1]), add(scaled[2], scaled[3])));
  const VecF inverse = set1(total > 0 ? kUnitSum / total : 0.0f);
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVecs; ++v) store_int16(weights + 16 * v, mul(scaled[v], inverse));
  step.scale = set1(total / kUnitSum);
  return step;
}

template <int kRows>
inline void score_tile_int16(const AttendArgs& args, int r0, size_t query_stride, int32_t* scores) {
  const auto* q = reinterpret_cast<const int16_t*>(args.query) + static_cast<size_t>(r0) * query_stride;
  const auto* keys = reinterpret_cast<const int16_t*>(args.keys);
  for (int c = 0; c < kPageTokens; c += 16 * kWideTileVecs) {
    VecI acc[kRows][kWideTileVecs];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kWideTileVecs; ++v) acc[r][v] = zero_int();
    multiply_tile<Int16, kRows, kWideTileVecs>(
        {.a = q, .a_row = query_stride, .b = keys + c * 2, .b_step = kPageTokens * 2}, args.head_dim / 2, acc);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kWideTileVecs; ++v) store_bytes(scores + r * kPageTokens + c + 16 * v, acc[r][v]);
  }
}

// out = out * shrink + weights * values * scale, for kVecs * 16 columns from column c.
template <int kRows, int kVecs>
inline void value_tile_int16(const AttendArgs& args, int r0, int c, int keys_used, const int16_t* weights,
                             const RowStep* steps) {
  const auto dim = static_cast<size_t>(args.head_dim);
  VecI acc[kRows][kVecs];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[r][v] = zero_int();
  multiply_tile<Int16, kRows, kVecs>({.a = weights,
                                      .a_row = kPageTokens,
                                      .b = reinterpret_cast<const int16_t*>(args.values) + c * 2,
                                      .b_step = dim * 2},
                                     (keys_used + 1) / 2, acc);
  float* out = args.out + static_cast<size_t>(r0) * dim + static_cast<size_t>(c);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      float* to = out + static_cast<size_t>(r) * dim + 16 * v;
      store(to, fma(load(to), steps[r].shrink, mul(to_float(acc[r][v]), steps[r].scale)));
    }
}

inline void attend_page_int16(const AttendArgs& args) {
  alignas(64) int32_t scores[kWideTileRows * kPageTokens];
  alignas(64) int16_t weights[kWideTileRows * kPageTokens];
  RowStep steps[kWideTileRows];
  const size_t query_stride = int16_query_row_bytes(args.head_dim) / sizeof(int16_t);
  const size_t scales_at = static_cast<size_t>(kPageTokens * args.head_dim) * sizeof(int16_t);
  const auto* key_scales = reinterpret_cast<const float*>(args.keys + scales_at);
  const auto* value_scales = reinterpret_cast<const float*>(args.values + scales_at);
  for (int r0 = 0; r0 < args.rows;) {
    with_tile_rows<kWideTileRows>(args.rows - r0, [&]<int kRows>() {
      score_tile_int16<kRows>(args, r0, query_stride, scores);
      int keys_used = 0;
      for (int r = 0; r < kRows; ++r) {
        const int behind = args.position + (r0 + r) / args.group - args.page_position;
        const int visible = behind + 1 < kPageTokens ? behind + 1 : kPageTokens;
        keys_used = visible > keys_used ? visible : keys_used;
        float query_scale;
        std::memcpy(&query_scale, args.query + ((static_cast<size_t>(r0 + r) + 1) * query_stride - 2) * sizeof(int16_t),
                    sizeof(float));
        steps[r] = softmax_step_int16(scores + r * kPageTokens, query_scale, key_scales, value_scales, visible,
                                      args.row_max[r0 + r], args.row_sum + static_cast<size_t>(r0 + r) * 16,
                                      weights + r * kPageTokens);
      }
      int c = 0;
      for (; c + 16 * kWideTileVecs <= args.head_dim; c += 16 * kWideTileVecs)
        value_tile_int16<kRows, kWideTileVecs>(args, r0, c, keys_used, weights, steps);
      for (; c < args.head_dim; c += 16) value_tile_int16<kRows, 1>(args, r0, c, keys_used, weights, steps);
      r0 += kRows;
    });
  }
}

}  // namespace runahead::RUNAHEAD_ISA
