// The op tables of one instruction set. Compiled once per instruction set with RUNAHEAD_ISA as its namespace
// (cmake/isa.cmake); nothing in here may be an inline function that other files share, or a machine without the
// instruction set could run it.
#include "base/check.h"
#include "kernels/cpu/gemm_int16.h"
#include "kernels/cpu/gemm_int8.h"
#include "kernels/cpu/op_tables.h"

namespace runahead::RUNAHEAD_ISA {
namespace {

OpTable int16_table() {
  OpTable ops = common_ops(ComputeMode::kInt16);
  add_attention<Int16Attention>(ops);
  ops.row_bytes = int16_row_bytes;
  ops.panel_scratch_bytes = span_scratch_bytes;
  ops.pack_row = pack_row_int16;
  ops.gemm = gemm_int16;
  ops.issue_dots = issue_dots<Int16>;
  return ops;
}

OpTable int8_table() {
  OpTable ops = common_ops(ComputeMode::kInt8);
  add_attention<Int8Attention>(ops);
  ops.row_bytes = int8_row_bytes;
  ops.panel_scratch_bytes = span_scratch_bytes;
  ops.pack_row = pack_row_int8;
  ops.gemm = gemm_int8;
  ops.issue_dots = issue_dots<Int8>;
  return ops;
}

}  // namespace

const OpTable& ops_of(ComputeMode mode) {
  static const OpTable fp32 = float_table<Fp32>(ComputeMode::kFp32), bf16 = float_table<Bf16>(ComputeMode::kBf16),
                       int16 = int16_table(), int8 = int8_table();
  switch (mode) {
    case ComputeMode::kFp32:
      return fp32;
    case ComputeMode::kBf16:
      return bf16;
    case ComputeMode::kInt16:
      return int16;
    case ComputeMode::kInt8:
      return int8;
  }
  RUNAHEAD_CHECK(false, "a compute mode without kernels");
}

}  // namespace runahead::RUNAHEAD_ISA
