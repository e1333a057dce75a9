// Causal attention of one query group over one K/V page. All of it is transposed: the 16 lanes of a vector are 16 query
// rows, keys and values are broadcast from the page. So maxima and sums over keys are plain vector operations, a lane's
// result depends on nothing but its own row, and all query heads of a group share each K/V page.
//
//   block  16 rows: query [head_dim / kPack, 16, kPack], then scale, offset, row_max, row_sum [16] each, then the sums
//          of the values out [head_dim, 16], fp32
//   page   a page wholly in the past has no mask; on the diagonal page the keys after a row's own token weigh exactly
//          nothing. No mask tensor exists.
//   step   p = 2^(score - page_max) in the mode's number format; out = out * 2^(old_max - new_max) + sum p v *
//          2^(page_max - new_max). Weights are relative to the page's own maximum, so that pages far below the row's
//          maximum (a model's attention sink is on the first) keep all their bits.
#pragma once

#include <type_traits>

#include "kernels/cpu/attention_formats.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kBlockRows = 16;

template <class Mode>
struct BlockLayout {
  explicit BlockLayout(int32_t head_dim)
      : scale(static_cast<size_t>(head_dim) * kBlockRows * sizeof(typename Mode::Element)),
        offset(scale + kFieldBytes),
        row_max(offset + kFieldBytes),
        row_sum(row_max + kFieldBytes),
        out(row_sum + kFieldBytes),
        bytes(out + static_cast<size_t>(head_dim) * kFieldBytes) {}
  static constexpr size_t kFieldBytes = kBlockRows * sizeof(float);
  size_t scale, offset, row_max, row_sum, out, bytes;
};

template <class Mode>
size_t attention_tile_bytes(int32_t rows, int32_t head_dim) {
  const auto blocks = static_cast<size_t>((rows + kBlockRows - 1) / kBlockRows);
  return blocks * BlockLayout<Mode>(head_dim).bytes;
}

template <class Mode>
inline std::byte* block_of(const AttentionTile& tile, int32_t row, const BlockLayout<Mode>& layout) {
  return tile.data + static_cast<size_t>(row / kBlockRows) * layout.bytes;
}

template <class Mode>
void store_query(const float* head, float scale, const AttentionTile& tile, int32_t row) {
  using Element = typename Mode::Element;
  constexpr int kPack = Mode::Scores::kPack;
  const BlockLayout<Mode> layout(tile.head_dim);
  std::byte* block = block_of(tile, row, layout);
  const int lane = row % kBlockRows;
  Element codes[kHeadDimMax];
  float scaled[kHeadDimMax];
  for (int32_t i = 0; i < tile.head_dim; i += 16) store(scaled + i, mul(load(head + i), set1(scale)));
  int32_t offset = 0;
  const float undo = Mode::encode_query(scaled, tile.head_dim, codes, offset);
  auto* to = reinterpret_cast<Element*>(block) + lane * kPack;
  for (int32_t i = 0; i < tile.head_dim; i += kPack, to += kBlockRows * kPack)
    std::memcpy(to, codes + i, kPack * sizeof(Element));
  reinterpret_cast<float*>(block + layout.scale)[lane] = undo;
  reinterpret_cast<int32_t*>(block + layout.offset)[lane] = offset;
}

template <class Mode>
void copy_query(const AttentionTile& from, int32_t from_row, const AttentionTile& to, int32_t to_row) {
  const BlockLayout<Mode> layout(from.head_dim);
  const auto* source = reinterpret_cast<const uint32_t*>(block_of(from, from_row, layout)) + from_row % kBlockRows;
  auto* target = reinterpret_cast<uint32_t*>(block_of(to, to_row, layout)) + to_row % kBlockRows;
  for (size_t at = 0; at < layout.row_max / sizeof(uint32_t); at += kBlockRows) target[at] = source[at];
}

template <class Mode>
void finish_attention(const AttentionTile& tile, int32_t row, float* out) {
  const BlockLayout<Mode> layout(tile.head_dim);
  const std::byte* block = block_of(tile, row, layout);
  const int lane = row % kBlockRows;
  const float scale = 1.0f / reinterpret_cast<const float*>(block + layout.row_sum)[lane];
  const auto* sums = reinterpret_cast<const float*>(block + layout.out) + lane;
  for (int32_t i = 0; i < tile.head_dim; ++i) out[i] = sums[i * kBlockRows] * scale;
}

// What all rows of a page share.
struct PageValues {
  float scale[kPageTokens];    // scaled modes: of each token's values, times weight_max / the largest of them
  float largest[kPageTokens];  // of the values' scales up to and with each token
};

template <class Mode>
inline void read_value_scales(const float* scales, PageValues& page) {
  float largest = 0;
  for (int j = 0; j < kPageTokens; ++j) page.largest[j] = largest = scales[j] > largest ? scales[j] : largest;
  const float inverse = largest > 0 ? Mode::kWeightMax / largest : 0.0f;
  for (int j = 0; j < kPageTokens; ++j) page.scale[j] = scales[j] * inverse;
}

// kBlocks blocks of rows and one page. kDiagonal: some row does not see all of it.
template <class Mode, int kBlocks, bool kDiagonal>
class PageStep {
  using Element = typename Mode::Element;
  using Sum = typename Mode::Scores::Sum;
  static constexpr int kPack = Mode::Scores::kPack;

 public:
  PageStep(const AttendArgs& args, const PageValues& page, int32_t first_row)
      : args_(args), page_(page), layout_(args.tile.head_dim), block_(block_of(args.tile, first_row, layout_)) {
    if constexpr (kDiagonal) {
      int32_t seen_most = 0;
      for (int32_t r = 0; r < kBlocks * kBlockRows; ++r) {
        const int32_t behind = args.position + (first_row + r) / args.tile.group - args.page_position;
        behind_[r] = behind < kPageTokens - 1 ? behind : kPageTokens - 1;
        if (first_row + r < args.tile.rows && behind_[r] > seen_most) seen_most = behind_[r];
      }
      keys_ = seen_most + 1;
    }
  }

  void run() {
    score();
    for (int v = 0; v < kBlocks; ++v) weigh(v);
    mix();
  }

 private:
  static constexpr int kKeyStep = kAttendRows;  // keys, then value dimensions, that one register tile covers

  float* field(int v, size_t offset) const {
    return reinterpret_cast<float*>(block_ + static_cast<size_t>(v) * layout_.bytes + offset);
  }
  static VecF as_float(VecF x) { return x; }
  static VecF as_float(VecI x) { return to_float(x); }
  Sum score_start(int v) const {
    if constexpr (std::is_same_v<typename Mode::Scores, Int8Scores>)
      return load_bytes(field(v, layout_.offset));
    else
      return zero_sum();
  }
  static Sum zero_sum() {
    if constexpr (std::is_same_v<Sum, VecF>)
      return zero();
    else
      return zero_int();
  }
  VecF only_visible(VecF x, int v, int key, float other) const {
    if constexpr (kDiagonal)
      return keep_where_least(x, load_bytes(behind_ + v * kBlockRows), key, other);
    else
      return x;
  }

  // scores_[key][v]: q . k, less the query's scale; page_max_[v] their maximum over the keys that a row sees.
  void score() {
    for (VecF& m : page_max_) m = set1(kNoScore);
    const auto* keys = reinterpret_cast<const Element*>(args_.keys);
    const auto* scales = reinterpret_cast<const float*>(keys + kPageTokens * args_.tile.head_dim);
    for (int j = 0; j < keys_; j += kKeyStep) {
      Sum acc[kKeyStep][kBlocks];
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) acc[r][v] = score_start(v);
      multiply_tile<typename Mode::Scores, kKeyStep, kBlocks>({.a = keys + j * kPack,
                                                               .a_row = kPack,
                                                               .a_step = kPageTokens * kPack,
                                                               .b = reinterpret_cast<const Element*>(block_),
                                                               .b_step = kBlockRows * kPack,
                                                               .b_vec = layout_.bytes / sizeof(Element)},
                                                              args_.tile.head_dim / kPack, acc);
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) {
          VecF s = as_float(acc[r][v]);
          if constexpr (Mode::kScaled) s = mul(s, set1(scales[j + r]));
          s = only_visible(s, v, j + r, kNoScore);
          page_max_[v] = max(page_max_[v], s);
          store(scores_[j + r] + v * kBlockRows, s);
        }
    }
  }

  // The rows' maxima and sums move on; weights_ of block v come out, and by what old and new sums are scaled.
  void weigh(int v) {
    const bool first = args_.page_position == 0;
    const VecF query_scale = load(field(v, layout_.scale));
    const VecF page_max = Mode::kScaled ? mul(page_max_[v], query_scale) : page_max_[v];
    const VecF old_max = first ? set1(kNoScore) : load(field(v, layout_.row_max));
    const VecF new_max = max(old_max, page_max);
    shrink_[v] = exp2(sub(old_max, new_max));
    grow_[v] = exp2(sub(page_max, new_max));
    store(field(v, layout_.row_max), new_max);

    VecF value_scale = zero();  // diagonal page: weight_max / the largest scale that the row sees
    if constexpr (Mode::kScaled && kDiagonal) {
      float most[kBlockRows];
      for (int lane = 0; lane < kBlockRows; ++lane) most[lane] = page_.largest[behind_[v * kBlockRows + lane]];
      for (int lane = 0; lane < kBlockRows; ++lane) undo_[lane] = most[lane] * (1 / Mode::kWeightMax);
      for (float& m : most) m = m > 0 ? Mode::kWeightMax / m : 0.0f;
      value_scale = load(most);
    }
    const VecF low = sub(zero(), page_max);
    VecF sum = zero();
    Element* to = weights_ + v * kBlockRows * kPack;
    for (int j = 0; j < keys_; j += kPack, to += kBlocks * kBlockRows * kPack) {
      VecF w[kPack];
#pragma GCC unroll 4
      for (int i = 0; i < kPack; ++i) {
        const VecF s = load(scores_[j + i] + v * kBlockRows);
        VecF p = exp2(Mode::kScaled ? fma(s, query_scale, low) : add(s, low));
        p = only_visible(p, v, j + i, 0.0f);
        sum = add(sum, p);
        if constexpr (Mode::kScaled && kDiagonal)
          p = only_visible(mul(p, mul(set1(args_scales()[j + i]), value_scale)), v, j + i, 0.0f);
        else if constexpr (Mode::kScaled)
          p = mul(p, set1(page_.scale[j + i]));
        w[i] = p;
      }
      Mode::store_weights(to, w);
    }
    const VecF old_sum = first ? zero() : load(field(v, layout_.row_sum));
    store(field(v, layout_.row_sum), fma(old_sum, shrink_[v], mul(sum, grow_[v])));
    if constexpr (Mode::kScaled)
      grow_[v] = mul(grow_[v], kDiagonal ? load(undo_) : set1(page_.largest[kPageTokens - 1] * (1 / Mode::kWeightMax)));
  }
  const float* args_scales() const {
    return reinterpret_cast<const float*>(reinterpret_cast<const Element*>(args_.values) +
                                          kPageTokens * args_.tile.head_dim);
  }

  // out = out * shrink + weights * values * grow.
  void mix() {
    const auto* values = reinterpret_cast<const Element*>(args_.values);
    const auto dim = static_cast<size_t>(args_.tile.head_dim);
    const bool first = args_.page_position == 0;
    for (int32_t d = 0; d < args_.tile.head_dim; d += kKeyStep) {
      Sum acc[kKeyStep][kBlocks];
#pragma GCC unroll 8
      for (int r = 0; r < kKeyStep; ++r)
#pragma GCC unroll 3
        for (int v = 0; v < kBlocks; ++v) acc[r][v] = zero_sum();
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
  alignas(64) Element weights_[kPageTokens * kBlocks * kBlockRows];
  alignas(64) int32_t behind_[kBlocks * kBlockRows];  // diagonal: the page's last key that a row sees
  alignas(64) float undo_[kBlockRows];
  VecF page_max_[kBlocks], shrink_[kBlocks], grow_[kBlocks];
  const AttendArgs& args_;
  const PageValues& page_;
  BlockLayout<Mode> layout_;
  std::byte* block_;
  int32_t keys_ = kPageTokens;  // that some row sees
};

template <class Mode>
void attend_page(const AttendArgs& args) {
  PageValues page;
  if constexpr (Mode::kScaled)
    read_value_scales<Mode>(reinterpret_cast<const float*>(reinterpret_cast<const typename Mode::Element*>(args.values) +
                                                           kPageTokens * args.tile.head_dim),
                            page);
  const int32_t blocks = (args.tile.rows + kBlockRows - 1) / kBlockRows;
  const bool diagonal = args.position - args.page_position < kPageTokens - 1;
  for (int32_t b = 0; b < blocks;) {
    with_tile_rows<kAttendBlocks>(blocks - b, [&]<int kBlocks>() {
      if (diagonal)
        PageStep<Mode, kBlocks, true>(args, page, b * kBlockRows).run();
      else
        PageStep<Mode, kBlocks, false>(args, page, b * kBlockRows).run();
      b += kBlocks;
    });
  }
}

}  // namespace runahead::RUNAHEAD_ISA
