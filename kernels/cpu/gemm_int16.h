// y = a W^T in int16: codes of the weights as they are in the file times activations of 15 bits, summed exactly over a
// block of 32 and then scaled. Only the activations are rounded, so this is nearly fp32. Where the processor has no byte dot
// instruction it is the mode of `auto`: its dots are 1.5 times fp32's there (docs/benchmarks.md, "Without a byte dot").
//   y[r, n] = scale[r] * sum over blocks b of (d[b, n] * sum of code * a + m[b, n] * sum of a)
//   operand row   a [k] int16 up to kPlanesMax, in the order 0, 2, 1, 3 of each four; the sums of a [k / 32] fp32 (exact
//                 integers), scale, the sums of 16 values [k / 16], padding to 64 B
//   codes         four bytes of a lane become two pairs of int16 by a mask, (0, 2), and a shift and a mask, (1, 3)
//   K-quants      scales of 16 values: each half of a block is summed and scaled by itself
//   bound         32 * 32,767 * code stays below 2^31 for codes up to 2,047
#pragma once

#include "kernels/cpu/gemm_spans.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr float kWeightCodeMax = 2047;  // of weights that come as floats

struct Int16Row {
  explicit Int16Row(int32_t k)
      : sums(static_cast<size_t>(k) * sizeof(int16_t)),
        scale(sums + static_cast<size_t>(k / kPanelBlock) * sizeof(float)),
        half_sums(scale + sizeof(float)),
        bytes((half_sums + 2 * static_cast<size_t>(k / kPanelBlock) * sizeof(float) + 63) / 64 * 64) {}
  size_t sums, scale, half_sums, bytes;
};

inline size_t int16_row_bytes(int32_t k) { return Int16Row(k).bytes; }

inline void pack_row_int16(const float* x, const Operand& operand, std::byte* out) {
  const int32_t k = operand.k;
  const Int16Row row(k);
  VecF largest = zero();
  for (int32_t i = 0; i < k; i += 16) largest = max(largest, abs(load(x + i)));
  const float top = reduce_max(largest);
  const VecF inverse = set1(top > 0 ? kPlanesMax / top : 0.0f);
  auto* codes = reinterpret_cast<int16_t*>(out);
  auto* sums = reinterpret_cast<float*>(out + row.sums);
  auto* half_sums = reinterpret_cast<float*>(out + row.half_sums);
  for (int32_t i = 0; i < k; i += 16) {
    const VecF rounded = round_nearest(mul(load(x + i), inverse));
    store_int16(codes + i, swap_middle(rounded));
    half_sums[i / 16] = reduce_add(rounded);  // exact
  }
  for (int b = 0; b < k / kPanelBlock; ++b) sums[b] = half_sums[2 * b] + half_sums[2 * b + 1];  // exact
  *reinterpret_cast<float*>(out + row.scale) = top / kPlanesMax;
}

// Four bytes of each lane as pairs of int16.
inline VecI even_bytes(VecI lanes) { return bit_and(lanes, set1_int(0x00FF00FF)); }
inline VecI odd_bytes(VecI lanes) { return bit_and(shift_right(lanes, 8), set1_int(0x00FF00FF)); }

// Pairs (0, 2) of four k, 4 * group and on, of outputs 0..15 and 16..31, then pairs (1, 3), from a panel as it lies.
template <PanelFormat kFormat>
struct PairsInPlace : PackedPanel<kFormat> {
  static void pairs(const std::byte* block, int group, VecI (&w)[2][2]) {
    VecI codes[2];
    PackedPanel<kFormat>::codes(block, group, codes);
    for (int half = 0; half < 2; ++half) w[0][half] = even_bytes(codes[half]), w[1][half] = odd_bytes(codes[half]);
  }
};

// The same, widened: scales as in WidePanel, then pairs [8, 2, 32, 2] int16.
template <int kSubs>
struct WidePairs {
  static constexpr int kSubBlocks = kSubs;
  static constexpr size_t kScaleBytes = WidePanelOf<kSubs>::kScaleBytes;
  static constexpr size_t kGroupBytes = 4 * kPanelOutputs * sizeof(int16_t);
  static constexpr size_t kBlockBytes = kScaleBytes + kPanelBlock / 4 * kGroupBytes;
  static constexpr bool kFromMemory = false;
  static const std::byte* next(const std::byte* block, int) { return block + kBlockBytes; }
  static BlockScales scales(const std::byte* block, int b, int sub) {
    return WidePanelOf<kSubs>::scales(block, b, sub);
  }
  static void pairs(const std::byte* block, int group, VecI (&w)[2][2]) {
    const std::byte* from = block + kScaleBytes + static_cast<size_t>(group) * kGroupBytes;
    for (int i = 0; i < 4; ++i) w[i / 2][i % 2] = load_bytes(from + i * 64);
  }
};

// Floats of one block, rounded to 12 bits with a scale of their own; to: a block of WidePairs<1>.
template <PanelFormat kFormat>
inline void quantize_to_pairs(const std::byte* from, std::byte* to) {
  auto* scales = reinterpret_cast<float*>(to);
  for (int half = 0; half < 2; ++half) {
    VecF largest = set1(1e-30f), w[4];
    for (int k = 0; k < kPanelBlock; k += 2) {
      load_two_k<kFormat>(from, k, half, w[0], w[1]);
      largest = max(max(largest, abs(w[0])), abs(w[1]));
    }
    const VecF inverse = div(set1(kWeightCodeMax), largest);
    std::byte* pairs = to + WidePairs<1>::kScaleBytes + half * 64;
    for (int k = 0; k < kPanelBlock; k += 4, pairs += WidePairs<1>::kGroupBytes) {
      load_two_k<kFormat>(from, k, half, w[0], w[1]);
      load_two_k<kFormat>(from, k + 2, half, w[2], w[3]);
      store_bytes(pairs, interleave_int16(mul(w[0], inverse), mul(w[2], inverse)));
      store_bytes(pairs + 128, interleave_int16(mul(w[1], inverse), mul(w[3], inverse)));
    }
    store(scales + half * 16, mul(largest, set1(1 / kWeightCodeMax)));
    store(scales + kPanelOutputs + half * 16, zero());
  }
}

// Blocks [begin, end) of a panel.
template <int kSubs>
inline void widen_to_pairs(const Panel& panel, int begin, int end, std::byte* to) {
  using Target = WidePairs<kSubs>;
  const PanelReader reader(panel);
  for (int b = begin; b < end; ++b, to += Target::kBlockBytes) {
    fetch_ahead(reader.block(b), reader.layout.block_bytes);
    if (kSubs == 1 && reader.has_floats()) {
      with_float_format(reader.format, [&]<PanelFormat kFormat>() { quantize_to_pairs<kFormat>(reader.block(b), to); });
      continue;
    }
    for (int sub = 0; sub < kSubs; ++sub) WidePanelOf<kSubs>::store_scales(reader.scales(b, sub), to, sub);
    std::byte* pairs = to + Target::kScaleBytes;
    for (int g = 0; g < kPanelBlock / 4; ++g, pairs += Target::kGroupBytes) {
      VecI w[2];
      reader.codes(b, g, w);
      for (int half = 0; half < 2; ++half) {
        store_bytes(pairs + half * 64, even_bytes(w[half]));
        store_bytes(pairs + 128 + half * 64, odd_bytes(w[half]));
      }
    }
  }
}

struct Int16Rows {
  using Row = Int16Row;
  static constexpr int kTileRows = kIntTileRows;
  static constexpr bool kOutliers = false;
  template <class Source, int kRows>
  static void dot(const std::byte* a, const Row& row, int b, int sub, const std::byte* block, VecI (&sum)[kRows][2]) {
    constexpr int kGroups = kPanelBlock / 4 / Source::kSubBlocks;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero_int();
#pragma GCC unroll 4
    for (int i = 0; i < kGroups; ++i) {
      const int g = sub * kGroups + i;
      VecI w[2][2];
      Source::pairs(block, g, w);
      const std::byte* four = a + (static_cast<size_t>(b) * kPanelBlock + static_cast<size_t>(g) * 4) * sizeof(int16_t);
#pragma GCC unroll 2
      for (int pair = 0; pair < 2; ++pair) {
        VecI x[kRows];
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r)
          x[r] =
              Int16::broadcast(reinterpret_cast<const int16_t*>(four + static_cast<size_t>(r) * row.bytes) + 2 * pair);
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v)
#pragma GCC unroll 6
          for (int r = 0; r < kRows; ++r) sum[r][v] = dot_s16(sum[r][v], x[r], w[pair][v]);
      }
    }
  }
  template <class Source, int kRows>
  static void add(const std::byte* a, const Row& row, int b, int sub, const std::byte* block,
                  const VecI (&sum)[kRows][2], VecF (&total)[kRows][2]) {
    constexpr int kSubs = Source::kSubBlocks;
    const BlockScales s = Source::scales(block, b, sub);
    const size_t sums = kSubs == 1 ? row.sums : row.half_sums;
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, a += row.bytes) {
      const VecF row_sum = set1(reinterpret_cast<const float*>(a + sums)[b * kSubs + sub]);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        total[r][v] = fma(to_float(sum[r][v]), s.d[v], total[r][v]);
        total[r][v] = fma(row_sum, s.m[v], total[r][v]);
      }
    }
  }
  template <int kRows>
  static void finish(const std::byte* a, const Row& row, VecF (&total)[kRows][2]) {
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r, a += row.bytes) {
      const VecF scale = set1(*reinterpret_cast<const float*>(a + row.scale));
      total[r][0] = mul(total[r][0], scale), total[r][1] = mul(total[r][1], scale);
    }
  }
};

inline void gemm_int16_of_format(const GemmArgs& args, PanelFormat format) {
  if constexpr (kPairsInPlaceMax > 0) {
    if (args.operand.rows <= kPairsInPlaceMax) {
      switch (format) {
        case PanelFormat::kCodes4:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kCodes4>>(args);
        case PanelFormat::kCodes4K:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kCodes4K>>(args);
        case PanelFormat::kIq4:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kIq4>>(args);
        case PanelFormat::kIq4K:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kIq4K>>(args);
        case PanelFormat::kMxfp4:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kMxfp4>>(args);
        case PanelFormat::kCodes8:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kCodes8>>(args);
        case PanelFormat::kCodes6K:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kCodes6K>>(args);
        case PanelFormat::kCodes6K16:
          return gemm_in_place<Int16Rows, PairsInPlace<PanelFormat::kCodes6K16>>(args);
        case PanelFormat::kFloat16:
        case PanelFormat::kBfloat16:
        case PanelFormat::kFloat32:
          break;
      }
    }
  }
  if (panel_layout(format).sub_blocks == 2) return gemm_widened<Int16Rows, WidePairs<2>>(args, widen_to_pairs<2>);
  gemm_widened<Int16Rows, WidePairs<1>>(args, widen_to_pairs<1>);
}

inline void gemm_int16(const GemmArgs& args) { for_formats(args, gemm_int16_of_format); }

}  // namespace runahead::RUNAHEAD_ISA
