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
    constexpr float kFactors[] = {1, 1.25f, 1.5f, 1.75f};
    return mul(d[half], set1(kFactors[quarters]));
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

inline void levels_of(const std::array<uint8_t, 16>& levels, VecI (&w)[2]) {
  w[0] = look_up(w[0], levels.data()), w[1] = look_up(w[1], levels.data());
}

// Of a block of floats: the weights k and k + 1, k even, of outputs 0..15 or 16..31.
template <PanelFormat kFormat>
inline void load_two_k(const std::byte* block, int k, int half, VecF& first, VecF& second) {
  if constexpr (kFormat == PanelFormat::kBfloat16) {
    const VecH pairs = load_pairs(reinterpret_cast<const uint16_t*>(block) + k * kPanelOutputs + half * 32);
    first = even_of_pairs(pairs), second = odd_of_pairs(pairs);
  } else if constexpr (kFormat == PanelFormat::kFloat16) {
    const auto* p = reinterpret_cast<const uint16_t*>(block) + k * kPanelOutputs + half * 16;
    first = load_half(p), second = load_half(p + kPanelOutputs);
  } else {
    const auto* p = reinterpret_cast<const float*>(block) + k * kPanelOutputs + half * 16;
    first = load(p), second = load(p + kPanelOutputs);
  }
}

// Calls f.template operator()<format>() with the format of a panel of floats.
template <class F>
inline void with_float_format(PanelFormat format, const F& f) {
  switch (format) {
    case PanelFormat::kFloat16:
      return f.template operator()<PanelFormat::kFloat16>();
    case PanelFormat::kBfloat16:
      return f.template operator()<PanelFormat::kBfloat16>();
    default:
      return f.template operator()<PanelFormat::kFloat32>();
  }
}

// A panel of whatever format, block by block.
struct PanelReader {
  explicit PanelReader(const Panel& panel)
      : format(panel.format), data(panel.data), layout(panel_layout(panel.format)) {}
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
    if (layout.code_bits == 4) {
      codes_to_bytes<4>(at, group, w);
      if (layout.levels != nullptr) levels_of(*layout.levels, w);
      return;
    }
    if (layout.code_bits == 6) return codes_to_bytes<6>(at, group, w);
    codes_to_bytes<8>(at, group, w);
  }
  bool has_floats() const { return layout.code_bits == 0; }
  PanelFormat format;
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

// A block of floats. out: [32 / kPack, 32, kPack]
template <class Num, PanelFormat kFormat>
inline void unpack_floats(const std::byte* block, typename Num::Element* out) {
  for (int k = 0; k < kPanelBlock; k += 2, out += 2 * kPanelOutputs)
    for (int half = 0; half < 2; ++half) {
      VecF first, second;
      load_two_k<kFormat>(block, k, half, first, second);
      Num::store_two_k(out + half * 16 * Num::kPack, kPanelOutputs, first, second);
    }
}

// Block b. out: [32 / kPack, 32, kPack]. A call of its own: within the loops of a tile it would take their registers.
template <class Num>
[[gnu::noinline]] void unpack_block(const PanelReader& reader, int b, typename Num::Element* out) {
  const PanelLayout& layout = reader.layout;
  if (reader.has_floats())
    return with_float_format(reader.format,
                             [&]<PanelFormat kFormat>() { unpack_floats<Num, kFormat>(reader.block(b), out); });
  const int groups = kPanelBlock / 4 / layout.sub_blocks;
  for (int sub = 0; sub < layout.sub_blocks; ++sub) {
    const BlockScales scales = reader.scales(b, sub);
    for (int g = sub * groups; g < (sub + 1) * groups; ++g, out += 4 * kPanelOutputs) {
      VecI w[2];
      reader.codes(b, g, w);
      widen_group<Num>(w, scales, out);
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
    if constexpr (kLayout.levels != nullptr) levels_of(*kLayout.levels, w);
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

// Weights that come as floats: 8 bits between the least and the largest of the block, as exact as Q8_0. Two passes over the
// block, which the first one brings into the first-level cache; with a row of activations that is as fast as memory.
template <PanelFormat kFormat>
inline void quantize_to_bytes(const std::byte* from, std::byte* to) {
  auto* scales = reinterpret_cast<float*>(to);
  std::byte* codes = to + WidePanel::kScaleBytes;
  VecF least[2], largest[2], w[4];
  for (int half = 0; half < 2; ++half) {
    load_two_k<kFormat>(from, 0, half, largest[half], w[0]);
    least[half] = min(largest[half], w[0]), largest[half] = max(largest[half], w[0]);
  }
  for (int k = 2; k < kPanelBlock; k += 2)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      load_two_k<kFormat>(from, k, half, w[0], w[1]);
      least[half] = min(min(least[half], w[0]), w[1]), largest[half] = max(max(largest[half], w[0]), w[1]);
    }
  VecF inverse[2];
  for (int half = 0; half < 2; ++half) {
    const VecF range = max(sub(largest[half], least[half]), set1(1e-30f));
    inverse[half] = div(set1(255.0f), range);
    store(scales + half * 16, mul(range, set1(1 / 255.0f)));
    store(scales + kPanelOutputs + half * 16, least[half]);
  }
  for (int k = 0; k < kPanelBlock; k += 4)
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half, codes += 64) {
      load_two_k<kFormat>(from, k, half, w[0], w[1]);
      load_two_k<kFormat>(from, k + 2, half, w[2], w[3]);
#pragma GCC unroll 4
      for (VecF& weight : w) weight = mul(sub(weight, least[half]), inverse[half]);
      store_bytes(codes, interleave_uint8(w[0], w[1], w[2], w[3]));
    }
}

// Blocks [begin, end) of a panel. Target: WidePanel, or WidePanel16 for kCodes6K16.
template <class Target>
inline void widen_to_bytes(const Panel& panel, int begin, int end, std::byte* to) {
  const PanelReader reader(panel);
  for (int b = begin; b < end; ++b, to += Target::kBlockBytes) {
    fetch_ahead(reader.block(b), reader.layout.block_bytes);
    if (Target::kSubBlocks == 1 && reader.has_floats()) {
      with_float_format(reader.format, [&]<PanelFormat kFormat>() { quantize_to_bytes<kFormat>(reader.block(b), to); });
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
