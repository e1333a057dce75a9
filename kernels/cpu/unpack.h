// Widening a packed panel (kernels/packed_matrix.h) to the number format of the products, once for all rows of a call:
// about 9 vector instructions for 32 weights, against one dot instruction a row and 32 weights in bf16.
#pragma once

#include "kernels/cpu/number.h"
#include "kernels/packed_matrix.h"

namespace runahead::RUNAHEAD_ISA {

// Scales of one block: outputs 0..15 and 16..31.
struct BlockScales {
  VecF d[2], m[2];
  explicit BlockScales(const std::byte* block) {
    const auto* p = reinterpret_cast<const uint16_t*>(block);
    d[0] = load_half(p), d[1] = load_half(p + 16), m[0] = load_half(p + 32), m[1] = load_half(p + 48);
  }
};
inline constexpr size_t kBlockScaleBytes = 4 * kPanelOutputs;

// Four k of 32 outputs from codes in 32-bit lanes: `lane_bits` >> (kk * stride + half_shift) & mask.
template <class Num>
inline void widen_group(const VecI (&lanes)[2], int stride, int high_half_shift, int mask, const BlockScales& s,
                        typename Num::Element* out) {
  const VecI code_mask = set1_int(mask);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    VecF w[4];
#pragma GCC unroll 4
    for (int kk = 0; kk < 4; ++kk) {
      const VecI code = bit_and(shift_right(lanes[half], kk * stride + half * high_half_shift), code_mask);
      w[kk] = fma(s.d[half], to_float(code), s.m[half]);
    }
    typename Num::Element* column = out + half * 16 * Num::kPack;
    Num::store_two_k(column, kPanelOutputs, w[0], w[1]);
    Num::store_two_k(column + 2 * kPanelOutputs, kPanelOutputs, w[2], w[3]);
  }
}

// out: [k / kPack, 32, kPack]
template <class Num>
inline void unpack_panel(const Panel& panel, int k, typename Num::Element* out) {
  const std::byte* block = panel.data;
  const size_t block_bytes = panel_block_bytes(panel.format);
  for (int b = 0; b < k / kPanelBlock; ++b, block += block_bytes) {
    typename Num::Element* to = out + static_cast<size_t>(b) * kPanelBlock * kPanelOutputs;
    if (panel.format == PanelFormat::kFloat32) {
      const auto* from = reinterpret_cast<const float*>(block);
      for (int kk = 0; kk < kPanelBlock; kk += 2, from += 2 * kPanelOutputs, to += 2 * kPanelOutputs)
        for (int half = 0; half < 2; ++half)
          Num::store_two_k(to + half * 16 * Num::kPack, kPanelOutputs, load(from + half * 16),
                           load(from + kPanelOutputs + half * 16));
      continue;
    }
    const BlockScales scales(block);
    const std::byte* codes = block + kBlockScaleBytes;
    for (int g = 0; g < kPanelBlock / 4; ++g, to += 4 * kPanelOutputs) {
      if (panel.format == PanelFormat::kCodes4) {
        const VecI both = load_bytes(codes + g * 64);
        widen_group<Num>({both, both}, 8, 4, 15, scales, to);
      } else {
        widen_group<Num>({load_bytes(codes + g * 128), load_bytes(codes + g * 128 + 64)}, 8, 0, 255, scales, to);
      }
    }
  }
}

}  // namespace runahead::RUNAHEAD_ISA
