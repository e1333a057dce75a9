// Plain rows of activations in int8, for weights that are no 4-bit codes: blocks that stand out of their row have 15 bits,
// in a second plane of bytes. Two passes over each span of blocks: a tile over all of the first plane, then each row over
// its own few of the second one.
//   row   a [k] int8, a second plane [k] int8, then [k / 32] each: dx, bs fp32, flags; then bs of half blocks [k / 16],
//         for weights with scales of 16 values, whose halves are scaled each; padding to 64 B
//   flags word i has a bit for each of 32 blocks from 32 * i that has 15 bits. There a + second plane / 256 is the
//         value, elsewhere a, and the second plane is not written and not read
#pragma once

#include "kernels/cpu/gemm_spans.h"

namespace runahead::RUNAHEAD_ISA {

// A block has 15 bits if its largest |x| exceeds this many times the mean of the row's block maxima.
inline constexpr float kOutlierRatio = 1.75f;
// Up to this many rows, a tile's, the K formats are read as they lie.
inline constexpr int32_t kPlainDirectRowsMax = 4;

// Where the parts of a plain row lie.
struct PlainRow {
  explicit constexpr PlainRow(int32_t k)
      : second(static_cast<size_t>(k)),
        scales(2 * second),
        sums(scales + second / kPanelBlock * sizeof(float)),
        flags(sums + second / kPanelBlock * sizeof(float)),
        half_sums(flags + second / kPanelBlock * sizeof(uint32_t)),
        bytes((half_sums + second / kPanelBlock * 2 * sizeof(float) + 63) / 64 * 64) {}
  size_t second, scales, sums, flags, half_sums, bytes;
};

inline float largest_of_block(const float* x) { return reduce_max(max(abs(load(x)), abs(load(x + 16)))); }

inline void pack_row_plain(const float* x, int32_t k, std::byte* out) {
  const PlainRow row(k);
  const int blocks = k / kPanelBlock;
  auto* scales = reinterpret_cast<float*>(out + row.scales);
  auto* sums = reinterpret_cast<float*>(out + row.sums);
  auto* half_sums = reinterpret_cast<float*>(out + row.half_sums);
  auto* flags = reinterpret_cast<uint32_t*>(out + row.flags);
  std::memset(flags, 0, static_cast<size_t>(blocks) * sizeof(uint32_t));
  float all = 0;
  for (int b = 0; b < blocks; ++b) all += scales[b] = largest_of_block(x + b * kPanelBlock);
  const float limit = all / static_cast<float>(blocks) * kOutlierRatio;
  for (int b = 0; b < blocks; ++b) {
    const float top = scales[b];
    const bool outlier = top > limit;
    flags[b / 32] |= static_cast<uint32_t>(outlier) << (b % 32);
    const float unit = outlier ? kPlanesMax : kInt8Max;
    const VecF inverse = set1(top > 1e-30f ? unit / top : 0.0f);  // smaller ones are zeros, lest this be infinite
    const VecF x0 = mul(load(x + b * kPanelBlock), inverse), x1 = mul(load(x + b * kPanelBlock + 16), inverse);
    const float sum0 = reduce_add(round_nearest(x0)), sum1 = reduce_add(round_nearest(x1));  // exact
    auto* high = reinterpret_cast<int8_t*>(out) + b * kPanelBlock;
    if (outlier) {
      int16_t values[kPanelBlock];
      store_int16(values, x0);
      store_int16(values + 16, x1);
      split_planes(values, kPanelBlock, high, high + row.second);
    } else {
      store_int8(high, x0);
      store_int8(high + 16, x1);
    }
    const float scale = top / unit;
    sums[b] = scale * (sum0 + sum1);
    half_sums[2 * b] = scale * sum0, half_sums[2 * b + 1] = scale * sum1;
    scales[b] = outlier ? scale * 256 : scale;
  }
}

// From the planes to the integer sums of a block, and from them to the totals.
struct PlainRows {
  using Row = PlainRow;
  static constexpr int kTileRows = kIntTileRows;
  static constexpr bool kOutliers = true;
  template <class Source, int kRows>
  static void dot(const std::byte* a, const Row& row, int b, int sub, const std::byte* block, VecI (&sum)[kRows][2]) {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero_int();
    dot_bytes<Source, kRows>(a + b * kPanelBlock, row.bytes, block, sum, sub);
  }
  template <class Source, int kRows>
  static void add(const std::byte* a, const Row& row, int b, int sub, const std::byte* block,
                  const VecI (&sum)[kRows][2], VecF (&total)[kRows][2]) {
    constexpr int kSubs = Source::kSubBlocks;
    const BlockScales s = Source::scales(block, b, sub);
    const size_t sums = kSubs == 1 ? row.sums : row.half_sums;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, a += row.bytes) {
      const VecF scale = set1(reinterpret_cast<const float*>(a + row.scales)[b]);
      const VecF row_sum = set1(reinterpret_cast<const float*>(a + sums)[b * kSubs + sub]);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        total[r][v] = fma(mul(to_float(sum[r][v]), scale), s.d[v], total[r][v]);
        total[r][v] = fma(row_sum, s.m[v], total[r][v]);
      }
    }
  }
  // One row over those of the blocks [begin, end), which lie at `block`, that have 15 bits; totals [32].
  template <class Source>
  static void add_outliers(const std::byte* a, const Row& row, int begin, int end, const std::byte* block,
                           float* totals) {
    const auto* scales = reinterpret_cast<const float*>(a + row.scales);
    const auto* flags = reinterpret_cast<const uint32_t*>(a + row.flags);
    for (int b = begin; b < end; block = Source::next(block, b), ++b) {
      if ((flags[b / 32] >> (b % 32) & 1) == 0) continue;
      const VecF scale = set1(scales[b] * (1.0f / 256));
      for (int sub = 0; sub < Source::kSubBlocks; ++sub) {
        VecI sum[1][2] = {{zero_int(), zero_int()}};
        dot_bytes<Source, 1>(a + row.second + b * kPanelBlock, 0, block, sum, sub);
        const BlockScales s = Source::scales(block, b, sub);
        for (int v = 0; v < 2; ++v)
          store(totals + 16 * v, fma(mul(to_float(sum[0][v]), scale), s.d[v], load(totals + 16 * v)));
      }
    }
  }
  template <int kRows>
  static void finish(const std::byte*, const Row&, VecF (&)[kRows][2]) {}
};
struct FewPlainRows : PlainRows {
  static constexpr int kTileRows = kPlainDirectRowsMax;
};

}  // namespace runahead::RUNAHEAD_ISA
