// y = a W^T in int8: codes of the weights as they are in the file times activations of 8 bits with a scale a block of
// 32, summed exactly over the block and then scaled. Blocks that stand out of their row have 15 bits, in a second plane
// of bytes: 8 bits for all of them would cost 0.5 % of perplexity, and they are few.
//   y[r, n] = sum over blocks b of (d[b, n] * (dx[r, b] * sum of code * a) + m[b, n] * bs[r, b]), bs = dx * sum of a
//   operand row   a [k] int8, the second plane [k] int8, dx [k / 32] fp32, bs [k / 32] fp32, a bit for each block that
//                 has 15 bits [k / 32], padding to 64 B. Where the bit is set a block's value is a + second plane / 256;
//                 elsewhere the second plane is not written and not read.
//   two passes    32 blocks after 32 blocks: a tile over all of the first plane, then each row over its own few of the
//                 second one. A row's sums are in that order whatever its tile.
//   bound         32 * 255 * 32,768 stays below 2^31
//   weights       that come as floats are rounded to 8 bits (kernels/cpu/unpack.h)
#pragma once

#include "kernels/cpu/gemm_bytes.h"

namespace runahead::RUNAHEAD_ISA {

// A block has 15 bits if its largest |x| exceeds this many times the mean of the row's block maxima.
inline constexpr float kOutlierRatio = 1.75f;

// Where the parts of an operand row lie.
struct Int8Row {
  explicit Int8Row(int32_t k)
      : low(static_cast<size_t>(k)),
        scales(2 * low),
        sums(scales + low / kPanelBlock * sizeof(float)),
        flags(sums + low / kPanelBlock * sizeof(float)),
        bytes((flags + (low / kPanelBlock + 31) / 32 * sizeof(uint32_t) + 63) / 64 * 64) {}
  size_t low, scales, sums, flags, bytes;
};

inline size_t int8_row_bytes(int32_t k) {
  return Int8Row(k).bytes;
}

inline size_t int8_panel_scratch_bytes(int32_t k) {
  return static_cast<size_t>(k / kPanelBlock) * WidePanel::kBlockBytes;
}

inline float largest_of_block(const float* x) {
  return reduce_max(max(abs(load(x)), abs(load(x + 16))));
}

inline void pack_row_int8(const float* x, int32_t k, std::byte* out) {
  const Int8Row row(k);
  const int blocks = k / kPanelBlock;
  auto* scales = reinterpret_cast<float*>(out + row.scales);
  auto* sums = reinterpret_cast<float*>(out + row.sums);
  auto* flags = reinterpret_cast<uint32_t*>(out + row.flags);
  float all = 0;
  for (int b = 0; b < blocks; ++b) all += scales[b] = largest_of_block(x + b * kPanelBlock);
  const float limit = all / static_cast<float>(blocks) * kOutlierRatio;
  for (int b = 0; b < blocks; ++b) {
    if (b % 32 == 0) flags[b / 32] = 0;
    const float top = scales[b];
    const bool outlier = top > limit;
    flags[b / 32] |= static_cast<uint32_t>(outlier) << (b % 32);
    const float unit = outlier ? kPlanesMax : kInt8Max;
    const VecF inverse = set1(top > 1e-30f ? unit / top : 0.0f);  // smaller ones are zeros, lest this be infinite
    const VecF x0 = mul(load(x + b * kPanelBlock), inverse), x1 = mul(load(x + b * kPanelBlock + 16), inverse);
    int16_t values[kPanelBlock];
    store_int16(values, x0);
    store_int16(values + 16, x1);
    const auto sum = reduce_add(to_float(dot_s16(zero_int(), load_bytes(values), set1_int(0x00010001))));  // exact
    auto* high = reinterpret_cast<int8_t*>(out) + b * kPanelBlock;
    if (outlier) {
      split_planes(values, kPanelBlock, high, high + row.low);
    } else {
      store_int8(high, x0);
      store_int8(high + 16, x1);
    }
    const float scale = top / unit;
    sums[b] = scale * sum;
    scales[b] = outlier ? scale * 256 : scale;
  }
}

inline constexpr int kSpan = 32;       // blocks that are taken together: their codes fit the first-level cache
inline constexpr int kGroupRows = 48;  // rows that are done with a span before the next one replaces it there

// One register tile over blocks [begin, end) of the first plane; totals [kRows, 32].
template <class Source, int kRows>
inline void multiply_first_plane(const std::byte* a, const Int8Row& row, int begin, int end, const std::byte* panel,
                                 float* totals) {
  VecF total[kRows][2];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) total[r][v] = begin == 0 ? zero() : load(totals + r * kPanelOutputs + 16 * v);
  const std::byte* block = panel + static_cast<size_t>(begin) * Source::kBlockBytes;
  for (int b = begin; b < end; ++b, block += Source::kBlockBytes) {
    VecI sum[kRows][2];
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = zero_int();
    dot_bytes<Source, kRows>(a + b * kPanelBlock, row.bytes, block, sum);
    const BlockScales s = Source::scales(block);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const std::byte* mine = a + static_cast<size_t>(r) * row.bytes;
      const VecF scale = set1(reinterpret_cast<const float*>(mine + row.scales)[b]);
      const VecF row_sum = set1(reinterpret_cast<const float*>(mine + row.sums)[b]);
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) {
        total[r][v] = fma(mul(to_float(sum[r][v]), scale), s.d[v], total[r][v]);
        total[r][v] = fma(row_sum, s.m[v], total[r][v]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) store(totals + r * kPanelOutputs + 16 * v, total[r][v]);
}

// One row over those of kSpan blocks from `begin` that have 15 bits; totals [32].
template <class Source>
inline void add_second_plane_of_row(const std::byte* a, const Int8Row& row, int begin, const std::byte* panel,
                                    float* totals) {
  const auto* scales = reinterpret_cast<const float*>(a + row.scales);
  uint32_t left = reinterpret_cast<const uint32_t*>(a + row.flags)[begin / kSpan];
  for (; left != 0; left &= left - 1) {
    const int b = begin + __builtin_ctz(left);
    const std::byte* block = panel + static_cast<size_t>(b) * Source::kBlockBytes;
    VecI sum[1][2] = {{zero_int(), zero_int()}};
    dot_bytes<Source, 1>(a + row.low + b * kPanelBlock, 0, block, sum);
    const BlockScales s = Source::scales(block);
    const VecF scale = set1(scales[b] * (1.0f / 256));
    for (int v = 0; v < 2; ++v)
      store(totals + 16 * v, fma(mul(to_float(sum[0][v]), scale), s.d[v], load(totals + 16 * v)));
  }
}

// f.template operator()<n>(r) for tiles of n rows that begin at row r and cover [begin, end).
template <class F>
inline void for_byte_tiles(int32_t begin, int32_t end, const F& f) {
  for (int32_t r = begin; r < end;) {
    with_tile_rows<kByteTileRows>(end - r, [&]<int kRows>() {
      f.template operator()<kRows>(r);
      r += kRows;
    });
  }
}

template <class Source>
inline void gemm_int8_panel(const GemmArgs& args, int32_t p, const std::byte* data) {
  const Int8Row row(args.k);
  const int blocks = args.k / kPanelBlock;
  alignas(64) float totals[kGroupRows * kPanelOutputs];
  for (int32_t r0 = 0; r0 < args.rows; r0 += kGroupRows) {
    const int32_t r1 = r0 + kGroupRows < args.rows ? r0 + kGroupRows : args.rows;
    const auto of_row = [&](int32_t r) { return totals + (r - r0) * kPanelOutputs; };
    for (int b = 0; b < blocks; b += kSpan) {
      const int end = b + kSpan < blocks ? b + kSpan : blocks;
      for_byte_tiles(r0, r1, [&]<int kRows>(int32_t r) {
        multiply_first_plane<Source, kRows>(args.a + static_cast<size_t>(r) * row.bytes, row, b, end, data, of_row(r));
      });
      for (int32_t r = r0; r < r1; ++r)
        add_second_plane_of_row<Source>(args.a + static_cast<size_t>(r) * row.bytes, row, b, data, of_row(r));
    }
    for_byte_tiles(r0, r1, [&]<int kRows>(int32_t r) {
      VecF total[kRows][2];
#pragma GCC unroll 6
      for (int i = 0; i < kRows; ++i)
        for (int v = 0; v < 2; ++v) total[i][v] = load(of_row(r + i) + 16 * v);
      finish_tile<kRows>(args, p, r, total);
    });
  }
}

inline void gemm_int8(const GemmArgs& args) {
  for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
    const Panel& panel = args.panels[p];
    if (panel.format == PanelFormat::kCodes8) {
      gemm_int8_panel<BytePanel>(args, p, panel.data);
    } else if (panel.format == PanelFormat::kCodes4 && args.rows <= kDirectRowsMax) {
      gemm_int8_panel<NibblePanel>(args, p, panel.data);
    } else {
      widen_to_bytes(panel, args.k, args.scratch);
      gemm_int8_panel<WidePanel>(args, p, args.scratch);
    }
  }
}

}  // namespace runahead::RUNAHEAD_ISA
