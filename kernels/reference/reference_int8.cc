// The naive oracle of the int8 mode's products: its operand rows, its rounding of activations and of weights that come
// as floats, but sums in double.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/reference/reference_ops.h"

namespace runahead {
namespace {

constexpr float kOutlierRatio = 1.75f;  // as in kernels/cpu/gemm_int8.h

size_t round_up(size_t n, size_t unit) {
  return (n + unit - 1) / unit * unit;
}

size_t row_bytes(int32_t k) {
  const auto blocks = static_cast<size_t>(k / kPanelBlock);
  return round_up(static_cast<size_t>(k) * 2 + blocks * 8 + round_up(blocks, 32) / 8, 64);
}

float largest(const float* x) {
  float top = 0;
  for (int32_t i = 0; i < kPanelBlock; ++i) top = std::max(top, std::fabs(x[i]));
  return top;
}

void pack_row(const float* x, int32_t k, std::byte* out) {
  const int32_t blocks = k / kPanelBlock;
  auto* high = reinterpret_cast<int8_t*>(out);
  auto* scales = reinterpret_cast<float*>(out + k * 2);
  auto* flags = reinterpret_cast<uint32_t*>(out + k * 2 + blocks * 8);
  float all = 0;
  for (int32_t b = 0; b < blocks; ++b) all += largest(x + b * kPanelBlock);
  const float limit = all / static_cast<float>(blocks) * kOutlierRatio;
  std::memset(flags, 0, round_up(static_cast<size_t>(blocks), 32) / 8);
  for (int32_t b = 0; b < blocks; ++b) {
    const float top = largest(x + b * kPanelBlock);
    const bool outlier = top > limit;
    const float unit = outlier ? 32639.0f : 127.0f, inverse = top > 1e-30f ? unit / top : 0.0f;
    int32_t sum = 0;
    for (int32_t i = b * kPanelBlock; i < (b + 1) * kPanelBlock; ++i) {
      const auto value = static_cast<int32_t>(std::nearbyint(x[i] * inverse));
      const int32_t rest = outlier ? (value + 128 + 65536) % 256 - 128 : 0;
      high[i] = static_cast<int8_t>(outlier ? (value - rest) / 256 : value);
      high[k + i] = static_cast<int8_t>(rest);
      sum += value;
    }
    if (outlier) flags[b / 32] |= 1u << (b % 32);
    scales[b] = top / unit * (outlier ? 256 : 1);
    scales[blocks + b] = top / unit * static_cast<float>(sum);
  }
}

// The weights of one output and block as the mode sees them.
void block_weights(const Panel& panel, int32_t b, int32_t output, float (&weights)[kPanelBlock]) {
  for (int32_t i = 0; i < kPanelBlock; ++i) weights[i] = reference_weight(panel, b * kPanelBlock + i, output);
  if (panel.format != PanelFormat::kFloat32) return;
  const auto [least, most] = std::minmax_element(weights, weights + kPanelBlock);
  const float from = *least, range = std::max(*most - *least, 1e-30f);
  for (float& w : weights) w = std::nearbyint((w - from) * (255.0f / range)) * (range / 255.0f) + from;
}

double dot_row(const std::byte* row, const Panel& panel, int32_t k, int32_t output) {
  const auto* high = reinterpret_cast<const int8_t*>(row);
  const auto* scales = reinterpret_cast<const float*>(row + k * 2);
  double total = 0;
  for (int32_t b = 0; b < k / kPanelBlock; ++b) {
    float weights[kPanelBlock];
    block_weights(panel, b, output, weights);
    double sum = 0;
    for (int32_t i = 0; i < kPanelBlock; ++i)
      sum += weights[i] * (high[b * kPanelBlock + i] + high[k + b * kPanelBlock + i] / 256.0);
    total += sum * scales[b];
  }
  return total;
}

void gemm(const GemmArgs& args) {
  reference_gemm(args, [&](int32_t r, const Panel& panel, int32_t output) {
    return dot_row(args.a + static_cast<size_t>(r) * row_bytes(args.k), panel, args.k, output);
  });
}

}  // namespace

OpTable reference_int8_table() {
  OpTable ops;
  ops.isa = "reference";
  ops.mode = ComputeMode::kInt8;
  add_reference_attention_int8(ops);
  ops.panel_scratch_bytes = [](int32_t) { return size_t{64}; };
  ops.row_bytes = row_bytes;
  ops.pack_row = pack_row;
  ops.gemm = gemm;
  return ops;
}

}  // namespace runahead
