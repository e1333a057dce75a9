// Widening a packed panel (kernels/packed_matrix.h) to the number format of the products, once for all rows of a call:
// about 9 vector instructions for 32 weights, against one dot instruction a row and 32 weights in bf16. And the panels
// of bytes, which byte products read as they lie.
#pragma once

#include "kernels/cpu/number.h"
#include "kernels/cpu/rotation.h"
#include "kernels/packed_matrix.h"

namespace runahead::RUNAHEAD_ISA {

// Scales of one block: outputs 0..15 and 16..31.
struct BlockScales {
  VecF d[2], m[2];
  BlockScales(const VecF (&ds)[2], const VecF (&ms)[2]) : d{ds[0], ds[1]}, m{ms[0], ms[1]} {}
  explicit BlockScales(const std::byte* block) {
    const auto* p = reinterpret_cast<const uint16_t*>(block);
    d[0] = load_half(p), d[1] = load_half(p + 16), m[0] = load_half(p + 32), m[1] = load_half(p + 48);
  }
  // d times 1, 1.25, 1.5 or 1.75: exact, d has 11 bits.
  VecF d_times(int32_t quarters, int half) const {
    return mul(d[half], set1(1 + 0.25f * static_cast<float>(quarters)));
  }
};
inline constexpr size_t kBlockScaleBytes = 4 * kPanelOutputs;

// Fetches the bytes that come kFetchAhead behind `block`, because the processor's own prefetchers stop at every 4 KiB: a
// panel is read from one end to the other, and the panels of a matrix lie one after the other.
inline void fetch_ahead(const std::byte* block, size_t bytes) {
  constexpr size_t kFetchAhead = 4096;
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(block + kFetchAhead + at, 0, 2);
}

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
    fetch_ahead(block, block_bytes);
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

// Panels whose codes a byte product reads without widening. Each gives, of one block, the codes of four k of all 32
// outputs as bytes, and the scales.
struct NibblePanel {  // PanelFormat::kCodes4
  static constexpr size_t kBlockBytes = kBlockScaleBytes + kPanelOutputs * kPanelBlock / 2;
  static constexpr bool kFromMemory = true;
  static void codes(const std::byte* block, int group, VecI (&w)[2]) {
    const VecI both = load_bytes(block + kBlockScaleBytes + group * 64), mask = set1_int(0x0F0F0F0F);
    w[0] = bit_and(both, mask), w[1] = bit_and(shift_right(both, 4), mask);
  }
  static BlockScales scales(const std::byte* block) { return BlockScales(block); }
};
struct BytePanel {  // PanelFormat::kCodes8
  static constexpr size_t kBlockBytes = kBlockScaleBytes + kPanelOutputs * kPanelBlock;
  static constexpr bool kFromMemory = true;
  static void codes(const std::byte* block, int group, VecI (&w)[2]) {
    const std::byte* from = block + kBlockScaleBytes + group * 128;
    w[0] = load_bytes(from), w[1] = load_bytes(from + 64);
  }
  static BlockScales scales(const std::byte* block) { return BlockScales(block); }
};
// What widen_to_bytes makes: the same with scales in fp32.
struct WidePanel {
  static constexpr size_t kScaleBytes = 2 * kPanelOutputs * sizeof(float);
  static constexpr size_t kBlockBytes = kScaleBytes + kPanelOutputs * kPanelBlock;
  static constexpr bool kFromMemory = false;
  static void codes(const std::byte* block, int group, VecI (&w)[2]) {
    const std::byte* from = block + kScaleBytes + group * 128;
    w[0] = load_bytes(from), w[1] = load_bytes(from + 64);
  }
  static BlockScales scales(const std::byte* block) {
    const auto* p = reinterpret_cast<const float*>(block);
    return {{RUNAHEAD_ISA::load(p), RUNAHEAD_ISA::load(p + 16)},
            {RUNAHEAD_ISA::load(p + 32), RUNAHEAD_ISA::load(p + 48)}};
  }
  static void store_scales(const BlockScales& s, std::byte* block) {
    auto* p = reinterpret_cast<float*>(block);
    store(p, s.d[0]), store(p + 16, s.d[1]), store(p + 32, s.m[0]), store(p + 48, s.m[1]);
  }
};

// The same for many rows: d times 1, 1.25, 1.5 and 1.75, then m, in fp32.
struct MultipliedPanel {
  static constexpr size_t kScaleBytes = 5 * kPanelOutputs * sizeof(float);
  static constexpr size_t kBlockBytes = kScaleBytes + kPanelOutputs * kPanelBlock;
  static constexpr bool kFromMemory = false;
  struct Scales {
    const float* d;
    VecF m[2];
    VecF d_times(int32_t quarters, int half) const {
      return RUNAHEAD_ISA::load(d + quarters * kPanelOutputs + half * 16);
    }
  };
  static void codes(const std::byte* block, int group, VecI (&w)[2]) {
    const std::byte* from = block + kScaleBytes + group * 128;
    w[0] = load_bytes(from), w[1] = load_bytes(from + 64);
  }
  static Scales scales(const std::byte* block) {
    const auto* p = reinterpret_cast<const float*>(block);
    const float* m = p + 4 * kPanelOutputs;
    return {p, {RUNAHEAD_ISA::load(m), RUNAHEAD_ISA::load(m + 16)}};
  }
  static void store_scales(const BlockScales& s, std::byte* block) {
    auto* p = reinterpret_cast<float*>(block);
    for (int half = 0; half < 2; ++half, p += 16) {
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) store(p + q * kPanelOutputs, s.d_times(q, half));
      store(p + 4 * kPanelOutputs, s.m[half]);
    }
  }
};

// Weights that come as floats: 8 bits between the least and the largest of the block, as exact as Q8_0. Such panels are
// right but slow, four passes over 4 KB a block and call.
inline void quantize_to_bytes(const float* from, std::byte* to) {
  auto* scales = reinterpret_cast<float*>(to);
  auto* codes = reinterpret_cast<uint8_t*>(to + WidePanel::kScaleBytes);
  for (int half = 0; half < 2; ++half, from += 16) {
    VecF least = load(from), largest = least;
    for (int kk = 1; kk < kPanelBlock; ++kk) {
      const VecF w = load(from + kk * kPanelOutputs);
      least = min(least, w), largest = max(largest, w);
    }
    const VecF range = max(sub(largest, least), set1(1e-30f)), inverse = div(set1(255.0f), range);
    store(scales + half * 16, mul(range, set1(1 / 255.0f)));
    store(scales + kPanelOutputs + half * 16, least);
    for (int kk = 0; kk < kPanelBlock; ++kk) {
      uint8_t rounded[16];
      store_uint8(rounded, mul(sub(load(from + kk * kPanelOutputs), least), inverse));
      for (int j = 0; j < 16; ++j)
        codes[(kk / 4 * kPanelOutputs + half * 16 + j) * 4 + kk % 4] = rounded[j];
    }
  }
}

// Blocks [begin, end) of a panel of nibbles or floats.
inline void widen_to_bytes(const Panel& panel, int begin, int end, std::byte* to) {
  const size_t block_bytes = panel_block_bytes(panel.format);
  const std::byte* block = panel.data + static_cast<size_t>(begin) * block_bytes;
  for (int b = begin; b < end; ++b, block += block_bytes, to += WidePanel::kBlockBytes) {
    fetch_ahead(block, block_bytes);
    if (panel.format == PanelFormat::kFloat32) {
      quantize_to_bytes(reinterpret_cast<const float*>(block), to);
      continue;
    }
    WidePanel::store_scales(BlockScales(block), to);
    for (int g = 0; g < kPanelBlock / 4; ++g) {
      VecI w[2];
      NibblePanel::codes(block, g, w);
      store_bytes(to + WidePanel::kScaleBytes + g * 128, w[0]);
      store_bytes(to + WidePanel::kScaleBytes + g * 128 + 64, w[1]);
    }
  }
}

// Blocks [begin, end) of a panel of nibbles, rotated (kernels/cpu/rotation.h). Target: WidePanel or MultipliedPanel.
template <class Target>
inline void widen_rotated(const Panel& panel, int begin, int end, std::byte* to) {
  const std::byte* block = panel.data + static_cast<size_t>(begin) * NibblePanel::kBlockBytes;
  for (int b = begin; b < end; ++b, block += NibblePanel::kBlockBytes, to += Target::kBlockBytes) {
    fetch_ahead(block, NibblePanel::kBlockBytes);
    Target::store_scales(BlockScales(block), to);
    VecI lanes[8];
    for (int g = 0; g < 8; ++g) lanes[g] = load_bytes(block + kBlockScaleBytes + g * 64);
    for (int half = 0; half < 2; ++half) {
      VecI codes[8];
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g)
        codes[g] = bit_and(half == 0 ? lanes[g] : shift_right(lanes[g], 4), set1_int(0x0F0F0F0F));
      rotate_codes(codes);
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) store_bytes(to + Target::kScaleBytes + g * 128 + half * 64, codes[g]);
    }
  }
}

}  // namespace runahead::RUNAHEAD_ISA
