// The naive oracle of the int16 mode: its layouts and its rounding of activations, queries, keys and values, but sums
// in double over the file's own weights and unrounded probabilities.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/reference/reference_ops.h"

namespace runahead {
namespace {

constexpr float kRowMax = 32639;  // 127 * 256 + 127: both bytes of an activation are signed

// head * unit / size, rounded; returns the scale that undoes it.
float quantize(const float* head, int32_t count, float size, float unit, int16_t* codes) {
  const float inverse = size > 0 ? unit / size : 0.0f;
  for (int32_t i = 0; i < count; ++i) codes[i] = static_cast<int16_t>(std::nearbyint(head[i] * inverse));
  return size / unit;
}

float largest(const float* x, int32_t count) {
  float top = 0;
  for (int32_t i = 0; i < count; ++i) top = std::max(top, std::fabs(x[i]));
  return top;
}

size_t row_bytes(int32_t k) {
  const size_t bytes = static_cast<size_t>(k) * 2 + (3 * static_cast<size_t>(k / kPanelBlock) + 1) * 4;
  return (bytes + 63) / 64 * 64;
}

void pack_row(const float* x, const Operand& operand, std::byte* out) {
  const int32_t k = operand.k;
  auto* codes = reinterpret_cast<int16_t*>(out);
  auto* sums = reinterpret_cast<float*>(out + static_cast<size_t>(k) * 2);
  sums[k / kPanelBlock] = quantize(x, k, largest(x, k), kRowMax, codes);
  const int32_t blocks = k / kPanelBlock;
  std::fill_n(sums, blocks, 0.0f);
  std::fill_n(sums + blocks + 1, 2 * blocks, 0.0f);
  for (int32_t i = 0; i < k; ++i) {
    sums[i / kPanelBlock] += codes[i];
    sums[blocks + 1 + i / 16] += codes[i];
  }
}

double dot_row(const std::byte* row, const Panel& panel, int32_t k_len, int32_t output) {
  const auto* codes = reinterpret_cast<const int16_t*>(row);
  double sum = 0;
  for (int32_t k = 0; k < k_len; ++k) sum += static_cast<double>(codes[k]) * reference_weight(panel, k, output);
  return sum * reinterpret_cast<const float*>(row + static_cast<size_t>(k_len) * 2)[k_len / kPanelBlock];
}

void gemm(const GemmArgs& args) {
  reference_gemm(args, [&](int32_t r, const Panel& panel, int32_t output) {
    return dot_row(args.a + static_cast<size_t>(r) * row_bytes(args.operand.k), panel, args.operand.k, output);
  });
}

}  // namespace

OpTable reference_int16_table() {
  OpTable ops;
  ops.isa = "reference";
  ops.mode = ComputeMode::kInt16;
  add_reference_attention_int16(ops);
  ops.row_bytes = row_bytes;
  ops.panel_scratch_bytes = [](int32_t) { return size_t{64}; };
  ops.pack_row = pack_row;
  ops.gemm = gemm;
  return ops;
}

}  // namespace runahead
