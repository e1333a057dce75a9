// Causal attention of a group of query rows over one K/V page: scores, one online-softmax step, values. All query heads
// of a group share the page; a page wholly in the past has no mask; on the diagonal page the keys after a row's own
// token get probability exactly zero. No mask tensor exists.
#pragma once

#include "kernels/cpu/number.h"
#include "kernels/ops.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kKeyVecs = kPageTokens / 16;

// One row's step. scores [64] is replaced by the probabilities in `weights` [64]; returns what the old sums shrink by.
template <class Num>
inline VecF softmax_step(const float* scores, int visible, float& row_max, float* row_sum,
                         typename Num::Element* weights) {
  VecF s[kKeyVecs];
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVecs; ++v) s[v] = load(scores + 16 * v);
  if (visible < kPageTokens)
    for (int v = 0; v < kKeyVecs; ++v) s[v] = keep_first(s[v], visible - 16 * v, kNoScore);
  const float page_max = reduce_max(max(max(s[0], s[1]), max(s[2], s[3])));
  const float new_max = page_max > row_max ? page_max : row_max;
  const VecF shrink = exp2(set1(row_max - new_max));
  row_max = new_max;
#pragma GCC unroll 4
  for (int v = 0; v < kKeyVecs; ++v) {
    VecF p = exp2(sub(s[v], set1(new_max)));
    if (visible < kPageTokens) p = keep_first(p, visible - 16 * v, 0.0f);
    Num::store_row(weights + 16 * v, p);
    s[v] = Num::load_row(weights + 16 * v);  // the sum is of the weights as they are rounded
  }
  store(row_sum, fma(load(row_sum), shrink, add(add(s[0], s[1]), add(s[2], s[3]))));
  return shrink;
}

// Scores of kRows rows with the page's 64 keys.
template <class Num, int kRows>
inline void score_tile(const AttendArgs& args, int r0, float* scores) {
  const auto* q = reinterpret_cast<const typename Num::Element*>(args.query) +
                  static_cast<size_t>(r0) * static_cast<size_t>(args.head_dim);
  const auto* keys = reinterpret_cast<const typename Num::Element*>(args.keys);
  for (int c = 0; c < kPageTokens; c += 16 * kWideTileVecs) {
    VecF acc[kRows][kWideTileVecs];
    for (auto& row : acc)
      for (VecF& x : row) x = zero();
    multiply_tile<Num, kRows, kWideTileVecs>({.a = q,
                                              .a_row = static_cast<size_t>(args.head_dim),
                                              .b = keys + c * Num::kPack,
                                              .b_step = kPageTokens * Num::kPack},
                                             args.head_dim / Num::kPack, acc);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kWideTileVecs; ++v) store(scores + r * kPageTokens + c + 16 * v, acc[r][v]);
  }
}

// out = out * shrink + weights * values, for kVecs * 16 columns from column c.
template <class Num, int kRows, int kVecs>
inline void value_tile(const AttendArgs& args, int r0, int c, int keys_used, const typename Num::Element* weights,
                       const VecF* shrink) {
  const auto dim = static_cast<size_t>(args.head_dim);
  float* out = args.out + static_cast<size_t>(r0) * dim + static_cast<size_t>(c);
  VecF acc[kRows][kVecs];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[r][v] = mul(load(out + static_cast<size_t>(r) * dim + 16 * v), shrink[r]);
  const auto* values = reinterpret_cast<const typename Num::Element*>(args.values) + c * Num::kPack;
  multiply_tile<Num, kRows, kVecs>({.a = weights, .a_row = kPageTokens, .b = values, .b_step = dim * Num::kPack},
                                   (keys_used + Num::kPack - 1) / Num::kPack, acc);
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) store(out + static_cast<size_t>(r) * dim + 16 * v, acc[r][v]);
}

template <class Num>
void attend_page(const AttendArgs& args) {
  alignas(64) float scores[kWideTileRows * kPageTokens];
  alignas(64) typename Num::Element weights[kWideTileRows * kPageTokens];
  VecF shrink[kWideTileRows];
  for (int r0 = 0; r0 < args.rows;) {
    with_tile_rows<kWideTileRows>(args.rows - r0, [&]<int kRows>() {
      score_tile<Num, kRows>(args, r0, scores);
      int keys_used = 0;
      for (int r = 0; r < kRows; ++r) {
        const int behind = args.position + (r0 + r) / args.group - args.page_position;
        const int visible = behind + 1 < kPageTokens ? behind + 1 : kPageTokens;
        keys_used = visible > keys_used ? visible : keys_used;
        shrink[r] = softmax_step<Num>(scores + r * kPageTokens, visible, args.row_max[r0 + r],
                                      args.row_sum + static_cast<size_t>(r0 + r) * 16, weights + r * kPageTokens);
      }
      int c = 0;
      for (; c + 16 * kWideTileVecs <= args.head_dim; c += 16 * kWideTileVecs)
        value_tile<Num, kRows, kWideTileVecs>(args, r0, c, keys_used, weights, shrink);
      for (; c < args.head_dim; c += 16) value_tile<Num, kRows, 1>(args, r0, c, keys_used, weights, shrink);
      r0 += kRows;
    });
  }
}

}  // namespace runahead::RUNAHEAD_ISA
