// Reading packed panels (kernels/packed_matrix.h): widened to the number format of the products, once for all rows of a
// call (about 9 vector instructions for 32 weights, against one dot instruction a row and 32 weights in bf16), or as bytes,
// which byte products of few rows read as they lie.
#pragma once

#include "kernels/cpu/number_format.h"
#include "kernels/cpu/rotation.h"
#include "kernels/packed_matrix.h"

namespace runahead::RUNAHEAD_ISA {

// Scales of one block, or of a part of one: outputs 0..15 and 16..31.
struct BlockScales {
  VecF d[2], m[2];
  BlockScales(const VecF (&ds)[2], const VecF (&ms)[2]) : d{ds[0], ds[1]}, m{ms[0], ms[1]} {}
  explicit BlockScales(const std::byte* block) {
    const auto* p = reinterpret_cast<const uint16_t*>(block);
    d[0] = load_half(p), d[1] = load_half(p + 16), m[0] = load_half(p + 32), m[1] = load_half(p + 48);
  }
  // d times 1, 1.25, 1.5 or 1.75: exact, d has 11 bits, and K-quants' 17.
  VecF d_times(int32_t quarters, int half) const {
    return mul(d[half], set1(1 + 0.25f * static_cast<float>(quarters)));
  }
};

// The scales of part `sub` of a block of a layout with superblocks.
inline BlockScales scales_of_k_quant(const std::byte* superblock, const std::byte* block, int sub) {
  BlockScales s(superblock);
  const auto* own = reinterpret_cast<const int8_t*>(block) + sub * 2 * kPanelOutputs;
  for (int half = 0; half < 2; ++half, own += 16) {
    s.d[half] = mul(s.d[half], load_int8(own));
    s.m[half] = mul(s.m[half], load_int8(own + kPanelOutputs));
  }
  return s;
}

// Four k, 4 * group and on, of outputs 0..15 and of 16..31, as bytes.
template <int kBits>
inline void codes_to_bytes(const std::byte* codes, int group, VecI (&w)[2]) {
  if constexpr (kBits == 8) {
    w[0] = load_bytes(codes + group * 128), w[1] = load_bytes(codes + group * 128 + 64);
  } else {
    const VecI both = load_bytes(codes + group * 64), mask = set1_int(0x0F0F0F0F);
    w[0] = bit_and(both, mask), w[1] = bit_and(shift_right(both, 4), mask);
    if constexpr (kBits == 6) {
      const VecI loaded = load_bytes(codes + kPanelBlock / 4 * 64 + group / 2 * 64), bits = set1_int(0x30303030);
      const VecI high = group % 2 == 0 ? shift_left(loaded, 4) : loaded;
      w[0] = bit_or(w[0], bit_and(high, bits));
      w[1] = bit_or(w[1], bit_and(group % 2 == 0 ? shift_left(loaded, 2) : shift_right(loaded, 2), bits));
    }
  }
}

// A panel of whatever format, block by block.
struct PanelReader {
  explicit PanelReader(const Panel& panel) : data(panel.data), layout(panel_layout(panel.format)) {}
  const std::byte* superblock(int b) const {
    const auto blocks = static_cast<size_t>(layout.blocks);
    return data + static_cast<size_t>(b) / blocks * (layout.shared_bytes + blocks * layout.block_bytes);
  }
  const std::byte* block(int b) const {
    return superblock(b) + layout.shared_bytes + static_cast<size_t>(b % layout.blocks) * layout.block_bytes;
  }
  BlockScales scales(int b, int sub) const {
    return layout.blocks == 1 ? BlockScales(block(b)) : scales_of_k_quant(superblock(b), block(b), sub);
  }
  void codes(int b, int group, VecI (&w)[2]) const {
    const std::byte* at = block(b) + layout.scale_bytes;
    if (layout.code_bits == 4) return codes_to_bytes<4>(at, group, w);
    if (layout.code_bits == 6) return codes_to_bytes<6>(at, group, w);
    codes_to_bytes<8>(at, group, w);
  }
  const float* floats(int b) const { return reinterpret_cast<const float*>(block(b)); }
  const std::byte* data;
  const PanelLayout& layout;
};

// Fetches the bytes that come kFetchAhead behind `block`, because the processor's own prefetchers stop at every 4 KiB: a
// panel is read from one end to the other, and the panels of a matrix lie one after the other.
inline void fetch_ahead(const std::byte* block, size_t bytes) {
  constexpr size_t kFetchAhead = 4096;
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(block + kFetchAhead + at, 0, 2);
}

// Four k of 32 outputs.
template <class Num>
inline void widen_group(const VecI (&codes)[2], const BlockScales& s, typename Num::Element* out) {
  const VecI mask = set1_int(255);
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    VecF w[4];
#pragma GCC unroll 4
    for (int kk = 0; kk < 4; ++kk)
      w[kk] = fma(s.d[half], to_float(bit_and(shift_right(codes[half], kk * 8), mask)), s.m[half]);
    typename Num::Element* column = out + half * 16 * Num::kPack;
    Num::store_two_k(column, kPanelOutputs, w[0], w[1]);
    Num::store_two_k(column + 2 * kPanelOutputs, kPanelOutputs, w[2], w[3]);
  }
}

// out: [k / kPack, 32, kPack]
template <class Num>
inline void unpack_panel(const Panel& panel, int k, typename Num::Element* out) {
  const PanelReader reader(panel);
  const PanelLayout& layout = reader.layout;
  for (int b = 0; b < k / kPanelBlock; ++b) {
    fetch_ahead(reader.block(b), layout.block_bytes);
    typename Num::Element* to = out + static_cast<size_t>(b) * kPanelBlock * kPanelOutputs;
    if (layout.code_bits == 0) {
      const float* from = reader.floats(b);
      for (int kk = 0; kk < kPanelBlock; kk += 2, from += 2 * kPanelOutputs, to += 2 * kPanelOutputs)
        for (int half = 0; half < 2; ++half)
          Num::store_two_k(to + half * 16 * Num::kPack, kPanelOutputs, load(from + half * 16),
                           load(from + kPanelOutputs + half * 16));
      continue;
    }
    const int groups = kPanelBlock / 4 / layout.sub_blocks;
    for (int sub = 0; sub < layout.sub_blocks; ++sub) {
      const BlockScales scales = reader.scales(b, sub);
      for (int g = sub * groups; g < (sub + 1) * groups; ++g, to += 4 * kPanelOutputs) {
        VecI w[2];
        reader.codes(b, g, w);
        widen_group<Num>(w, scales, to);
      }
    }
  }
}

// What byte products read: of one block, the codes of four k of all 32 outputs as bytes, and the scales of each of its
// sub_blocks. As panels lie in memory:
template <PanelFormat kFormat>
struct PackedPanel {
  static constexpr PanelLayout kLayout = kPanelLayouts[static_cast<size_t>(kFormat)];
  static constexpr int kSubBlocks = kLayout.sub_blocks;
  static constexpr size_t kBlockBytes = kLayout.block_bytes;
  static constexpr bool kFromMemory = true;
  // The block that follows block b.
  static const std::byte* next(const std::byte* block, int b) {
    return block + kBlockBytes + ((b + 1) % kLayout.blocks == 0 ? kLayout.shared_bytes : 0);
  }
  static void codes(const std::byte* block, int group, VecI (&w)[2]) {
    codes_to_bytes<kLayout.code_bits>(block + kLayout.scale_bytes, group, w);
  }
  static BlockScales scales(const std::byte* block, int b, int sub) {
    if constexpr (kLayout.blocks == 1) return BlockScales(block);
    else
      return scales_of_k_quant(block - static_cast<size_t>(b % kLayout.blocks) * kBlockBytes - kLayout.shared_bytes,
                               block, sub);
  }
};

// As widen_to_bytes makes them, with scales in fp32:
template <int kSubs>
struct WidePanelOf {
  static constexpr int kSubBlocks = kSubs;
  static constexpr size_t kScaleBytes = kSubs * 2 * kPanelOutputs * sizeof(float);
  static constexpr size_t kBlockBytes = kScaleBytes + kPanelOutputs * kPanelBlock;
  static constexpr bool kFromMemory = false;
  static const std::byte* next(const std::byte* block, int) { return block + kBlockBytes; }
  static void codes(const std::byte* block, int group, VecI (&w)[2]) {
    const std::byte* from = block + kScaleBytes + group * 128;
    w[0] = load_bytes(from), w[1] = load_bytes(from + 64);
  }
  static BlockScales scales(const std::byte* block, int, int sub) {
    const auto* p = reinterpret_cast<const float*>(block) + sub * 2 * kPanelOutputs;
    return {{RUNAHEAD_ISA::load(p), RUNAHEAD_ISA::load(p + 16)},
            {RUNAHEAD_ISA::load(p + 32), RUNAHEAD_ISA::load(p + 48)}};
  }
  static void store_scales(const BlockScales& s, std::byte* block, int sub = 0) {
    auto* p = reinterpret_cast<float*>(block) + sub * 2 * kPanelOutputs;
    store(p, s.d[0]), store(p + 16, s.d[1]), store(p + 32, s.m[0]), store(p + 48, s.m[1]);
  }
};
using WidePanel = WidePanelOf<1>;
using WidePanel16 = WidePanelOf<2>;  // scales for 16 values of k: PanelFormat::kCodes6K16

// The same for many rows: d times 1, 1.25, 1.5 and 1.75, then m, in fp32.
struct MultipliedPanel {
  static constexpr int kSubBlocks = 1;
  static constexpr size_t kScaleBytes = 5 * kPanelOutputs * sizeof(float);
  static constexpr size_t kBlockBytes = kScaleBytes + kPanelOutputs * kPanelBlock;
  static constexpr bool kFromMemory = false;
  static const std::byte* next(const std::byte* block, int) { return block + kBlockBytes; }
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
  static Scales scales(const std::byte* block, int, int) {
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
      for (int j = 0; j < 16; ++j) codes[(kk / 4 * kPanelOutputs + half * 16 + j) * 4 + kk % 4] = rounded[j];
    }
  }
}

// Blocks [begin, end) of a panel. Target: WidePanel, or WidePanel16 for kCodes6K16.
template <class Target>
inline void widen_to_bytes(const Panel& panel, int begin, int end, std::byte* to) {
  const PanelReader reader(panel);
  for (int b = begin; b < end; ++b, to += Target::kBlockBytes) {
    fetch_ahead(reader.block(b), reader.layout.block_bytes);
    if (Target::kSubBlocks == 1 && reader.layout.code_bits == 0) {
      quantize_to_bytes(reader.floats(b), to);
      continue;
    }
    for (int sub = 0; sub < Target::kSubBlocks; ++sub) Target::store_scales(reader.scales(b, sub), to, sub);
    for (int g = 0; g < kPanelBlock / 4; ++g) {
      VecI w[2];
      reader.codes(b, g, w);
      store_bytes(to + Target::kScaleBytes + g * 128, w[0]);
      store_bytes(to + Target::kScaleBytes + g * 128 + 64, w[1]);
    }
  }
}

// Blocks [begin, end) of a panel of nibbles, rotated (kernels/cpu/rotation.h). Target: WidePanel or MultipliedPanel.
template <class Target>
inline void widen_rotated(const Panel& panel, int begin, int end, std::byte* to) {
  const PanelReader reader(panel);
  for (int b = begin; b < end; ++b, to += Target::kBlockBytes) {
    fetch_ahead(reader.block(b), reader.layout.block_bytes);
    Target::store_scales(reader.scales(b, 0), to);
    const std::byte* nibbles = reader.block(b) + reader.layout.scale_bytes;
    VecI lanes[8];
    for (int g = 0; g < 8; ++g) lanes[g] = load_bytes(nibbles + g * 64);
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
