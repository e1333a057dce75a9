// Products of few rows of activations in int8, for processors with 32 vector registers and dots that take an operand from
// memory: tiles of 8 rows and half a panel, 16 outputs, whose sums, totals and codes stay in registers. Other than in
// gemm_spans.h:
//   codes   of 4 bits are rotated (kernels/cpu/rotation.h) by units that the dots leave idle, block b + 1 between the dots
//           of block b, and not once for all rows beforehand
//   memory  the next panel is asked for evenly while both halves of this one are multiplied: few rows are as fast as memory
// The operations of a row and their order are those of gemm_spans.h. Measured on Zen 4, SmolLM2 with 8 rows: products 1.45
// times, a decode step 1.3 times as fast.
#pragma once

#include "kernels/cpu/int8_plain_rows.h"
#include "kernels/cpu/int8_rotated_rows.h"

namespace runahead::RUNAHEAD_ISA {

inline constexpr int kFewTileRows = 8;
// Fewer rows have too few sums to keep the dots busy half a panel at a time: one row takes 1.4 times as long, two even.
inline constexpr int32_t kFewRowsMin = 3;
inline constexpr int kBlockGroups = kPanelBlock / 4;  // of codes: four k each

// Outputs 16 * kHalf and on of a panel's blocks, as they lie.
template <class Source, int kHalf>
struct CodesInPlace {
  struct Buffer {};
  CodesInPlace(const std::byte*, Buffer&) {}
  static VecI load(const std::byte* block, int, int group) {
    VecI w[2];
    Source::codes(block, group, w);
    return w[kHalf];
  }
  void prepare(const std::byte*, int, int) {}
};

// The same of nibbles, rotated.
template <class Source, int kHalf>
class RotatedCodes {
 public:
  struct Buffer {
    alignas(64) std::byte rotated[2][kBlockGroups * 64];  // of block b and of the one that is prepared
  };
  RotatedCodes(const std::byte* first, Buffer& buffer) : buffer_(buffer) {
#pragma GCC unroll 8
    for (int step = 0; step < kBlockGroups; ++step) prepare(first, 0, step);
  }
  VecI load(const std::byte*, int b, int group) const { return load_bytes(buffer_.rotated[b % 2] + group * 64); }
  // One of kBlockGroups steps of rotating `block`, which is block b.
  void prepare(const std::byte* block, int b, int step) {
    std::byte* to = buffer_.rotated[b % 2];
    switch (step) {
      case 0:
        return load_codes(block + Source::kLayout.scale_bytes);
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
  void load_codes(const std::byte* nibbles) {
#pragma GCC unroll 8
    for (int g = 0; g < kBlockGroups; ++g) {
      const VecI both = load_bytes(nibbles + g * 64);
      codes_[g] = bit_and(kHalf == 0 ? both : shift_right(both, 4), set1_int(0x0F0F0F0F));
    }
    begin_rotation(codes_);
  }
  Buffer& buffer_;
  VecI codes_[kBlockGroups];  // in registers, so the buffer is not among the members
};

template <class Rows>
struct FewRowsOf;
template <>
struct FewRowsOf<PlainRows> {
  template <class Source, int kHalf>
  using Codes = CodesInPlace<Source, kHalf>;
};
template <>
struct FewRowsOf<RotatedRows> {
  template <class Source, int kHalf>
  using Codes = RotatedCodes<Source, kHalf>;
};

// Half of the cache lines of a block of the next panel.
template <class Source, int kHalf>
inline void fetch_half(const std::byte* block) {
  constexpr size_t kLines = Source::kBlockBytes / 64;
#pragma GCC unroll 16
  for (size_t line = kHalf * kLines / 2; line < (kHalf + 1) * kLines / 2; ++line)
    __builtin_prefetch(block + line * 64, 0, 2);
}

// Rows of a tile, and how far behind a block that of the next panel lies.
template <class Rows>
struct FewRows {
  const std::byte* a;
  typename Rows::Row row;
  size_t panel_bytes;
};

// Outputs 16 * kHalf and on of blocks [begin, end) of a panel, which lie at `block`, into totals [kRows, 32].
template <class Rows, class Source, int kHalf, int kRows>
[[gnu::noinline]] void multiply_half(const FewRows<Rows>& rows, const std::byte* block, int begin, int end,
                                     float* totals) {
  const std::byte* const a = rows.a;
  const typename Rows::Row row = rows.row;
  const size_t panel_bytes = rows.panel_bytes;
  VecF total[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) total[r] = load(totals + r * kPanelOutputs + kHalf * 16);
  using Codes = typename FewRowsOf<Rows>::template Codes<Source, kHalf>;
  typename Codes::Buffer buffer;
  Codes codes(block, buffer);
  for (int b = begin; b < end; ++b) {
    fetch_half<Source, kHalf>(block + panel_bytes);
    const std::byte* const next = b + 1 < end ? Source::next(block, b) : block;
    VecI sum[kRows];
    const std::byte* at = a;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, at += row.bytes) sum[r] = Rows::start(at, row, b);
#pragma GCC unroll 8
    for (int g = 0; g < kBlockGroups; ++g) {
      const VecI w = codes.load(block, b - begin, g);
      at = a + b * kPanelBlock + g * 4;
      asm("" : "+r"(at));  // or GCC computes the places of all dots beforehand, and spills them
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r, at += row.bytes) sum[r] = dot_u8s8_at(sum[r], w, at);
      codes.prepare(next, b - begin + 1, g);
    }
    const BlockScales s = Source::scales(block, b, 0);
    at = a;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r, at += row.bytes) total[r] = Rows::add_half(sum[r], at, row, b, s, kHalf, total[r]);
    block = next;
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) store(totals + r * kPanelOutputs + kHalf * 16, total[r]);
}

// Panels of one format, as they lie.
template <class Rows, class Source>
inline void gemm_few_rows(const GemmArgs& args) {
  const typename Rows::Row row(args.operand.k);
  const int blocks = args.operand.k / kPanelBlock, span = Rows::kOutliers ? span_blocks<Source>(blocks) : blocks;
  for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
    const PanelReader panel(args.panels[p]);
    for_tiles<kFewTileRows>(0, args.operand.rows, [&]<int kRows>(int32_t first) {
      const FewRows<Rows> rows{args.a + static_cast<size_t>(first) * row.bytes, row,
                               panel_bytes(panel.format, args.operand.k)};
      alignas(64) float totals[kRows * kPanelOutputs] = {};
      for (int begin = 0; begin < blocks; begin += span) {
        const int end = begin + span < blocks ? begin + span : blocks;
        const std::byte* block = panel.block(begin);
        multiply_half<Rows, Source, 0, kRows>(rows, block, begin, end, totals);
        multiply_half<Rows, Source, 1, kRows>(rows, block, begin, end, totals);
        if constexpr (Rows::kOutliers)
          for (int r = 0; r < kRows; ++r)
            Rows::template add_outliers<Source>(rows.a + static_cast<size_t>(r) * row.bytes, row, begin, end, block,
                                                totals + r * kPanelOutputs);
      }
      VecF total[kRows][2];
      load_totals<kRows>(totals, total);
      Rows::template finish<kRows>(rows.a, row, total);
      finish_tile<kRows>(args, p, first, total);
    });
  }
}

}  // namespace runahead::RUNAHEAD_ISA
