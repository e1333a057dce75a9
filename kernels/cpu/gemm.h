// y = a W^T in fp32 or bf16: each panel is widened once into scratch, then register tiles of kTileRows x 32 outputs
// walk down the rows. An output is one chain of multiply-adds over ascending k, whatever the tile.
#pragma once

#include "kernels/cpu/unpack.h"
#include "kernels/ops.h"

namespace runahead::RUNAHEAD_ISA {

// Writes a tile that starts at row `r0` of panel `p`.
template <int kRows>
inline void finish_tile(const GemmArgs& args, int32_t p, int32_t r0, const VecF (&acc)[kRows][2]) {
  const int width = is_gated(args.epilogue) ? kPanelOutputs / 2 : kPanelOutputs;
  float* out =
      args.out + static_cast<size_t>(r0) * args.out_stride + static_cast<size_t>(p) * static_cast<size_t>(width);
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r, out += args.out_stride) {
    switch (args.epilogue) {
      case Epilogue::kStore:
        store(out, acc[r][0]);
        store(out + 16, acc[r][1]);
        break;
      case Epilogue::kAdd:
        store(out, add(load(out), acc[r][0]));
        store(out + 16, add(load(out + 16), acc[r][1]));
        break;
      case Epilogue::kSiluMul:
        store(out, mul(silu(acc[r][0]), acc[r][1]));
        break;
      case Epilogue::kGeluMul:
        store(out, mul(gelu(acc[r][0]), acc[r][1]));
        break;
    }
  }
}

template <class Num>
void gemm(const GemmArgs& args) {
  using Element = typename Num::Element;
  static_assert(kTileVecs == 2, "a tile is one panel wide");
  const int32_t k = args.operand.k;
  auto* panel = reinterpret_cast<Element*>(args.scratch);  // [k / kPack, 32, kPack]
  const auto* a = reinterpret_cast<const Element*>(args.a);
  const auto stride = static_cast<size_t>(k);
  for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
    unpack_panel<Num>(args.panels[p], k, panel);
    for (int32_t r0 = 0; r0 < args.operand.rows;) {
      with_tile_rows<kTileRows>(args.operand.rows - r0, [&]<int kRows>() {
        VecF acc[kRows][2];
#pragma GCC unroll 12
        for (int r = 0; r < kRows; ++r) acc[r][0] = acc[r][1] = zero();
        multiply_tile<Num, kRows, 2>({.a = a + static_cast<size_t>(r0) * stride,
                                      .a_row = stride,
                                      .b = panel,
                                      .b_step = kPanelOutputs * Num::kPack},
                                     k / Num::kPack, acc);
        finish_tile<kRows>(args, p, r0, acc);
        r0 += kRows;
      });
    }
  }
}

template <class Num>
size_t row_bytes(int32_t k) {
  return static_cast<size_t>(k) * sizeof(typename Num::Element);
}

template <class Num>
size_t panel_scratch_bytes(int32_t k) {
  return static_cast<size_t>(k) * kPanelOutputs * sizeof(typename Num::Element);
}

template <class Num>
void pack_row(const float* x, const Operand& operand, std::byte* out) {
  auto* to = reinterpret_cast<typename Num::Element*>(out);
  for (int32_t i = 0; i < operand.k; i += 16) Num::store_row(to + i, load(x + i));
}

}  // namespace runahead::RUNAHEAD_ISA
