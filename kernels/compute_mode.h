// ComputeMode: in which number format the matrix products and the attention run. Every worker of a chain uses the same
// one: K/V pages and logits of unlike modes differ, and the fingerprint (model/engine.h) keeps them apart.
#pragma once

#include <string_view>

#include "base/result.h"

namespace runahead {

enum class ComputeMode {
  kFp32,   // reference grade: within 1e-3 of float64 on every logit
  kBf16,   // bf16 dot products, fp32 sums
  kInt16,  // int16 dot products, near-lossless
  kInt8,  // int8 dot products with a scale a block of 32, of rotated operands or with 15 bits where blocks stand out
};

std::string_view name(ComputeMode mode);  // "fp32", "bf16", "int16", "int8"
// kUnsupported with the list of the modes that this build has, if `text` names none of them. "auto" is resolved by the
// caller (kernels/ops.h: fastest mode that passes the quality gate).
Result<ComputeMode> parse_compute_mode(std::string_view text);

}  // namespace runahead
