// y = a W^T in int8: codes of the weights as they are in the file times activations of 8 bits with a scale a block of
// 32, summed exactly over the block and then scaled. Some activations stand out far from their neighbours, and 8 bits
// for all of a block would leave those few (0.5 % of perplexity). What is done about it depends on the weights, so there
// are two kinds of operand rows: int8_plain_rows.h and int8_rotated_rows.h.
//   y[r, n] = sum over blocks b of (d[b, n] * (dx[r, b] * sum of code * a) + m[b, n] * bs[r, b]), bs = dx * sum of a,
//   in that order whatever the tile.
//   bound         32 * 255 * 32,768 stays below 2^31
//   weights       that come as floats are rounded to 8 bits (kernels/cpu/unpack.h)
#pragma once

#include "kernels/cpu/gemm_few_rows.h"
#include "kernels/cpu/int8_plain_rows.h"
#include "kernels/cpu/int8_rotated_rows.h"

namespace runahead::RUNAHEAD_ISA {

static_assert(PlainRow(4096).bytes == RotatedRow(4096).bytes);
inline size_t int8_row_bytes(int32_t k) { return PlainRow(k).bytes; }

enum class Int8Rows { kPlain, kRotated, kRotatedBack };

inline Int8Rows int8_rows_of(const Operand& operand) {
  if (operand.weights != PanelFormat::kCodes4 && operand.weights != PanelFormat::kCodes4K) return Int8Rows::kPlain;
  return operand.rows <= kRotatedDirectRowsMax ? Int8Rows::kRotatedBack : Int8Rows::kRotated;
}

inline void pack_row_int8(const float* x, const Operand& operand, std::byte* out) {
  const Int8Rows rows = int8_rows_of(operand);
  if (rows == Int8Rows::kPlain) return pack_row_plain(x, operand.k, out);
  pack_row_rotated(x, operand.k, rows == Int8Rows::kRotatedBack, out);
}

inline void gemm_plain(const GemmArgs& args, PanelFormat format) {
  const bool few = args.operand.rows <= kDirectRowsMax, very_few = args.operand.rows <= kPlainDirectRowsMax;
  switch (format) {
    case PanelFormat::kCodes8:
      return gemm_in_place<PlainRows, PackedPanel<PanelFormat::kCodes8>>(args);
    case PanelFormat::kCodes4:
      if (few) return gemm_in_place<PlainRows, PackedPanel<PanelFormat::kCodes4>>(args);
      break;
    case PanelFormat::kIq4:
      if (few) return gemm_in_place<PlainRows, PackedPanel<PanelFormat::kIq4>>(args);
      break;
    case PanelFormat::kMxfp4:
      if (few) return gemm_in_place<PlainRows, PackedPanel<PanelFormat::kMxfp4>>(args);
      break;
    case PanelFormat::kIq4K:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kIq4K>>(args);
      break;
    case PanelFormat::kCodes4K:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kCodes4K>>(args);
      break;
    case PanelFormat::kCodes6K:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kCodes6K>>(args);
      break;
    case PanelFormat::kCodes6K16:
      if (very_few) return gemm_in_place<FewPlainRows, PackedPanel<PanelFormat::kCodes6K16>>(args);
      return gemm_widened<PlainRows, WidePanel16>(args, widen_to_bytes<WidePanel16>);
    case PanelFormat::kFloat16:
    case PanelFormat::kBfloat16:
    case PanelFormat::kFloat32:
      break;
  }
  gemm_widened<PlainRows, WidePanel>(args, widen_to_bytes<WidePanel>);
}

// Where dots take no operand from memory, gemm_few_rows is not even compiled.
template <PanelFormat kFormat>
inline void gemm_few_rotated(const GemmArgs& args) {
  if constexpr (kDotsTakeMemory) gemm_few_rows<PackedPanel<kFormat>>(args);
  else gemm_widened<RotatedRows, WidePanel>(args, widen_rotated<WidePanel>);
}

inline void gemm_rotated(const GemmArgs& args, PanelFormat format) {
  if (args.operand.rows > kDirectRowsMax)
    return gemm_widened<RotatedRows, MultipliedPanel>(args, widen_rotated<MultipliedPanel>);
  if (format == PanelFormat::kCodes4) return gemm_few_rotated<PanelFormat::kCodes4>(args);
  gemm_few_rotated<PanelFormat::kCodes4K>(args);
}

inline void gemm_rotated_back(const GemmArgs& args, PanelFormat format) {
  if (format == PanelFormat::kCodes4) return gemm_in_place<RotatedBackRows, PackedPanel<PanelFormat::kCodes4>>(args);
  gemm_in_place<RotatedBackRows, PackedPanel<PanelFormat::kCodes4K>>(args);
}

inline void gemm_int8(const GemmArgs& args) {
  switch (int8_rows_of(args.operand)) {
    case Int8Rows::kPlain:
      return for_formats(args, gemm_plain);
    case Int8Rows::kRotated:
      return for_formats(args, gemm_rotated);
    case Int8Rows::kRotatedBack:
      return for_formats(args, gemm_rotated_back);
  }
}

}  // namespace runahead::RUNAHEAD_ISA
