// Rotated rows of activations in int8, for 4-bit codes: activations and codes are rotated (kernels/cpu/rotation.h), the
// codes once for all rows of a call. For few rows the activations are rotated back instead, as exact integers in two
// bytes, and the codes are taken as they lie: the same integer sums.
//   row   a [k] int8, a second plane [k] int8, then [k / 32] each: dx's power of two, shifted to a float's exponent;
//         bs fp32; starts, what the sums of a block start with; quarters int32; padding to 64 B
//           many rows  a is the value, and the second plane is not written and not read
//           few rows   16 * a + second plane is the value
//   dx    is a power of two times 1, 1.25, 1.5 or 1.75, over kScaleUnit: the power is added to the exponent of the sum,
//         the quarters are multiplied with d beforehand. Both exactly, and without the multiply units that the dots need
//         (products 7 % faster; a fifth more noise, KL of the model 0 to 11 % more).
#pragma once

#include "kernels/cpu/gemm_spans.h"
#include "kernels/cpu/rotation.h"

namespace runahead::RUNAHEAD_ISA {

// Up to this many rows activations are rotated back: two planes cost as much as rotating the codes at about four rows.
inline constexpr int32_t kRotatedDirectRowsMax = 4;
inline constexpr int kExponentShift = 23, kQuarterShift = 21;  // of a float's bits
// Rotated scales in units of the least one. Activations are 1e-6 to 1e5 in real models; smaller than 1e-13 they are
// rounded as if they were larger, past 1e14 they saturate. Sums of codes times the largest scale stay finite in fp32.
inline constexpr float kScaleUnit = 0x1p-50f;
inline constexpr int32_t kLeastScale = (127 - 50) << kExponentShift, kLargestScale = (127 + 40) << kExponentShift;
inline constexpr int kBackShift = 4;  // 16 values of 7 bits: 11 bits, of which this many are in the second plane

// Where the parts of a rotated row lie. It is as long as a plain one, for OpTable::row_bytes knows k alone.
struct RotatedRow {
  explicit constexpr RotatedRow(int32_t k)
      : second(static_cast<size_t>(k)),
        powers(2 * second),
        sums(powers + second / kPanelBlock * sizeof(int32_t)),
        starts(sums + second / kPanelBlock * sizeof(float)),
        quarters(starts + second / kPanelBlock * sizeof(int32_t)),
        bytes((quarters + second / kPanelBlock * 2 * sizeof(float) + 63) / 64 * 64) {}
  size_t second, powers, sums, starts, quarters, bytes;
};

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

// back: for few rows.
inline void pack_row_rotated(const float* x, int32_t k, bool back, std::byte* out) {
  const RotatedRow row(k);
  auto* powers = reinterpret_cast<int32_t*>(out + row.powers);
  auto* sums = reinterpret_cast<float*>(out + row.sums);
  auto* starts = reinterpret_cast<int32_t*>(out + row.starts);
  auto* quarters = reinterpret_cast<int32_t*>(out + row.quarters);
  for (int b = 0; b < k / kPanelBlock; ++b) {
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
    powers[b] = (bits - kLeastScale) >> kExponentShift << kExponentShift;
    sums[b] = float_of_bits(bits) * (kRotatedNorm / kScaleUnit) * static_cast<float>(group_sums);
    starts[b] = -kRotatedBias * (static_cast<int32_t>(reduce_add(add(low, high))) - group_sums);  // exact
    if (back) store_rotated_back(low, high, codes, codes + row.second);
  }
}

// From the codes to the integer sums of a block, and from them to the totals.
struct RotatedRows {
  using Row = RotatedRow;
  static constexpr int kTileRows = kIntTileRows;
  static constexpr bool kOutliers = false;
  // Of the row at `a`: what the sums of block b start with, and total + those sums of half v, scaled by `s`.
  static VecI start(const std::byte* a, const Row& row, int b) {
    return set1_int(reinterpret_cast<const int32_t*>(a + row.starts)[b]);
  }
  template <class Scales>
  static VecF add_half(VecI sum, const std::byte* a, const Row& row, int b, const Scales& s, int v, VecF total) {
    const VecI power = set1_int(reinterpret_cast<const int32_t*>(a + row.powers)[b]);
    const int32_t quarters = reinterpret_cast<const int32_t*>(a + row.quarters)[b];
    const VecF row_sum = set1(reinterpret_cast<const float*>(a + row.sums)[b]);
    total = fma(add_to_exponent(to_float(sum), power), s.d_times(quarters, v), total);
    return fma(row_sum, s.m[v], total);
  }

  template <class Source, int kRows>
  static void dot(const std::byte* a, const Row& row, int b, int, const std::byte* block, VecI (&sum)[kRows][2]) {
    const std::byte* at = a;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, at += row.bytes) sum[r][0] = sum[r][1] = start(at, row, b);
    dot_bytes<Source, kRows>(a + b * kPanelBlock, row.bytes, block, sum);
  }
  template <class Source, int kRows>
  static void add(const std::byte* a, const Row& row, int b, int, const std::byte* block, const VecI (&sum)[kRows][2],
                  VecF (&total)[kRows][2]) {
    const auto s = Source::scales(block, b, 0);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, a += row.bytes)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) total[r][v] = add_half(sum[r][v], a, row, b, s, v, total[r][v]);
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
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero_int();
    dot_bytes<Source, kRows>(a + b * kPanelBlock, row.bytes, block, sum);
    add_second_plane<Source, kRows>(a + row.second + b * kPanelBlock, row.bytes, block, kBackShift, sum);
  }
};

}  // namespace runahead::RUNAHEAD_ISA
