// Products of few rows of rotated activations (kernels/cpu/int8_rotated_rows.h) and 4-bit codes, for processors with 32 vector
// registers and dots that take an operand from memory: tiles of 8 rows and half a panel, 16 outputs, whose sums, totals and
// codes stay in registers. Other than in gemm_spans.h:
//   codes   are rotated (kernels/cpu/rotation.h) by units that the dots leave idle, block b + 1 between the dots of block b,
//           and not once for all rows beforehand
//   memory  the next panel is asked for evenly while both halves of this one are multiplied: few rows are as fast as memory
// The operations of a row and their order are those of gemm_spans.h. What it gains: docs/benchmarks.md, "Few rows". Plain rows
// gain nothing by it: their codes need no rotating.
#pragma once

#include "kernels/cpu/int8_rotated_rows.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kFewTileRows = 8;
inline constexpr int kBlockGroups = kPanelBlock / 4;  // of codes: four k each

// Of a block and of the one that is prepared: the rotated codes of 16 outputs, four k a vector.
struct RotatedBlocks {
  alignas(64) std::byte codes[2][kBlockGroups * 64];
};

// Rotates the codes of outputs 16 * kHalf and on, a block at a time.
template <class Source, int kHalf>
class CodeRotation {
 public:
  // One of kBlockGroups steps of rotating `block`.
  void step(int step, const std::byte* block, std::byte* to) {
    switch (step) {
      case 0:
        return load(block + Source::kLayout.scale_bytes);
      case 1:
        return butterflies_of_codes<1>(codes_);
      case 2:
        return butterflies_of_codes<2>(codes_);
      case 3:
        return butterflies_of_codes<4>(codes_);
      default:
        for (const int g : {2 * step - 8, 2 * step - 7}) store_bytes(to + g * 64, finished_rotation(codes_[g], g));
    }
  }

 private:
  void load(const std::byte* nibbles) {
#pragma GCC unroll 8
    for (int g = 0; g < kBlockGroups; ++g) {
      const VecI both = load_bytes(nibbles + g * 64);
      codes_[g] = bit_and(kHalf == 0 ? both : shift_right(both, 4), set1_int(0x0F0F0F0F));
    }
    begin_rotation(codes_);
  }
  VecI codes_[kBlockGroups];  // alone in here, so that they stay in registers
};

// Half of the cache lines of a block of the next panel.
template <class Source, int kHalf>
inline void fetch_half(const std::byte* block) {
  constexpr size_t kLines = Source::kBlockBytes / 64;
#pragma GCC unroll 16
  for (size_t line = kHalf * kLines / 2; line < (kHalf + 1) * kLines / 2; ++line)
    __builtin_prefetch(block + line * 64, 0, 2);
}

// Outputs 16 * kHalf and on of a panel, whose blocks begin at `block` and the next panel's panel_bytes behind, times the rows at
// `a`.
template <class Source, int kHalf, int kRows>
[[gnu::noinline]] void multiply_half(const std::byte* a, int32_t k, const std::byte* block, size_t panel_bytes,
                                     VecF (&out)[kRows][2]) {
  const RotatedRow row(k);
  const int blocks = k / kPanelBlock;
  VecF total[kRows];
#pragma GCC unroll 8
  for (VecF& t : total) t = zero();
  RotatedBlocks rotated;
  CodeRotation<Source, kHalf> rotation;
#pragma GCC unroll 8
  for (int step = 0; step < kBlockGroups; ++step) rotation.step(step, block, rotated.codes[0]);
  for (int b = 0; b < blocks; ++b) {
    fetch_half<Source, kHalf>(block + panel_bytes);
    const std::byte* const next = b + 1 < blocks ? Source::next(block, b) : block;
    VecI sum[kRows];
    const std::byte* at = a;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, at += row.bytes) sum[r] = RotatedRows::start(at, row, b);
#pragma GCC unroll 8
    for (int g = 0; g < kBlockGroups; ++g) {
      const VecI w = load_bytes(rotated.codes[b % 2] + g * 64);
      at = a + b * kPanelBlock + g * 4;
      asm("" : "+r"(at));  // or GCC computes the places of all dots beforehand, and spills them
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, at += row.bytes) sum[r] = dot_u8s8_at(sum[r], w, at);
      rotation.step(g, next, rotated.codes[(b + 1) % 2]);
    }
    const BlockScales s = Source::scales(block, b, 0);
    at = a;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, at += row.bytes)
      total[r] = RotatedRows::add_half(sum[r], at, row, b, s, kHalf, total[r]);
    block = next;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) out[r][kHalf] = total[r];
}

// Panels of one format, as they lie.
template <class Source>
inline void gemm_few_rows(const GemmArgs& args) {
  const int32_t k = args.operand.k;
  const RotatedRow row(k);
  for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
    const PanelReader panel(args.panels[p]);
    for_tiles<kFewTileRows>(0, args.operand.rows, [&]<int kRows>(int32_t first) {
      const std::byte* a = args.a + static_cast<size_t>(first) * row.bytes;
      VecF total[kRows][2];
      multiply_half<Source, 0, kRows>(a, k, panel.block(0), panel_bytes(panel.format, k), total);
      multiply_half<Source, 1, kRows>(a, k, panel.block(0), panel_bytes(panel.format, k), total);
      RotatedRows::finish<kRows>(a, row, total);
      finish_tile<kRows>(args, p, first, total);
    });
  }
}

}  // namespace runahead::RUNAHEAD_ISA
