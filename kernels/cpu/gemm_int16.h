// y = a W^T in int16: codes of the weights as they are in the file times activations of 15 bits, summed exactly over a
// block of 32 and then scaled. Only the activations are rounded, so this is nearly fp32 at the speed of bf16.
//   y[r, n] = scale[r] * sum over blocks b of (d[b, n] * sum of code * a + m[b, n] * sum of a)
//   operand row   a [k] int16, then the sums of a [k / 32] fp32 (exact integers), then scale, then padding to 64 B
//   bound         32 * 32,767 * code stays below 2^31 for codes up to 2,047
#pragma once

#include "kernels/cpu/gemm.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr float kWeightCodeMax = 2047;         // of weights that come as floats
inline constexpr int kInt16TileRows = kTileRows / 2;  // two sums an output: the block's and the total

inline size_t int16_row_bytes(int32_t k) {
  const size_t bytes =
      static_cast<size_t>(k) * sizeof(int16_t) + (static_cast<size_t>(k / kPanelBlock) + 1) * sizeof(float);
  return (bytes + 63) / 64 * 64;
}

// Scratch: codes [k / 2, 32, 2], then for each block d [32] and m [32] as floats.
inline size_t int16_panel_scratch_bytes(int32_t k) {
  const auto outputs = static_cast<size_t>(kPanelOutputs);
  return static_cast<size_t>(k) * outputs * sizeof(int16_t) +
         static_cast<size_t>(k / kPanelBlock) * 2 * outputs * sizeof(float);
}

inline void pack_row_int16(const float* x, int32_t k, std::byte* out) {
  VecF largest = zero();
  for (int32_t i = 0; i < k; i += 16) largest = max(largest, abs(load(x + i)));
  const float top = reduce_max(largest);
  const VecF inverse = set1(top > 0 ? kInt16Max / top : 0.0f);
  auto* codes = reinterpret_cast<int16_t*>(out);
  for (int32_t i = 0; i < k; i += 16) store_int16(codes + i, mul(load(x + i), inverse));
  auto* sums = reinterpret_cast<float*>(out + static_cast<size_t>(k) * sizeof(int16_t));
  for (int32_t b = 0; b < k / kPanelBlock; ++b) {
    int32_t sum = 0;
    for (int32_t i = 0; i < kPanelBlock; ++i) sum += codes[b * kPanelBlock + i];
    sums[b] = static_cast<float>(sum);
  }
  sums[k / kPanelBlock] = top / kInt16Max;
}

// Floats of one block, rounded to 12 bits with a scale of their own.
inline void quantize_block(const float* from, int16_t* codes, float* scales) {
  for (int half = 0; half < 2; ++half, from += 16, codes += 32) {
    VecF largest = set1(1e-30f);
    for (int kk = 0; kk < kPanelBlock; ++kk) largest = max(largest, abs(load(from + kk * kPanelOutputs)));
    const VecF inverse = div(set1(kWeightCodeMax), largest);
    for (int kk = 0; kk < kPanelBlock; kk += 2)
      store_bytes(codes + kk * kPanelOutputs, interleave_int16(mul(load(from + kk * kPanelOutputs), inverse),
                                                               mul(load(from + (kk + 1) * kPanelOutputs), inverse)));
    store(scales + half * 16, mul(largest, set1(1 / kWeightCodeMax)));
    store(scales + kPanelOutputs + half * 16, zero());
  }
}

// Bytes `shift` and `shift + 8` of each lane, masked, as a pair of int16.
inline VecI byte_pair(VecI lanes, int shift, int mask) {
  const VecI moved = shift == 0 ? lanes : shift_right(lanes, shift);
  return bit_or(bit_and(moved, set1_int(mask)), bit_and(shift_left(moved, 8), set1_int(mask << 16)));
}

inline void unpack_panel_int16(const Panel& panel, int32_t k, int16_t* codes, float* scales) {
  const std::byte* block = panel.data;
  for (int b = 0; b < k / kPanelBlock; ++b, block += panel_block_bytes(panel.format), scales += 2 * kPanelOutputs) {
    if (panel.format == PanelFormat::kFloat32) {
      quantize_block(reinterpret_cast<const float*>(block), codes, scales);
      codes += kPanelBlock * kPanelOutputs;
      continue;
    }
    const BlockScales s(block);
    store(scales, s.d[0]), store(scales + 16, s.d[1]), store(scales + 32, s.m[0]), store(scales + 48, s.m[1]);
    const bool nibbles = panel.format == PanelFormat::kCodes4;
    for (int g = 0; g < kPanelBlock / 4; ++g, codes += 4 * kPanelOutputs) {
      const std::byte* from = block + kBlockScaleBytes + g * (nibbles ? 64 : 128);
      for (int half = 0; half < 2; ++half) {
        const VecI lanes = load_bytes(from + (nibbles ? 0 : half * 64));
        const int shift = nibbles ? half * 4 : 0, mask = nibbles ? 15 : 255;
        store_bytes(codes + half * 32, byte_pair(lanes, shift, mask));
        store_bytes(codes + 2 * kPanelOutputs + half * 32, byte_pair(lanes, 16 + shift, mask));
      }
    }
  }
}

// One register tile over all blocks.
template <int kRows>
inline void multiply_blocks(const std::byte* a, size_t row_bytes, int32_t k, const int16_t* codes, const float* scales,
                            VecF (&total)[kRows][2]) {
  const size_t sums_at = static_cast<size_t>(k) * sizeof(int16_t);
  for (int b = 0; b < k / kPanelBlock; ++b, codes += kPanelBlock * kPanelOutputs, scales += 2 * kPanelOutputs) {
    VecI sum[kRows][2];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero_int();
    multiply_tile<Int16, kRows, 2>({.a = reinterpret_cast<const int16_t*>(a) + b * kPanelBlock,
                                    .a_row = row_bytes / sizeof(int16_t),
                                    .b = codes,
                                    .b_step = kPanelOutputs * 2},
                                   kPanelBlock / 2, sum);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const VecF row_sum = set1(reinterpret_cast<const float*>(a + static_cast<size_t>(r) * row_bytes + sums_at)[b]);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        total[r][v] = fma(to_float(sum[r][v]), load(scales + v * 16), total[r][v]);
        total[r][v] = fma(row_sum, load(scales + kPanelOutputs + v * 16), total[r][v]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const VecF scale =
        set1(reinterpret_cast<const float*>(a + static_cast<size_t>(r) * row_bytes + sums_at)[k / kPanelBlock]);
    total[r][0] = mul(total[r][0], scale);
    total[r][1] = mul(total[r][1], scale);
  }
}

inline void gemm_int16(const GemmArgs& args) {
  auto* codes = reinterpret_cast<int16_t*>(args.scratch);
  auto* scales = reinterpret_cast<float*>(args.scratch + static_cast<size_t>(args.k) * kPanelOutputs * sizeof(int16_t));
  const size_t row_bytes = int16_row_bytes(args.k);
  for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
    unpack_panel_int16(args.panels[p], args.k, codes, scales);
    for (int32_t r0 = 0; r0 < args.rows;) {
      with_tile_rows<kInt16TileRows>(args.rows - r0, [&]<int kRows>() {
        VecF total[kRows][2];
#pragma GCC unroll 6
        for (int r = 0; r < kRows; ++r) total[r][0] = total[r][1] = zero();
        multiply_blocks<kRows>(args.a + static_cast<size_t>(r0) * row_bytes, row_bytes, args.k, codes, scales, total);
        finish_tile<kRows>(args, p, r0, total);
        r0 += kRows;
      });
    }
  }
}

}  // namespace runahead::RUNAHEAD_ISA
