// y = a W^T in int8: codes of the weights as they are in the file times activations of 8 bits with a scale a block of
// 32, summed exactly over the block and then scaled. Some activations stand out far from their neighbours, and 8 bits
// for all of a block would leave those few (0.5 % of perplexity). What is done about it depends on the weights:
//   rotated  matrices of 4-bit codes: activations and codes are rotated (kernels/cpu/rotation.h), the codes once for all
//            rows of a call. For few rows the activations are rotated back instead, as exact integers in two bytes, and
//            the codes are taken as they lie: the same integer sums.
//   plain    others: blocks that stand out of their row have 15 bits, in a second plane of bytes. Two passes over
//            each span of blocks: a tile over all of the first plane, then each row over its own few of the second one.
//   y[r, n] = sum over blocks b of (d[b, n] * (dx[r, b] * sum of code * a) + m[b, n] * bs[r, b]), bs = dx * sum of a,
//   in that order whatever the tile. Rotated, dx is a power of two times 1, 1.25, 1.5 or 1.75, over kScaleUnit: the
//   power is added to the exponent of the sum, the quarters are multiplied with d beforehand. Both exactly, and without
//   the multiply units that the dots need (products 7 % faster; a fifth more noise, KL of the model 0 to 11 % more).
//   operand row   a [k] int8, a second plane [k] int8, then [k / 32] each: dx, bs fp32, starts, quarters int32;
//                 padding to 64 B
//                   rotated            a [k]; dx: its power of two, shifted to a float's exponent; starts: what the sums
//                                      of a block start with
//                   rotated, few rows  the same, but 16 * a + second plane is the value
//                   plain              dx fp32; starts: word i has a bit for each of 32 blocks from 32 * i that has 15
//                                      bits. There a + second plane / 256 is the value, elsewhere a, and the second
//                                      plane is not written and not read. In place of quarters bs of half blocks
//                                      [k / 16], for weights with scales of 16 values, whose halves are scaled each
//   bound         32 * 255 * 32,768 stays below 2^31
//   weights       that come as floats are rounded to 8 bits (kernels/cpu/unpack.h)
#pragma once

#include <type_traits>

#include "kernels/cpu/gemm_spans.h"
#include "kernels/cpu/rotation.h"

namespace runahead::RUNAHEAD_ISA {

// A block has 15 bits if its largest |x| exceeds this many times the mean of the row's block maxima.
inline constexpr float kOutlierRatio = 1.75f;
// Up to this many rows activations are rotated back: two planes cost as much as rotating the codes at about four rows.
inline constexpr int32_t kRotatedDirectRowsMax = 4;
inline constexpr int kExponentShift = 23, kQuarterShift = 21;  // of a float's bits
// Rotated scales in units of the least one. Activations are 1e-6 to 1e5 in real models; smaller than 1e-13 they are
// rounded as if they were larger, past 1e14 they saturate. Sums of codes times the largest scale stay finite in fp32.
inline constexpr float kScaleUnit = 0x1p-50f;
inline constexpr int32_t kLeastScale = (127 - 50) << kExponentShift, kLargestScale = (127 + 40) << kExponentShift;
inline constexpr int kBackShift = 4;  // 16 values of 7 bits: 11 bits, of which this many are in the second plane

inline bool is_rotated(const Operand& operand) {
  return operand.weights == PanelFormat::kCodes4 || operand.weights == PanelFormat::kCodes4K;
}
inline bool is_rotated_back(const Operand& operand) {
  return is_rotated(operand) && operand.rows <= kRotatedDirectRowsMax;
}

// Where the parts of an operand row lie.
struct Int8Row {
  explicit Int8Row(int32_t k)
      : second(static_cast<size_t>(k)),
        scales(2 * second),
        sums(scales + second / kPanelBlock * sizeof(float)),
        starts(sums + second / kPanelBlock * sizeof(float)),
        quarters(starts + second / kPanelBlock * sizeof(int32_t)),
        half_sums(quarters),
        bytes((half_sums + second / kPanelBlock * 2 * sizeof(float) + 63) / 64 * 64) {}
  size_t second, scales, sums, starts, quarters, half_sums, bytes;
};

inline size_t int8_row_bytes(int32_t k) { return Int8Row(k).bytes; }

// The rotated values of a block, back among those of its codes: sums of up to 16 of 7 bits, in two planes.
inline void store_rotated_back(VecF low, VecF high, int8_t* first, int8_t* second) {
  rotate_block(low, high);
  for (int at = 0; at < kPanelBlock; at += 16) {
    const VecF x = at == 0 ? low : high, rounded = round_nearest(mul(x, set1(1.0f / (1 << kBackShift))));
    store_int8(first + at, rounded);
    store_int8(second + at, fma(rounded, set1(-(1 << kBackShift)), x));
  }
}

inline float float_of_bits(int32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
// The bits of a scale for values up to `top`: the next float of two bits of mantissa, between the bounds.
inline int32_t rotated_scale_bits(float top) {
  constexpr int32_t kBelowQuarter = (1 << kQuarterShift) - 1;
  const float scale = top * (1 / kInt8Max);
  int32_t bits;
  std::memcpy(&bits, &scale, sizeof(bits));
  bits = (bits + kBelowQuarter) & ~kBelowQuarter;
  return bits < kLeastScale ? kLeastScale : bits > kLargestScale ? kLargestScale : bits;
}

inline VecF rounded_code(VecF x) {  // bounded, for what saturates, and for a broken model's infinities
  return round_nearest(min(max(x, set1(-kInt8Max)), set1(kInt8Max)));
}

inline void pack_row_rotated(const float* x, const Operand& operand, std::byte* out) {
  const Int8Row row(operand.k);
  auto* scales = reinterpret_cast<int32_t*>(out + row.scales);
  auto* sums = reinterpret_cast<float*>(out + row.sums);
  auto* starts = reinterpret_cast<int32_t*>(out + row.starts);
  auto* quarters = reinterpret_cast<int32_t*>(out + row.quarters);
  for (int b = 0; b < operand.k / kPanelBlock; ++b) {
    VecF low = load(x + b * kPanelBlock), high = load(x + b * kPanelBlock + 16);
    rotate_block(low, high);
    const int32_t bits = rotated_scale_bits(reduce_max(max(abs(low), abs(high))));
    const VecF inverse = set1(1 / float_of_bits(bits));
    low = rounded_code(mul(low, inverse)), high = rounded_code(mul(high, inverse));
    auto* codes = reinterpret_cast<int8_t*>(out) + b * kPanelBlock;
    store_int8(codes, low);
    store_int8(codes + 16, high);
    const int group_sums = codes[kGroupSums[0]] + codes[kGroupSums[1]];
    quarters[b] = (bits >> kQuarterShift) & 3;
    scales[b] = (bits - kLeastScale) >> kExponentShift << kExponentShift;
    sums[b] = float_of_bits(bits) * (kRotatedNorm / kScaleUnit) * static_cast<float>(group_sums);
    starts[b] = -kRotatedBias * (static_cast<int32_t>(reduce_add(add(low, high))) - group_sums);  // exact
    if (is_rotated_back(operand)) store_rotated_back(low, high, codes, codes + row.second);
  }
}

inline float largest_of_block(const float* x) { return reduce_max(max(abs(load(x)), abs(load(x + 16)))); }

inline void pack_row_plain(const float* x, int32_t k, std::byte* out) {
  const Int8Row row(k);
  const int blocks = k / kPanelBlock;
  auto* scales = reinterpret_cast<float*>(out + row.scales);
  auto* sums = reinterpret_cast<float*>(out + row.sums);
  auto* half_sums = reinterpret_cast<float*>(out + row.half_sums);
  auto* flags = reinterpret_cast<uint32_t*>(out + row.starts);
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

inline void pack_row_int8(const float* x, const Operand& operand, std::byte* out) {
  if (is_rotated(operand)) return pack_row_rotated(x, operand, out);
  pack_row_plain(x, operand.k, out);
}

// The three ways to the integer sums of block b of kRows operand rows from `a`, and from them to the totals.
struct PlainRows {
  using Row = Int8Row;
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
    const auto* flags = reinterpret_cast<const uint32_t*>(a + row.starts);
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
  static constexpr int kTileRows = kRotatedDirectRowsMax;
};
struct RotatedRows {
  using Row = Int8Row;
  static constexpr int kTileRows = kIntTileRows;
  static constexpr bool kOutliers = false;
  template <class Source, int kRows>
  static void dot(const std::byte* a, const Row& row, int b, int, const std::byte* block, VecI (&sum)[kRows][2]) {
    const std::byte* starts = a + row.starts;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, starts += row.bytes)
      sum[r][0] = sum[r][1] = set1_int(reinterpret_cast<const int32_t*>(starts)[b]);
    dot_bytes<Source, kRows>(a + b * kPanelBlock, row.bytes, block, sum);
  }
  template <class Source, int kRows>
  static void add(const std::byte* a, const Row& row, int b, int, const std::byte* block, const VecI (&sum)[kRows][2],
                  VecF (&total)[kRows][2]) {
    const auto s = Source::scales(block, b, 0);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, a += row.bytes) {
      const VecI power = set1_int(reinterpret_cast<const int32_t*>(a + row.scales)[b]);
      const int32_t quarters = reinterpret_cast<const int32_t*>(a + row.quarters)[b];
      const VecF row_sum = set1(reinterpret_cast<const float*>(a + row.sums)[b]);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        const VecF scaled = add_to_exponent(to_float(sum[r][v]), power);
        total[r][v] = fma(scaled, s.d_times(quarters, v), total[r][v]);
        total[r][v] = fma(row_sum, s.m[v], total[r][v]);
      }
    }
  }
  template <int kRows>
  static void finish(const std::byte*, const Row&, VecF (&total)[kRows][2]) {
    const VecF unit = set1(kScaleUnit / kRotatedNorm);
#pragma GCC unroll 6
    for (VecF(&t)[2] : total) t[0] = mul(t[0], unit), t[1] = mul(t[1], unit);
  }
};
struct RotatedBackRows : RotatedRows {
  static constexpr int kTileRows = kRotatedDirectRowsMax;
  template <class Source, int kRows>
  static void dot(const std::byte* a, const Row& row, int b, int, const std::byte* block, VecI (&sum)[kRows][2]) {
    PlainRows::dot<Source, kRows>(a, row, b, 0, block, sum);
    add_second_plane<Source, kRows>(a + row.second + b * kPanelBlock, row.bytes, block, kBackShift, sum);
  }
};

inline void gemm_int8_of_format(const GemmArgs& args, PanelFormat format) {
  const bool few = args.operand.rows <= kDirectRowsMax, very_few = args.operand.rows <= kRotatedDirectRowsMax;
  if (is_rotated_back(args.operand)) {
    if (format == PanelFormat::kCodes4) return gemm_in_place<RotatedBackRows, PackedPanel<PanelFormat::kCodes4>>(args);
    return gemm_in_place<RotatedBackRows, PackedPanel<PanelFormat::kCodes4K>>(args);
  }
  if (is_rotated(args.operand)) {
    if (few) return gemm_widened<RotatedRows, WidePanel>(args, widen_rotated<WidePanel>);
    return gemm_widened<RotatedRows, MultipliedPanel>(args, widen_rotated<MultipliedPanel>);
  }
  switch (format) {
    case PanelFormat::kCodes8:
      return gemm_in_place<PlainRows, PackedPanel<PanelFormat::kCodes8>>(args);
    case PanelFormat::kCodes4:
      if (few) return gemm_in_place<PlainRows, PackedPanel<PanelFormat::kCodes4>>(args);
      break;
    case PanelFormat::kCodes4K:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kCodes4K>>(args);
      break;
    case PanelFormat::kCodes6K:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kCodes6K>>(args);
      break;
    case PanelFormat::kCodes6K16:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kCodes6K16>>(args);
      return gemm_widened<PlainRows, WidePanel16>(args, widen_to_bytes<WidePanel16>);
    case PanelFormat::kFloat32:
      break;
  }
  gemm_widened<PlainRows, WidePanel>(args, widen_to_bytes<WidePanel>);
}

inline void gemm_int8(const GemmArgs& args) { for_formats(args, gemm_int8_of_format); }

}  // namespace runahead::RUNAHEAD_ISA
