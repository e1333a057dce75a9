// What the naive oracles of the modes share. Private to kernels/reference and its tests.
#pragma once

#include <functional>

#include "kernels/ops.h"

namespace runahead {

// The weight of one output, as the packed panel defines it.
float reference_weight(const Panel& panel, int32_t k, int32_t output);

// The loops and epilogues of a product whose dot products come from `dot(row, panel, output)`.
void reference_gemm(const GemmArgs& args, const std::function<double(int32_t, const Panel&, int32_t)>& dot);

// One row of a tile: what it asks for, and the state of its online softmax, in double.
struct ReferenceRow {
  double query[kHeadDimMax];  // as the mode rounds it
  double out[kHeadDimMax];
  double row_max, row_sum;
};
ReferenceRow& reference_row(const AttentionTile& tile, int32_t row);

// One online-softmax step; each function gives the real number at (token of the page, dimension).
using RealAt = std::function<double(int32_t, int32_t)>;
void reference_attend(const AttendArgs& args, const RealAt& key, const RealAt& value);

// Queries, keys and values as the mode rounds them; unrounded softmax weights and sums in double.
void add_reference_attention_int16(OpTable& ops);
void add_reference_attention_int8(OpTable& ops);

OpTable reference_int16_table();  // without what all modes have in common
OpTable reference_int8_table();

}  // namespace runahead
