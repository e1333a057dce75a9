// The op tables of an instruction set that is another one, RUNAHEAD_ISA_BELOW, with faster products of bf16 (VDPBF16PS and the
// roundings to it): the rest is that one's code, under this one's name. Compiled as kernels/cpu/kernels.cc is.
#include "kernels/cpu/op_tables.h"

namespace runahead::RUNAHEAD_ISA_BELOW {
const OpTable& ops_of(ComputeMode mode);
}

namespace runahead::RUNAHEAD_ISA {
namespace {

static_assert(kNativeBf16);

OpTable table(ComputeMode mode) {
  if (mode == ComputeMode::kBf16) return float_table<Bf16>(mode);
  OpTable ops = RUNAHEAD_ISA_BELOW::ops_of(mode);
  ops.isa = kIsa;
  return ops;
}

}  // namespace

const OpTable& ops_of(ComputeMode mode) {
  static const OpTable tables[] = {table(ComputeMode::kFp32), table(ComputeMode::kBf16), table(ComputeMode::kInt16),
                                   table(ComputeMode::kInt8)};
  return tables[static_cast<size_t>(mode)];
}

}  // namespace runahead::RUNAHEAD_ISA
