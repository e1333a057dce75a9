// What the naive oracles of the modes share. Private to kernels/reference.
#pragma once

#include <functional>

#include "kernels/ops.h"

namespace runahead {

// The weight of one output, as the packed panel defines it.
float reference_weight(const Panel& panel, int32_t k, int32_t output);

// The loops and epilogues of a product whose dot products come from `dot(row, panel, output)`.
void reference_gemm(const GemmArgs& args, const std::function<double(int32_t, const Panel&, int32_t)>& dot);

// One online-softmax step in double; each function gives the real number at (row or token, dimension).
using RealAt = std::function<double(int32_t, int32_t)>;
void reference_attend(const AttendArgs& args, const RealAt& query, const RealAt& key, const RealAt& value);

OpTable reference_int16_table();  // without what all modes have in common
OpTable reference_int8_table();

}  // namespace runahead
