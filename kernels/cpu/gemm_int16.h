// y = a W^T in int16: codes of the weights as they are in the file times activations of 15 bits, summed exactly over a
// block of 32 and then scaled. Only the activations are rounded, so this is nearly fp32 at the speed of bf16.
//   y[r, n] = scale[r] * sum over blocks b of (d[b, n] * sum of code * a + m[b, n] * sum of a)
//   operand row   a [k] int16 up to kPlanesMax, the sums of a [k / 32] fp32 (exact integers), scale, the sums of 16
//                 values [k / 16], padding to 64 B
//   K-quants      scales of 16 values: each half of a block is summed and scaled by itself
//   bound         32 * 32,767 * code stays below 2^31 for codes up to 2,047
#pragma once

#include "kernels/cpu/gemm_bytes.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr float kWeightCodeMax = 2047;         // of weights that come as floats
inline constexpr int kInt16TileRows = kTileRows / 2;  // two sums an output: the block's and the total

inline size_t int16_row_bytes(int32_t k) {
  const size_t bytes =
      static_cast<size_t>(k) * sizeof(int16_t) + (3 * static_cast<size_t>(k / kPanelBlock) + 1) * sizeof(float);
  return (bytes + 63) / 64 * 64;
}

// Scratch: codes [k / 2, 32, 2], then for each block, or half of one, d [32] and m [32] as floats; then the planes of few
// rows, [kDirectRowsMax, 2, k] bytes.
inline size_t int16_planes_at(int32_t k) {
  const auto outputs = static_cast<size_t>(kPanelOutputs);
  return static_cast<size_t>(k) * outputs * sizeof(int16_t) +
         static_cast<size_t>(k / kPanelBlock) * 4 * outputs * sizeof(float);
}
inline size_t int16_panel_scratch_bytes(int32_t k) {
  return int16_planes_at(k) + static_cast<size_t>(kDirectRowsMax) * 2 * static_cast<size_t>(k);
}

inline void pack_row_int16(const float* x, const Operand& operand, std::byte* out) {
  const int32_t k = operand.k;
  VecF largest = zero();
  for (int32_t i = 0; i < k; i += 16) largest = max(largest, abs(load(x + i)));
  const float top = reduce_max(largest);
  const VecF inverse = set1(top > 0 ? kPlanesMax / top : 0.0f);
  auto* codes = reinterpret_cast<int16_t*>(out);
  for (int32_t i = 0; i < k; i += 16) store_int16(codes + i, mul(load(x + i), inverse));
  auto* sums = reinterpret_cast<float*>(out + static_cast<size_t>(k) * sizeof(int16_t));
  const int blocks = k / kPanelBlock;
  float* half_sums = sums + blocks + 1;
  for (int b = 0; b < blocks; ++b) {
    for (int half = 0; half < 2; ++half) {
      int32_t sum = 0;
      for (int32_t i = 0; i < 16; ++i) sum += codes[b * kPanelBlock + half * 16 + i];
      half_sums[2 * b + half] = static_cast<float>(sum);
    }
    sums[b] = half_sums[2 * b] + half_sums[2 * b + 1];  // exact
  }
  sums[blocks] = top / kPlanesMax;
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

// Bytes 0 and 1 of each lane, moved down by `shift` bits, as a pair of int16.
inline VecI byte_pair(VecI lanes, int shift) {
  const VecI moved = shift == 0 ? lanes : shift_right(lanes, shift);
  return bit_or(bit_and(moved, set1_int(255)), bit_and(shift_left(moved, 8), set1_int(255 << 16)));
}

// scales: [k / 32, layout.sub_blocks, 64]
inline void unpack_panel_int16(const Panel& panel, int32_t k, int16_t* codes, float* scales) {
  const PanelReader reader(panel);
  const PanelLayout& layout = reader.layout;
  for (int b = 0; b < k / kPanelBlock; ++b) {
    fetch_ahead(reader.block(b), layout.block_bytes);
    if (layout.code_bits == 0) {
      quantize_block(reader.floats(b), codes, scales);
      codes += kPanelBlock * kPanelOutputs, scales += 2 * kPanelOutputs;
      continue;
    }
    for (int sub = 0; sub < layout.sub_blocks; ++sub, scales += 2 * kPanelOutputs)
      WidePanel::store_scales(reader.scales(b, sub), reinterpret_cast<std::byte*>(scales));
    for (int g = 0; g < kPanelBlock / 4; ++g, codes += 4 * kPanelOutputs) {
      VecI w[2];
      reader.codes(b, g, w);
      for (int half = 0; half < 2; ++half) {
        store_bytes(codes + half * 32, byte_pair(w[half], 0));
        store_bytes(codes + 2 * kPanelOutputs + half * 32, byte_pair(w[half], 16));
      }
    }
  }
}

// total += the integer sums of a block, or a half of one, scaled; row_sum: that of row 0, `row_bytes` from row to row.
template <int kRows>
inline void add_block(const VecI (&sum)[kRows][2], const BlockScales& s, const std::byte* row_sum, size_t row_bytes,
                      VecF (&total)[kRows][2]) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r, row_sum += row_bytes) {
    const VecF values = set1(*reinterpret_cast<const float*>(row_sum));
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      total[r][v] = fma(to_float(sum[r][v]), s.d[v], total[r][v]);
      total[r][v] = fma(values, s.m[v], total[r][v]);
    }
  }
}

// One register tile over all blocks, each in kSubs parts. dot_block(i, sum) adds the integer products of part i,
// scales_of(i) gives its scales.
template <int kRows, int kSubs, class DotBlock, class ScalesOf>
inline void multiply_blocks(const std::byte* a, int32_t k, const DotBlock& dot_block, const ScalesOf& scales_of,
                            VecF (&total)[kRows][2]) {
  const size_t row_bytes = int16_row_bytes(k);
  const int blocks = k / kPanelBlock;
  const std::byte* row_sums = a + static_cast<size_t>(k) * sizeof(int16_t);
  const std::byte* part_sums = row_sums + (kSubs == 1 ? 0 : static_cast<size_t>(blocks + 1) * sizeof(float));
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) total[r][0] = total[r][1] = zero();
  for (int i = 0; i < kSubs * blocks; ++i, part_sums += sizeof(float)) {
    VecI sum[kRows][2];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero_int();
    dot_block(i, sum);
    add_block<kRows>(sum, scales_of(i), part_sums, row_bytes, total);
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    const VecF scale =
        set1(reinterpret_cast<const float*>(row_sums + static_cast<size_t>(r) * row_bytes)[k / kPanelBlock]);
    total[r][0] = mul(total[r][0], scale);
    total[r][1] = mul(total[r][1], scale);
  }
}

// All rows of a panel that was widened to int16.
template <int kSubs>
inline void gemm_int16_wide(const GemmArgs& args, int32_t p, const int16_t* codes, const float* scales) {
  constexpr int kPart = kPanelBlock / kSubs;
  const size_t row_bytes = int16_row_bytes(args.operand.k);
  for (int32_t r0 = 0; r0 < args.operand.rows;) {
    with_tile_rows<kInt16TileRows>(args.operand.rows - r0, [&]<int kRows>() {
      const std::byte* a = args.a + static_cast<size_t>(r0) * row_bytes;
      VecF total[kRows][2];
      multiply_blocks<kRows, kSubs>(
          a, args.operand.k,
          [&](int i, VecI(&sum)[kRows][2]) {
            multiply_tile<Int16, kRows, 2>({.a = reinterpret_cast<const int16_t*>(a) + i * kPart,
                                            .a_row = row_bytes / sizeof(int16_t),
                                            .b = codes + i * kPart * kPanelOutputs,
                                            .b_step = kPanelOutputs * 2},
                                           kPart / 2, sum);
          },
          [&](int i) {
            return WidePanel::scales(reinterpret_cast<const std::byte*>(scales + i * 2 * kPanelOutputs), 0, 0);
          },
          total);
      finish_tile<kRows>(args, p, r0, total);
      r0 += kRows;
    });
  }
}

// Few rows, as two planes of bytes: [rows, 2, k]. 256 * sum of high + sum of low is the same integer as above.
template <class Source>
inline void gemm_int16_direct(const GemmArgs& args, int32_t p, const std::byte* planes) {
  const auto k = static_cast<size_t>(args.operand.k);
  const std::byte* panel = args.panels[p].data;
  for (int32_t r0 = 0; r0 < args.operand.rows;) {
    with_tile_rows<kByteTileRows>(args.operand.rows - r0, [&]<int kRows>() {
      const std::byte* high = planes + static_cast<size_t>(r0) * 2 * k;
      VecF total[kRows][2];
      multiply_blocks<kRows, 1>(
          args.a + static_cast<size_t>(r0) * int16_row_bytes(args.operand.k), args.operand.k,
          [&](int b, VecI(&sum)[kRows][2]) {
            const std::byte* block = panel + static_cast<size_t>(b) * Source::kBlockBytes;
            if (r0 == 0) fetch_ahead(block, Source::kBlockBytes);
            dot_bytes<Source, kRows>(high + b * kPanelBlock, 2 * k, block, sum);
            add_second_plane<Source, kRows>(high + k + b * kPanelBlock, 2 * k, block, 8, sum);
          },
          [&](int b) { return Source::scales(panel + static_cast<size_t>(b) * Source::kBlockBytes, b, 0); }, total);
      finish_tile<kRows>(args, p, r0, total);
      r0 += kRows;
    });
  }
}

inline void gemm_int16(const GemmArgs& args) {
  const int32_t k = args.operand.k, rows = args.operand.rows;
  auto* codes = reinterpret_cast<int16_t*>(args.scratch);
  auto* scales = reinterpret_cast<float*>(args.scratch + static_cast<size_t>(k) * kPanelOutputs * sizeof(int16_t));
  std::byte* planes = args.scratch + int16_planes_at(k);
  const bool direct = rows <= kDirectRowsMax;
  for (int32_t r = 0; direct && r < rows; ++r) {
    auto* high = reinterpret_cast<int8_t*>(planes) + static_cast<size_t>(r) * 2 * static_cast<size_t>(k);
    split_planes(reinterpret_cast<const int16_t*>(args.a + static_cast<size_t>(r) * int16_row_bytes(k)), k, high,
                 high + k);
  }
  for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
    const Panel& panel = args.panels[p];
    if (direct && panel.format == PanelFormat::kCodes4) {
      gemm_int16_direct<PackedPanel<PanelFormat::kCodes4>>(args, p, planes);
    } else if (direct && panel.format == PanelFormat::kCodes8) {
      gemm_int16_direct<PackedPanel<PanelFormat::kCodes8>>(args, p, planes);
    } else {
      unpack_panel_int16(panel, k, codes, scales);
      if (panel_layout(panel.format).sub_blocks == 2)
        gemm_int16_wide<2>(args, p, codes, scales);
      else
        gemm_int16_wide<1>(args, p, codes, scales);
    }
  }
}

}  // namespace runahead::RUNAHEAD_ISA
