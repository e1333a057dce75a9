// How a product of integers goes through its operands, in int16 and int8 alike: spans of blocks, groups of panels and
// rows, register tiles. What a block of 32 values of k is multiplied and scaled with is said by two parameters:
//   Rows    the rows of activations (gemm_int16.h, int8_plain_rows.h, int8_rotated_rows.h):
//             Row                      where the parts of an operand row lie, made of k
//             kTileRows                of a register tile
//             dot<Source, kRows>       the integer sums of part `sub` of a block
//             add<Source, kRows>       those sums, scaled, into the totals
//             finish<kRows>            totals of the last block into results
//             kOutliers, and add_outliers<Source> where it is true: what a row adds after the tiles of a span
//   Source  the blocks of a panel: as they lie in memory (PackedPanel) or widened (unpack.h)
// A row's floating-point operations and their order are those of ascending blocks, whatever the spans and tiles.
#pragma once

#include "kernels/cpu/gemm_bytes.h"

namespace runahead::RUNAHEAD_ISA {

// A span of a panel's blocks is widened into the first-level cache, of which this much (of 32 KB) is for it, and multiplied
// with all rows of a group, whose operand rows of that span lie in the second-level cache, where the next panel of its
// group finds them again.
inline constexpr int kSpanBytes = 30 << 10;
inline constexpr int32_t kGroupRows = 264;
inline constexpr int32_t kGroupPanels = 4;
inline constexpr size_t kTotalsBytes = size_t{kGroupPanels} * kGroupRows * kPanelOutputs * sizeof(float);

// Of GemmArgs::scratch: totals [kGroupPanels, kGroupRows, 32], then a widened span.
inline size_t span_scratch_bytes(int32_t) { return kTotalsBytes + kSpanBytes; }

// What a block counts in a span. Where rows have outliers the spans decide the order of sums, so few rows, which read a
// panel in place, go through the spans of many, which read it widened; kCodes8 never is.
template <class Source>
inline constexpr size_t kSpanBlockBytes = Source::kBlockBytes;
template <PanelFormat kFormat>
inline constexpr size_t kSpanBlockBytes<PackedPanel<kFormat>> =
    kFormat == PanelFormat::kCodes8 ? PackedPanel<kFormat>::kBlockBytes
                                    : WidePanelOf<PackedPanel<kFormat>::kSubBlocks>::kBlockBytes;

// Blocks of a span: spans of a product are about as long as each other.
template <class Source>
inline int span_blocks(int blocks) {
  constexpr int kMost = kSpanBytes / static_cast<int>(kSpanBlockBytes<Source>);
  const int spans = (blocks + kMost - 1) / kMost;
  return (blocks + spans - 1) / spans;
}

// One register tile over blocks [begin, end), which lie at `block`.
template <class Rows, class Source, int kRows>
inline void multiply_blocks(const std::byte* a, const typename Rows::Row& row, int begin, int end,
                            const std::byte* block, bool first_tile, VecF (&total)[kRows][2]) {
  for (int b = begin; b < end; block = Source::next(block, b), ++b) {
    if (Source::kFromMemory && first_tile) fetch_ahead(block, Source::kBlockBytes);
#pragma GCC unroll 2
    for (int sub = 0; sub < Source::kSubBlocks; ++sub) {
      VecI sum[kRows][2];
      Rows::template dot<Source, kRows>(a, row, b, sub, block, sum);
      Rows::template add<Source, kRows>(a, row, b, sub, block, sum, total);
    }
  }
}

// totals [kRows, 32]
template <int kRows>
inline void load_totals(const float* totals, VecF (&total)[kRows][2]) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) total[r][v] = load(totals + r * kPanelOutputs + 16 * v);
}
template <int kRows>
inline void store_totals(const VecF (&total)[kRows][2], float* totals) {
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) store(totals + r * kPanelOutputs + 16 * v, total[r][v]);
}

// f.template operator()<n>(r) for tiles of n rows that begin at row r and cover [begin, end).
template <int kMax, class F>
inline void for_tiles(int32_t begin, int32_t end, const F& f) {
  for (int32_t r = begin; r < end;) {
    with_tile_rows<kMax>(end - r, [&]<int kRows>() {
      f.template operator()<kRows>(r);
      r += kRows;
    });
  }
}

// Rows [r0, r1) times blocks [begin, end) of panel p, which lie at `blocks`; totals [r1 - r0, 32] of the blocks before.
template <class Rows, class Source>
inline void multiply_span(const GemmArgs& args, int32_t p, int32_t r0, int32_t r1, int begin, int end,
                          const std::byte* blocks, float* totals) {
  const typename Rows::Row row(args.operand.k);
  const bool last = end == args.operand.k / kPanelBlock;
  const auto row_at = [&](int32_t r) { return args.a + static_cast<size_t>(r) * row.bytes; };
  const auto totals_of = [&](int32_t r) { return totals + static_cast<size_t>(r - r0) * kPanelOutputs; };
  for_tiles<Rows::kTileRows>(r0, r1, [&]<int kRows>(int32_t r) {
    VecF total[kRows][2];
    if (begin == 0)
      for (VecF(&t)[2] : total) t[0] = t[1] = zero();
    else load_totals<kRows>(totals_of(r), total);
    multiply_blocks<Rows, Source, kRows>(row_at(r), row, begin, end, blocks, r == 0, total);
    if (last && !Rows::kOutliers) {
      Rows::template finish<kRows>(row_at(r), row, total);
      finish_tile<kRows>(args, p, r, total);
    } else {
      store_totals<kRows>(total, totals_of(r));
    }
  });
  if constexpr (Rows::kOutliers) {
    for (int32_t r = r0; r < r1; ++r)
      Rows::template add_outliers<Source>(row_at(r), row, begin, end, blocks, totals_of(r));
    if (!last) return;
    for_tiles<Rows::kTileRows>(r0, r1, [&]<int kRows>(int32_t r) {
      VecF total[kRows][2];
      load_totals<kRows>(totals_of(r), total);
      Rows::template finish<kRows>(row_at(r), row, total);
      finish_tile<kRows>(args, p, r, total);
    });
  }
}

// blocks_of(panel, begin, end): where these blocks of a panel lie, as Source reads them.
template <class Rows, class Source, class BlocksOf>
inline void gemm_spans(const GemmArgs& args, const BlocksOf& blocks_of) {
  const int blocks = args.operand.k / kPanelBlock, span = span_blocks<Source>(blocks);
  const int32_t rows = args.operand.rows, group = rows <= kDirectRowsMax ? 1 : kGroupPanels;
  auto* totals = reinterpret_cast<float*>(args.scratch);
  for (int32_t r0 = 0; r0 < rows; r0 += kGroupRows) {
    const int32_t r1 = r0 + kGroupRows < rows ? r0 + kGroupRows : rows;
    for (int32_t p0 = args.panel_begin; p0 < args.panel_end; p0 += group) {
      const int32_t p1 = p0 + group < args.panel_end ? p0 + group : args.panel_end;
      for (int begin = 0; begin < blocks; begin += span) {
        const int end = begin + span < blocks ? begin + span : blocks;
        for (int32_t p = p0; p < p1; ++p)
          multiply_span<Rows, Source>(args, p, r0, r1, begin, end, blocks_of(args.panels[p], begin, end),
                                      totals + static_cast<size_t>(p - p0) * kGroupRows * kPanelOutputs);
      }
    }
  }
}

// Panels of one format, as they lie. Source: PackedPanel, or made of it.
template <class Rows, class Source>
inline void gemm_in_place(const GemmArgs& args) {
  gemm_spans<Rows, Source>(args, [](const Panel& panel, int begin, int) { return PanelReader(panel).block(begin); });
}

// widen(panel, begin, end, to)
template <class Rows, class Source, class Widen>
inline void gemm_widened(const GemmArgs& args, const Widen& widen) {
  std::byte* scratch = args.scratch + kTotalsBytes;
  gemm_spans<Rows, Source>(args, [&](const Panel& panel, int begin, int end) {
    widen(panel, begin, end, scratch);
    return scratch;
  });
}

// f(args of consecutive panels of one format, that format)
template <class F>
inline void for_formats(const GemmArgs& args, const F& f) {
  for (GemmArgs run = args; run.panel_begin < args.panel_end; run.panel_begin = run.panel_end) {
    const PanelFormat format = args.panels[run.panel_begin].format;
    run.panel_end = run.panel_begin + 1;
    while (run.panel_end < args.panel_end && args.panels[run.panel_end].format == format) ++run.panel_end;
    f(run, format);
  }
}

}  // namespace runahead::RUNAHEAD_ISA
