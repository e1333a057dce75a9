// Causal attention of one query group over one K/V page. All of it is transposed: the 16 lanes of a vector are 16 query
// rows, keys and values are broadcast from the page. So maxima and sums over keys are plain vector operations, a lane's
// result depends on nothing but its own row, and all query heads of a group share each K/V page.
//
//   page   a page that all rows see has no mask; on the diagonal page, and where a row's window begins, the keys that a row
//          does not see weigh exactly nothing. No mask tensor exists. A row that sees nothing of its first pages is as if
//          they were not there: its sums stay zero.
//   step   p = 2^(score - page_max) in the mode's number format; out = out * 2^(old_max - new_max) + sum p v *
//          2^(page_max - new_max). In the scaled modes a weight is p times its value's scale, relative to the largest
//          such product of the row and page: a model's attention sink has p near 1 and tiny values, and would leave the
//          others few bits.
#pragma once

#include "kernels/cpu/attention_rows.h"

namespace runahead::RUNAHEAD_ISA {

// kBlocks blocks of rows and one page. kMasked: some row does not see all of it.
template <class Mode, int kBlocks, bool kMasked>
class PageStep {
  using Key = typename Mode::Scores::Element;
  using Value = typename Mode::Mix::Element;
  using Sum = typename Mode::Scores::Sum;
  static constexpr int kKeyPack = Mode::Scores::kPack, kPack = Mode::Mix::kPack;

 public:
  PageStep(const AttendArgs& args, int32_t first_row)
      : args_(args), layout_(args.tile.head_dim), block_(block_of(args.tile, first_row, layout_)) {
    if constexpr (kMasked) {
      int32_t seen_most = 0;
      for (int32_t r = 0; r < kBlocks * kBlockRows; ++r) {
        const int32_t own = args.position + (first_row + r) / args.tile.group - args.page_position;
        behind_[r] = own < kPageTokens - 1 ? own : kPageTokens - 1;
        before_[r] = args.window - 1 - own;
        if (first_row + r < args.tile.rows && behind_[r] > seen_most) seen_most = behind_[r];
      }
      keys_ = seen_most + 1;
    }
  }

  void run() {
    score();
    if (args_.soft_cap > 0) cap_scores();
    for (int v = 0; v < kBlocks; ++v) weigh(v);
    mix();
  }

 private:
  static constexpr int kKeyStep = kAttendRows;  // keys, then value dimensions, that one register tile covers

  float* field(int v, size_t offset) const {
    return reinterpret_cast<float*>(block_ + static_cast<size_t>(v) * layout_.bytes + offset);
  }
  VecF only_visible(VecF x, int v, int key, float other) const {
    if constexpr (!kMasked) return x;
    x = keep_where_least(x, load_bytes(behind_ + v * kBlockRows), key, other);
    return args_.window > 0 ? keep_where_least(x, load_bytes(before_ + v * kBlockRows), -key, other) : x;
  }
  VecF query_scale(int v) const { return args_.soft_cap > 0 ? set1(1.0f) : load(field(v, layout_.scale)); }

  // scores_[key][v]: q . k, less the query's scale; page_max_[v] their maximum over the keys that a row sees.
  void score() {
    VecF most[kBlocks];
    for (VecF& m : most) m = set1(kNoScore);
    const auto* keys = reinterpret_cast<const Key*>(args_.keys);
    const float* scales = token_scales<Key>(args_.keys, args_.tile.head_dim);
    [[maybe_unused]] const int32_t* sums = key_sums<Key>(args_.keys, args_.tile.head_dim);
    for (int j = 0; j < keys_; j += kKeyStep) {
      Sum acc[kKeyStep][kBlocks];
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) {
          if constexpr (Mode::kKeySums) acc[r][v] = set1_int(sums[j + r]);
          else acc[r][v] = zero_sum<Sum>();
        }
      multiply_tile<typename Mode::Scores, kKeyStep, kBlocks>({.a = keys + j * kKeyPack,
                                                               .a_row = kKeyPack,
                                                               .a_step = kPageTokens * kKeyPack,
                                                               .b = reinterpret_cast<const Key*>(block_),
                                                               .b_step = kBlockRows * kKeyPack,
                                                               .b_vec = layout_.bytes / sizeof(Key)},
                                                              args_.tile.head_dim / kKeyPack, acc);
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) {
          VecF s = as_float(acc[r][v]);
          if constexpr (Mode::kScaled) s = mul(s, set1(scales[j + r]));
          s = only_visible(s, v, j + r, kNoScore);
          most[v] = max(most[v], s);
          store(scores_[j + r] + v * kBlockRows, s);
        }
    }
    for (int v = 0; v < kBlocks; ++v) page_max_[v] = most[v];
  }

  // scores_ are whole from here on, the query's scale included.
  void cap_scores() {
    for (int v = 0; v < kBlocks; ++v) {
      [[maybe_unused]] const VecF scale = load(field(v, layout_.scale));
      VecF most = set1(kNoScore);
      for (int j = 0; j < keys_; ++j) {
        float* at = scores_[j] + v * kBlockRows;
        const VecF s = Mode::kScaled ? mul(load(at), scale) : load(at);
        const VecF capped = only_visible(soft_cap(s, args_.soft_cap), v, j, kNoScore);
        most = max(most, capped);
        store(at, capped);
      }
      page_max_[v] = most;
    }
  }

  // The rows' maxima and sums move on; weights_ of block v come out, and by what old and new sums are scaled.
  void weigh(int v) {
    const bool first = args_.anew;
    [[maybe_unused]] const VecF scale = query_scale(v);
    const VecF page_max = Mode::kScaled ? mul(page_max_[v], scale) : page_max_[v];
    const VecF old_max = first ? set1(kNoScore) : load(field(v, layout_.row_max));
    const VecF new_max = max(old_max, page_max);
    shrink_[v] = exp2(sub(old_max, new_max));
    grow_[v] = exp2(sub(page_max, new_max));
    store(field(v, layout_.row_max), new_max);

    [[maybe_unused]] const float* value_scales = token_scales<Value>(args_.values, args_.tile.head_dim);
    const VecF low = sub(zero(), page_max);
    const int keys = (keys_ + kPack - 1) / kPack * kPack;
    VecF sum = zero(), most = set1(1e-30f);  // most: above zero, so that its inverse is finite
    for (int j = 0; j < keys; ++j) {
      float* at = scores_[j] + v * kBlockRows;
      const VecF exponent = Mode::kScaled ? fma(load(at), scale, low) : add(load(at), low);
      VecF p = only_visible(Mode::weight(exponent), v, j, 0.0f);
      sum = add(sum, p);
      if constexpr (Mode::kScaled) {
        p = only_visible(mul(p, set1(value_scales[j])), v, j, 0.0f);
        most = max(most, p);
      }
      store(at, p);
    }
    const VecF old_sum = first ? zero() : load(field(v, layout_.row_sum));
    store(field(v, layout_.row_sum), fma(old_sum, shrink_[v], mul(sum, grow_[v])));
    if constexpr (Mode::kScaled) grow_[v] = mul(grow_[v], mul(most, set1(1 / Mode::kWeightMax)));
    store_weights(v, div(set1(Mode::kWeightMax), most), keys);
  }

  void store_weights(int v, [[maybe_unused]] VecF unit, int keys) {
    Value* to = weights_ + v * kBlockRows * kPack;
    for (int j = 0; j < keys; j += kPack, to += kBlocks * kBlockRows * kPack) {
      VecF w[kPack];
#pragma GCC unroll 4
      for (int i = 0; i < kPack; ++i) {
        w[i] = load(scores_[j + i] + v * kBlockRows);
        if constexpr (Mode::kScaled) w[i] = mul(w[i], unit);
      }
      Mode::store_weights(to, w);
    }
  }

  // out = out * shrink + weights * values * grow.
  void mix() {
    const auto* values = reinterpret_cast<const Value*>(args_.values);
    const auto dim = static_cast<size_t>(args_.tile.head_dim);
    const bool first = args_.anew;
    for (int32_t d = 0; d < args_.tile.head_dim; d += kKeyStep) {
      Sum acc[kKeyStep][kBlocks];
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) acc[r][v] = zero_sum<Sum>();
      multiply_tile<typename Mode::Mix, kKeyStep, kBlocks>({.a = values + d * kPack,
                                                            .a_row = kPack,
                                                            .a_step = dim * kPack,
                                                            .b = weights_,
                                                            .b_step = kBlocks * kBlockRows * kPack},
                                                           (keys_ + kPack - 1) / kPack, acc);
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) {
          float* out = field(v, layout_.out) + (d + r) * kBlockRows;
          const VecF fresh = mul(as_float(acc[r][v]), grow_[v]);
          store(out, first ? fresh : fma(load(out), shrink_[v], fresh));
        }
    }
  }

  alignas(64) float scores_[kPageTokens][kBlocks * kBlockRows];
  alignas(64) Value weights_[kPageTokens * kBlocks * kBlockRows];
  alignas(64) int32_t behind_[kBlocks * kBlockRows];  // masked: the page's last key that a row sees
  alignas(64) int32_t before_[kBlocks * kBlockRows];  // and, of a window, its first one, with the other sign
  VecF page_max_[kBlocks], shrink_[kBlocks], grow_[kBlocks];
  const AttendArgs& args_;
  BlockLayout<Mode> layout_;
  std::byte* block_;
  int32_t keys_ = kPageTokens;  // that some row sees
};

template <class Mode>
void attend_page(const AttendArgs& args) {
  if (args.tile.rows <= kPartRowsMax) {
    alignas(64) float part[kPartRowsMax * (kPartHead + kHeadDimMax)];
    attend_page_part<Mode>(args, part);
    return fold_page_parts<Mode>(args.tile, args.anew, part, 1);
  }
  const int32_t blocks = (args.tile.rows + kBlockRows - 1) / kBlockRows;
  const bool masked = is_masked(args);
  for (int32_t b = 0; b < blocks;) {
    with_tile_rows<kAttendBlocks>(blocks - b, [&]<int kBlocks>() {
      if (masked) PageStep<Mode, kBlocks, true>(args, b * kBlockRows).run();
      else PageStep<Mode, kBlocks, false>(args, b * kBlockRows).run();
      b += kBlocks;
    });
  }
}

}  // namespace runahead::RUNAHEAD_ISA
