// The same step for the few rows of a decode step, which would leave most lanes of attention.h empty: the lanes are 16 keys
// for the scores and 16 dimensions for the values, and the page is read as it lies. Every operation of a row is that of
// attention.h in the same order, so the bits are the same (tests/kernels/attention_test.cc).
#pragma once

#include "kernels/cpu/attention_block.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kFewRows = 5;  // a decode row of one KV head: the groups of most models have 3 to 5 heads
inline constexpr int kKeyVecs = kPageTokens / 16;

template <class Num>
struct Swapped : Num {  // the page is the vector, the query or weight is broadcast
  using Vec = typename Num::Vec;
  static auto dot(typename Num::Sum acc, Vec a, Vec b) { return Num::dot(acc, b, a); }
};

template <class Mode, int kRows>
class RowsStep {
  using Key = typename Mode::Scores::Element;
  using Value = typename Mode::Mix::Element;
  using Sum = typename Mode::Scores::Sum;
  static constexpr int kKeyPack = Mode::Scores::kPack, kPack = Mode::Mix::kPack;

 public:
  explicit RowsStep(const AttendArgs& args) : args_(args), layout_(args.tile.head_dim) {}

  void run() {
    score();
    for (int r = 0; r < kRows; ++r) weigh(r);
    for (int32_t d = 0; d < args_.tile.head_dim; d += 32) mix(d);
  }

 private:
  float* field(size_t offset, int r) const { return reinterpret_cast<float*>(args_.tile.data + offset) + r; }

  void score() {
    Sum acc[kRows][kKeyVecs];
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kKeyVecs; ++v) {
        if constexpr (Mode::kKeySums)
          acc[r][v] = load_bytes(key_sums<Key>(args_.keys, args_.tile.head_dim) + 16 * v);
        else
          acc[r][v] = zero_sum<Sum>();
      }
    multiply_tile<Swapped<typename Mode::Scores>, kRows, kKeyVecs>({.a = reinterpret_cast<const Key*>(args_.tile.data),
                                                                    .a_row = kKeyPack,
                                                                    .a_step = kBlockRows * kKeyPack,
                                                                    .b = reinterpret_cast<const Key*>(args_.keys),
                                                                    .b_step = kPageTokens * kKeyPack},
                                                                   args_.tile.head_dim / kKeyPack, acc);
    const float* scales = token_scales<Key>(args_.keys, args_.tile.head_dim);
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kKeyVecs; ++v) {
        VecF s = as_float(acc[r][v]);
        if constexpr (Mode::kScaled) s = mul(s, load(scales + 16 * v));
        store(scores_[r] + 16 * v, s);
      }
  }

  void weigh(int r) {
    const bool first = args_.page_position == 0;
    const int32_t behind = args_.position + r / args_.tile.group - args_.page_position;
    int32_t behind_lane[16];
    for (int lane = 0; lane < 16; ++lane) behind_lane[lane] = behind - lane;
    const VecI least = load_bytes(behind_lane);
    const float* value_scales = token_scales<Value>(args_.values, args_.tile.head_dim);

    VecF s[kKeyVecs], page_max = set1(kNoScore);
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVecs; ++v) {
      s[v] = keep_where_least(load(scores_[r] + 16 * v), least, 16 * v, kNoScore);
      page_max = max(page_max, s[v]);
    }
    const VecF query_scale = set1(*field(layout_.scale, r));
    page_max = set1(reduce_max(page_max));
    if constexpr (Mode::kScaled) page_max = mul(page_max, query_scale);
    const VecF old_max = set1(first ? kNoScore : *field(layout_.row_max, r));
    const VecF new_max = max(old_max, page_max);
    shrink_[r] = exp2(sub(old_max, new_max));
    grow_[r] = exp2(sub(page_max, new_max));
    *field(layout_.row_max, r) = reduce_max(new_max);

    const VecF low = sub(zero(), page_max);
    VecF most = set1(1e-30f);
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVecs; ++v) {
      VecF p = Mode::weight(Mode::kScaled ? fma(s[v], query_scale, low) : add(s[v], low));
      p = keep_where_least(p, least, 16 * v, 0.0f);
      store(scores_[r] + 16 * v, p);
      if constexpr (Mode::kScaled) p = keep_where_least(mul(p, load(value_scales + 16 * v)), least, 16 * v, 0.0f);
      most = max(most, p);
      s[v] = p;
    }
    float sum = 0;
    for (float p : scores_[r]) sum += p;
    const VecF old_sum = set1(first ? 0.0f : *field(layout_.row_sum, r));
    *field(layout_.row_sum, r) = reduce_max(fma(old_sum, shrink_[r], mul(set1(sum), grow_[r])));
    if constexpr (Mode::kScaled) {
      most = set1(reduce_max(most));
      grow_[r] = mul(grow_[r], mul(most, set1(1 / Mode::kWeightMax)));
      for (VecF& w : s) w = mul(w, div(set1(Mode::kWeightMax), most));
    }
    for (int v = 0; v < kKeyVecs; ++v) Mode::store_weight_row(weights_[r] + 16 * v, s[v]);
  }

  // 32 dimensions from d.
  void mix(int32_t d) {
    const auto dim = static_cast<size_t>(args_.tile.head_dim);
    const int32_t last_behind = args_.position + (kRows - 1) / args_.tile.group - args_.page_position;
    const int keys = last_behind + 1 < kPageTokens ? last_behind + 1 : kPageTokens;
    Sum acc[kRows][2];
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = zero_sum<Sum>();
    multiply_tile<Swapped<typename Mode::Mix>, kRows, 2>(
        {.a = weights_[0],
         .a_row = kPageTokens,
         .b = reinterpret_cast<const Value*>(args_.values) + static_cast<size_t>(d) * kPack,
         .b_step = dim * kPack},
        (keys + kPack - 1) / kPack, acc);
    for (int r = 0; r < kRows; ++r)
      for (int v = 0; v < 2; ++v) {
        float* out = field(layout_.out, r) + (d + 16 * v) * kBlockRows;
        VecF fresh = mul(as_float(acc[r][v]), grow_[r]);
        alignas(64) float lanes[16];
        if (args_.page_position != 0) {
          for (int i = 0; i < 16; ++i) lanes[i] = out[i * kBlockRows];
          fresh = fma(load(lanes), shrink_[r], fresh);
        }
        store(lanes, fresh);
        for (int i = 0; i < 16; ++i) out[i * kBlockRows] = lanes[i];
      }
  }

  alignas(64) float scores_[kRows][kPageTokens];
  alignas(64) Value weights_[kRows][kPageTokens];
  VecF shrink_[kRows], grow_[kRows];
  const AttendArgs& args_;
  BlockLayout<Mode> layout_;
};

}  // namespace runahead::RUNAHEAD_ISA
