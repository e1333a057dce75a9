// Rotations by Hadamard matrices (entries 1 and -1). A product does not change when both of its operands are rotated,
// but a value that stands out is spread over its neighbours, so 8 bits hold them better (ADR 5).
//   heads   queries and keys, as floats
//   blocks  the 32 activations and codes of a block of products, as two groups of 16: value i is of group i / 2 % 2. The
//           groups lie so that a panel (kernels/packed_matrix.h) is rotated by adding whole vectors, and that 16 codes
//           of 4 bits become codes of 8 bits, exactly: sums up to 240, differences of up to 120.
#pragma once

#include "kernels/cpu/vec.h"

namespace runahead::RUNAHEAD_ISA {

// signs.of[d][i] is -1 where i has bit d set.
struct ButterflySigns {
  constexpr ButterflySigns() : of() {
    for (int d = 1; d < 16; d *= 2)
      for (int i = 0; i < 16; ++i) of[d][i] = (i & d) != 0 ? -1.0f : 1.0f;
  }
  alignas(64) float of[16][16];
};
inline constexpr ButterflySigns kSigns;

// Lanes i and i + kDistance become their sum and difference.
template <int kDistance>
inline VecF butterfly(VecF x) {
  return fma(x, load(kSigns.of[kDistance]), swap_lanes<kDistance>(x));
}

// A head: a Hadamard matrix over as many neighbours as a power of two divides head_dim into, scaled to keep lengths.
inline void spread_head(const float* head, int32_t head_dim, float* out) {
  for (int32_t i = 0; i < head_dim; i += 16)
    store(out + i, butterfly<1>(butterfly<2>(butterfly<4>(butterfly<8>(load(head + i))))));
  int32_t group = 16;
  for (; head_dim % (2 * group) == 0; group *= 2) {
    for (int32_t i = 0; i < head_dim; i += 16) {
      if (i % (2 * group) >= group) continue;
      const VecF a = load(out + i), b = load(out + i + group);
      store(out + i, add(a, b));
      store(out + i + group, sub(a, b));
    }
  }
  const VecF scale = set1(1.0f / __builtin_sqrtf(static_cast<float>(group)));
  for (int32_t i = 0; i < head_dim; i += 16) store(out + i, mul(load(out + i), scale));
}

// Values 0..15 and 16..31 of a block.
inline void rotate_block(VecF& low, VecF& high) {
  const VecF sum = add(low, high), difference = sub(low, high);
  low = butterfly<1>(butterfly<4>(butterfly<8>(sum)));
  high = butterfly<1>(butterfly<4>(butterfly<8>(difference)));
}
inline constexpr float kRotatedNorm = 16;  // of the matrix times itself

// The codes of a block of 16 outputs, four k a vector, likewise, plus kRotatedBias but for the two sums of a group: all
// in [0, 240].
inline constexpr int32_t kRotatedBias = 120;
inline constexpr int kGroupSums[] = {0, 2};  // where they are
// In five steps: the first value of a group counts in each result; sums and differences of whole vectors; those of bytes.
inline constexpr int32_t kFirstOfGroups = kRotatedBias << 16 | kRotatedBias;
inline void begin_rotation(VecI (&codes)[8]) { codes[0] = add_bytes(codes[0], set1_int(kFirstOfGroups)); }
template <int kStep>  // 1, 2, 4
inline void butterflies_of_codes(VecI (&codes)[8]) {
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) {
    if (v & kStep) continue;
    const VecI a = codes[v], b = codes[v + kStep];
    codes[v] = add_bytes(a, b), codes[v + kStep] = sub_bytes(a, b);
  }
}
inline VecI finished_rotation(VecI codes, int at) {
  const VecI c = sums_and_differences(codes);
  return at == 0 ? sub_bytes(c, set1_int(kFirstOfGroups)) : c;
}
inline void rotate_codes(VecI (&codes)[8]) {
  begin_rotation(codes);
  butterflies_of_codes<1>(codes);
  butterflies_of_codes<2>(codes);
  butterflies_of_codes<4>(codes);
#pragma GCC unroll 8
  for (int v = 0; v < 8; ++v) codes[v] = finished_rotation(codes[v], v);
}

}  // namespace runahead::RUNAHEAD_ISA
