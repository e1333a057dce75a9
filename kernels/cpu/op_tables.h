// Op tables of one instruction set (RUNAHEAD_ISA), as the sources beside this header put them together.
#pragma once

#include <string_view>
#include <type_traits>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/gemm.h"

#define RUNAHEAD_STRING_OF(x) #x
#define RUNAHEAD_STRING(x) RUNAHEAD_STRING_OF(x)

namespace runahead::RUNAHEAD_ISA {

// Declared again where the instruction sets are chosen (kernels/ops_select.cc).
const OpTable& ops_of(ComputeMode mode);

inline constexpr std::string_view kIsa = RUNAHEAD_STRING(RUNAHEAD_ISA);

template <class Sum>
Sum sum_of(int x) {
  if constexpr (std::is_same_v<Sum, VecF>) return set1(static_cast<float>(x));
  else return set1_int(x);
}

// Each pair of dots reads its own broadcast, as in multiply_tile, so that an emulated format pays for its emulation.
template <class Num>
double issue_dots(int64_t rounds) {
  constexpr int kChains = kDotChains;
  const typename Num::Element zeros[64] = {};
  const typename Num::Element* operand = zeros;
  typename Num::Sum acc[kChains];
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) acc[c] = sum_of<typename Num::Sum>(c);  // unlike, or they would be merged
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
  VecF sum = zero();
#pragma GCC unroll 12
  for (int c = 0; c < kChains; ++c) sum = add(sum, as_float(acc[c]));
  volatile float keep = reduce_add(sum);
  (void)keep;
  return static_cast<double>(rounds) * kChains * 16 * Num::kPack * 2;
}

inline OpTable common_ops(ComputeMode mode) {
  OpTable ops;
  ops.isa = kIsa;
  ops.mode = mode;
  ops.rms_norm = rms_norm;
  ops.layer_norm = layer_norm;
  ops.gelu = gelu_row;
  ops.soft_cap = soft_cap_row;
  ops.rotate = rotate;
  return ops;
}

template <class Mode>
void add_attention(OpTable& ops) {
  ops.key_element_bytes = sizeof(typename Mode::Scores::Element);
  ops.value_element_bytes = sizeof(typename Mode::Mix::Element);
  ops.kv_token_scales = Mode::kScaled;
  ops.kv_key_sums = Mode::kKeySums;
  ops.attention_tile_bytes = attention_tile_bytes<Mode>;
  ops.store_query = store_query<Mode>;
  ops.copy_query = copy_query<Mode>;
  ops.store_key = store_key<Mode>;
  ops.store_value = store_value<Mode>;
  ops.attend_page = attend_page<Mode>;
  ops.part_row_floats = part_row_floats;
  ops.attend_page_part = attend_page_part<Mode>;
  ops.fold_page_parts = fold_page_parts<Mode>;
  ops.finish_attention = finish_attention<Mode>;
}

template <class Num>
OpTable float_table(ComputeMode mode) {
  OpTable ops = common_ops(mode);
  add_attention<FloatAttention<Num>>(ops);
  ops.row_bytes = row_bytes<Num>;
  ops.panel_scratch_bytes = panel_scratch_bytes<Num>;
  ops.pack_row = pack_row<Num>;
  ops.gemm = gemm<Num>;
  ops.issue_dots = issue_dots<Num>;
  return ops;
}

}  // namespace runahead::RUNAHEAD_ISA
