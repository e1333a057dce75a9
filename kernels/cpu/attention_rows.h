// The attention of the few rows of a decode step, which would leave most lanes of attention.h empty: here the lanes are
// 16 keys for the scores and 16 dimensions for the values, and the page is read as it lies. A step is in two halves, so
// that threads can share a row's pages: a page's part, which no other page has a say in, and the fold of the parts, in
// order. Every operation of a row is that of attention.h in the same order, so the bits are the same
// (tests/kernels/attention_test.cc).
//   part  a row: the page's maximum, the sum of its weights, the largest scaled weight, padding to 16 floats, then the
//         mix of its values [head_dim], not yet scaled
#pragma once

#include "kernels/cpu/attention_block.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kPartHead = 16;  // floats of a row's part before its mix
inline constexpr int kKeyVecs = kPageTokens / 16;

template <class Num>
struct Swapped : Num {  // the page is the vector, the query or weight is broadcast
  using Vec = typename Num::Vec;
  static auto dot(typename Num::Sum acc, Vec a, Vec b) { return Num::dot(acc, b, a); }
};

inline size_t part_row_floats(int32_t head_dim) { return kPartHead + static_cast<size_t>(head_dim); }

// Does some row not see all of the page?
inline bool is_masked(const AttendArgs& args) {
  const int32_t last = args.position + (args.tile.rows - 1) / args.tile.group;
  return args.position - args.page_position < kPageTokens - 1 ||
         (args.window > 0 && last - args.window + 1 > args.page_position);
}

// kMasked: some row does not see all of the page.
template <class Mode, int kRows, bool kMasked>
class PagePart {
  using Key = typename Mode::Scores::Element;
  using Value = typename Mode::Mix::Element;
  using Sum = typename Mode::Scores::Sum;
  static constexpr int kKeyPack = Mode::Scores::kPack, kPack = Mode::Mix::kPack;

 public:
  PagePart(const AttendArgs& args, float* part) : args_(args), layout_(args.tile.head_dim), part_(part) {
    if (args.next_keys == nullptr) return;
    const auto entries = static_cast<size_t>(kPageTokens) * static_cast<size_t>(args.tile.head_dim);
    constexpr size_t kScales = Mode::kScaled ? kPageTokens * sizeof(float) : 0;
    constexpr size_t kSums = Mode::kKeySums ? kPageTokens * sizeof(int32_t) : 0;
    next_keys_ = {args.next_keys, entries * sizeof(Key) + kScales + kSums};
    next_values_ = {args.next_values, entries * sizeof(Value) + kScales};
  }

  void run() {
    score();
    for (int r = 0; r < kRows; ++r) weigh(r);
    int32_t d = 0;
    for (; d + 64 <= args_.tile.head_dim; d += 64) mix<4>(d);
    for (; d < args_.tile.head_dim; d += 32) mix<2>(d);
    sum_weights();
  }

 private:
  float* part(int r) const { return part_ + static_cast<size_t>(r) * part_row_floats(args_.tile.head_dim); }

  // What of the next page is still to be fetched.
  struct Ahead {
    const std::byte* at = nullptr;
    size_t bytes = 0;

    void fetch(size_t most) {
      constexpr size_t kCacheLine = 64;
      const size_t end = bytes > most ? bytes - most : 0;
      for (; bytes > end; at += kCacheLine, bytes -= bytes < kCacheLine ? bytes : kCacheLine)
        __builtin_prefetch(at, 0, 2);
    }
  };

  // The tile in slices, between which a share of the next page is fetched: the whole of it at once would hold up this
  // page's own loads (5 % slower; without fetching, twice).
  template <class Num, int kVecs>
  static void multiply(TileOperands<Num> t, int k_steps, Sum (&acc)[kRows][kVecs], Ahead& next) {
    constexpr int kSlice = 4;
    constexpr size_t kShare = kSlice * kPageTokens * sizeof(int32_t) * 9 / 8;  // as much as it reads, and the scales
    for (; k_steps > 0; k_steps -= kSlice, t.a += kSlice * t.a_step, t.b += kSlice * t.b_step) {
      next.fetch(kShare);
      const TileOperands<Swapped<Num>> swapped{t.a, t.a_row, t.a_step, t.b, t.b_step, t.b_vec};
      multiply_tile<Swapped<Num>, kRows, kVecs>(swapped, k_steps < kSlice ? k_steps : kSlice, acc);
    }
  }

  void score() {
    Sum acc[kRows][kKeyVecs];
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kKeyVecs; ++v) {
        if constexpr (Mode::kKeySums) acc[r][v] = load_bytes(key_sums<Key>(args_.keys, args_.tile.head_dim) + 16 * v);
        else acc[r][v] = zero_sum<Sum>();
      }
    multiply<typename Mode::Scores>({.a = reinterpret_cast<const Key*>(args_.tile.data),
                                     .a_row = kKeyPack,
                                     .a_step = kBlockRows * kKeyPack,
                                     .b = reinterpret_cast<const Key*>(args_.keys),
                                     .b_step = kPageTokens * kKeyPack},
                                    args_.tile.head_dim / kKeyPack, acc, next_keys_);
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

  // Of 16 keys: lane i of `behind` is the last one that the row sees, less i; of `before` the first one, with the other sign,
  // and i more.
  struct Visible {
    Visible(const AttendArgs& args, int r) : windowed(args.window > 0) {
      if constexpr (!kMasked) return;
      const int32_t own = args.position + r / args.tile.group - args.page_position;
      int32_t last[16], first[16];
      for (int lane = 0; lane < 16; ++lane) last[lane] = own - lane, first[lane] = args.window - 1 - own + lane;
      behind = load_bytes(last), before = load_bytes(first);
    }
    VecF only(VecF x, int key, float other) const {
      if constexpr (!kMasked) return x;
      x = keep_where_least(x, behind, key, other);
      return windowed ? keep_where_least(x, before, -key, other) : x;
    }
    bool windowed;
    VecI behind = zero_int(), before = zero_int();
  };

  void weigh(int r) {
    const Visible visible(args_, r);
    const float* value_scales = token_scales<Value>(args_.values, args_.tile.head_dim);

    VecF query_scale = set1(*row_field(args_.tile, layout_.scale, r));
    VecF s[kKeyVecs], page_max = set1(kNoScore);
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVecs; ++v) {
      s[v] = load(scores_[r] + 16 * v);
      if (args_.soft_cap > 0) s[v] = soft_cap(Mode::kScaled ? mul(s[v], query_scale) : s[v], args_.soft_cap);
      s[v] = visible.only(s[v], 16 * v, kNoScore);
      page_max = max(page_max, s[v]);
    }
    if (args_.soft_cap > 0) query_scale = set1(1.0f);
    page_max = set1(reduce_max(page_max));
    if constexpr (Mode::kScaled) page_max = mul(page_max, query_scale);

    const VecF low = sub(zero(), page_max);
    VecF most = set1(1e-30f);
#pragma GCC unroll 4
    for (int v = 0; v < kKeyVecs; ++v) {
      VecF p = Mode::weight(Mode::kScaled ? fma(s[v], query_scale, low) : add(s[v], low));
      p = visible.only(p, 16 * v, 0.0f);
      store(scores_[r] + 16 * v, p);
      if constexpr (Mode::kScaled) p = visible.only(mul(p, load(value_scales + 16 * v)), 16 * v, 0.0f);
      most = max(most, p);
      s[v] = p;
    }
    float* out = part(r);
    out[0] = reduce_max(page_max), out[2] = reduce_max(most);
    if constexpr (Mode::kScaled) {
      const VecF unit = div(set1(Mode::kWeightMax), set1(out[2]));
      for (VecF& w : s) w = mul(w, unit);
    }
    for (int v = 0; v < kKeyVecs; ++v) Mode::store_weight_row(weights_[r] + 16 * v, s[v]);
  }

  // Key after key, as attention.h adds; the rows side by side, for each chain of additions waits for itself.
  void sum_weights() {
    float sum[kRows] = {};
    for (int j = 0; j < kPageTokens; ++j)
#pragma GCC unroll 5
      for (int r = 0; r < kRows; ++r) sum[r] += scores_[r][j];
    for (int r = 0; r < kRows; ++r) part(r)[1] = sum[r];
  }

  // 16 * kVecs dimensions from d.
  template <int kVecs>
  void mix(int32_t d) {
    const auto dim = static_cast<size_t>(args_.tile.head_dim);
    Sum acc[kRows][kVecs];
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[r][v] = zero_sum<Sum>();
    multiply<typename Mode::Mix>({.a = weights_[0],
                                  .a_row = kPageTokens,
                                  .b = reinterpret_cast<const Value*>(args_.values) + static_cast<size_t>(d) * kPack,
                                  .b_step = dim * kPack},
                                 (seen_keys() + kPack - 1) / kPack, acc, next_values_);
#pragma GCC unroll 5
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) store(part(r) + kPartHead + d + 16 * v, as_float(acc[r][v]));
  }

  // Of the page, by some row.
  int seen_keys() const {
    if constexpr (!kMasked) return kPageTokens;
    const int32_t behind = args_.position + (kRows - 1) / args_.tile.group - args_.page_position;
    return behind + 1 < kPageTokens ? behind + 1 : kPageTokens;
  }

  alignas(64) float scores_[kRows][kPageTokens];
  alignas(64) Value weights_[kRows][kPageTokens];
  const AttendArgs& args_;
  BlockLayout<Mode> layout_;
  float* part_;
  Ahead next_keys_, next_values_;
};

template <class Mode>
void attend_page_part(const AttendArgs& args, float* part) {
  const bool masked = is_masked(args);
  with_tile_rows<kPartRowsMax>(args.tile.rows, [&]<int kRows>() {
    if (masked) PagePart<Mode, kRows, true>(args, part).run();
    else PagePart<Mode, kRows, false>(args, part).run();
  });
}

// parts: of `count` pages in order; anew: the first of them is the tile's first.
template <class Mode>
void fold_page_parts(const AttentionTile& tile, bool anew, const float* parts, int32_t count) {
  const BlockLayout<Mode> layout(tile.head_dim);
  const size_t row_floats = part_row_floats(tile.head_dim);
  for (int32_t r = 0; r < tile.rows; ++r) {
    float* row_max = row_field(tile, layout.row_max, r);
    float* row_sum = row_field(tile, layout.row_sum, r);
    float* out = row_field(tile, layout.out, r);
    alignas(64) float mix[kHeadDimMax];
    for (int32_t d = 0; !anew && d < tile.head_dim; ++d) mix[d] = out[d * kBlockRows];
    VecF old_max = set1(anew ? kNoScore : *row_max), sum = set1(anew ? 0.0f : *row_sum);
    for (int32_t p = 0; p < count; ++p) {
      const float* part = parts + static_cast<size_t>(p * tile.rows + r) * row_floats;
      const VecF page_max = set1(part[0]), new_max = max(old_max, page_max);
      const VecF shrink = exp2(sub(old_max, new_max));
      VecF grow = exp2(sub(page_max, new_max));
      sum = fma(sum, shrink, mul(set1(part[1]), grow));
      if constexpr (Mode::kScaled) grow = mul(grow, mul(set1(part[2]), set1(1 / Mode::kWeightMax)));
      for (int32_t d = 0; d < tile.head_dim; d += 16) {
        const VecF fresh = mul(load(part + kPartHead + d), grow);
        store(mix + d, anew && p == 0 ? fresh : fma(load(mix + d), shrink, fresh));
      }
      old_max = new_max;
    }
    *row_max = reduce_max(old_max), *row_sum = reduce_max(sum);
    for (int32_t d = 0; d < tile.head_dim; ++d) out[d * kBlockRows] = mix[d];
  }
}

}  // namespace runahead::RUNAHEAD_ISA
