// Products of bytes: codes of the weights times activations in one signed byte or in two (value = 256 * high + low).
#pragma once

#include "kernels/cpu/gemm.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr float kPlanesMax = 127 * 256 + 127;  // the largest value of which both bytes are signed
// Up to this many rows nibbles are taken from the panel as it lies: widening would cost more than it saves. Measured on
// Zen 4: at 24 rows direct is 3 to 6 % faster, at 36 even, at 96 6 % slower.
inline constexpr int32_t kDirectRowsMax = 30;

// value = 256 * high + low, both signed bytes; |value| <= kPlanesMax.
inline void split_planes(const int16_t* values, int count, int8_t* high, int8_t* low) {
  for (int i = 0; i < count; ++i) {
    low[i] = static_cast<int8_t>(values[i]);
    high[i] = static_cast<int8_t>((values[i] - low[i]) >> 8);
  }
}

// sum[r] += codes of part `sub` of one block times signed bytes of each row, `a_row` bytes from row to row; a: of the
// whole block.
template <class Source, int kRows>
inline void dot_bytes(const std::byte* a, size_t a_row, const std::byte* block, VecI (&sum)[kRows][2], int sub = 0) {
  constexpr int kGroups = kPanelBlock / 4 / Source::kSubBlocks;
#pragma GCC unroll 8
  for (int i = 0; i < kGroups; ++i) {
    const int g = sub * kGroups + i;
    VecI w[2];
    Source::codes(block, g, w);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      std::memcpy(&four, a + static_cast<size_t>(r) * a_row + g * 4, sizeof(four));
      const VecI x = set1_int(four);
      sum[r][0] = dot_u8s8(sum[r][0], w[0], x);
      sum[r][1] = dot_u8s8(sum[r][1], w[1], x);
    }
  }
}

// sum = 2^shift * sum + the second plane's products.
template <class Source, int kRows>
inline void add_second_plane(const std::byte* low, size_t a_row, const std::byte* block, int shift,
                             VecI (&sum)[kRows][2]) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) sum[r][0] = shift_left(sum[r][0], shift), sum[r][1] = shift_left(sum[r][1], shift);
  dot_bytes<Source, kRows>(low, a_row, block, sum);
}

}  // namespace runahead::RUNAHEAD_ISA
