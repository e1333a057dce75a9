// The op tables of one instruction set. Compiled once per instruction set with RUNAHEAD_ISA as its namespace
// (cmake/isa.cmake); nothing in here may be an inline function that other files share, or a machine without the
// instruction set could run it.
#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/gemm.h"

#define RUNAHEAD_STRING_OF(x) #x
#define RUNAHEAD_STRING(x) RUNAHEAD_STRING_OF(x)

namespace runahead::RUNAHEAD_ISA {
namespace {

// Each pair of dots reads its own broadcast, as in multiply_tile, so that an emulated format pays for its emulation.
template <class Num>
double issue_dots(int64_t rounds) {
  constexpr int kChains = 12;  // latency x throughput of every dot instruction we know is at most 12
  const typename Num::Element zeros[64] = {};
  const typename Num::Element* operand = zeros;
  VecF acc[kChains];
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) acc[c] = set1(static_cast<float>(c));  // unlike, or they would be merged
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+r"(operand));  // what it points to is unknown from here on
    const typename Num::Vec w = Num::load(operand);
#pragma GCC unroll 12
    for (int c = 0; c < kChains; c += 2) {
      const typename Num::Vec x = Num::broadcast(operand + 2 * c);
      acc[c] = Num::dot(acc[c], x, w);
      acc[c + 1] = Num::dot(acc[c + 1], x, w);
    }
  }
  VecF sum = acc[0];
#pragma GCC unroll 12
  for (int c = 1; c < kChains; ++c) sum = add(sum, acc[c]);
  volatile float keep = reduce_add(sum);
  (void)keep;
  return static_cast<double>(rounds) * kChains * 16 * Num::kPack * 2;
}

// `Linear` computes the products with weights, `Attending` everything with K/V pages.
template <class Linear, class Attending>
constexpr OpTable table(ComputeMode mode) {
  OpTable ops;
  ops.isa = RUNAHEAD_STRING(RUNAHEAD_ISA);
  ops.mode = mode;
  ops.kv_element_bytes = sizeof(typename Attending::Element);
  ops.row_bytes = row_bytes<Linear>;
  ops.panel_scratch_bytes = panel_scratch_bytes<Linear>;
  ops.rms_norm = rms_norm;
  ops.pack_row = pack_row<Linear>;
  ops.gemm = gemm<Linear>;
  ops.rotate = rotate;
  ops.store_query = store_query<Attending>;
  ops.store_key = store_key<Attending>;
  ops.store_value = store_value<Attending>;
  ops.attend_page = attend_page<Attending>;
  ops.finish_attention = finish_attention;
  ops.issue_dots = issue_dots<Linear>;
  return ops;
}

}  // namespace

extern const OpTable kOps[2];
const OpTable kOps[2] = {table<Fp32, Fp32>(ComputeMode::kFp32), table<Bf16, Bf16>(ComputeMode::kBf16)};

}  // namespace runahead::RUNAHEAD_ISA
