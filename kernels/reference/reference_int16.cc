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

float length(const float* x, int32_t count) {
  double sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
  return static_cast<float>(std::sqrt(sum));
}

size_t row_bytes(int32_t k) {
  const size_t bytes = static_cast<size_t>(k) * 2 + (static_cast<size_t>(k / kPanelBlock) + 1) * 4;
  return (bytes + 63) / 64 * 64;
}

void pack_row(const float* x, int32_t k, std::byte* out) {
  auto* codes = reinterpret_cast<int16_t*>(out);
  auto* sums = reinterpret_cast<float*>(out + static_cast<size_t>(k) * 2);
  sums[k / kPanelBlock] = quantize(x, k, largest(x, k), kRowMax, codes);
  for (int32_t b = 0; b < k / kPanelBlock; ++b) {
    sums[b] = 0;
    for (int32_t i = 0; i < kPanelBlock; ++i) sums[b] += codes[b * kPanelBlock + i];
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
    return dot_row(args.a + static_cast<size_t>(r) * row_bytes(args.k), panel, args.k, output);
  });
}

void store_query(const float* head, float scale, int32_t head_dim, std::byte* out) {
  const float undo = quantize(head, head_dim, length(head, head_dim), 32000, reinterpret_cast<int16_t*>(out)) * scale;
  std::memcpy(out + head_dim * 2, &undo, sizeof(undo));
}

float* scales_of(std::byte* half_page, int32_t head_dim) {
  return reinterpret_cast<float*>(half_page + kPageTokens * head_dim * 2);
}

void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  std::vector<int16_t> codes(static_cast<size_t>(head_dim));
  scales_of(keys, head_dim)[slot] = quantize(head, head_dim, length(head, head_dim), 32000, codes.data());
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<int16_t*>(keys)[(i / 2 * kPageTokens + slot) * 2 + i % 2] = codes[static_cast<size_t>(i)];
}

void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  std::vector<int16_t> codes(static_cast<size_t>(head_dim));
  scales_of(values, head_dim)[slot] = quantize(head, head_dim, largest(head, head_dim), 32767, codes.data());
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<int16_t*>(values)[(slot / 2 * head_dim + i) * 2 + slot % 2] = codes[static_cast<size_t>(i)];
}

size_t query_row_bytes(int32_t head_dim) {
  return static_cast<size_t>(head_dim) * 2 + 4;
}

void attend_page(const AttendArgs& args) {
  const int32_t dim = args.head_dim;
  const auto* keys = reinterpret_cast<const int16_t*>(args.keys);
  const auto* values = reinterpret_cast<const int16_t*>(args.values);
  const auto* key_scales = reinterpret_cast<const float*>(args.keys + kPageTokens * dim * 2);
  const auto* value_scales = reinterpret_cast<const float*>(args.values + kPageTokens * dim * 2);
  reference_attend(
      args,
      [&](int32_t r, int32_t i) {
        const std::byte* row = args.query + static_cast<size_t>(r) * query_row_bytes(dim);
        float scale;
        std::memcpy(&scale, row + dim * 2, sizeof(scale));
        return static_cast<double>(reinterpret_cast<const int16_t*>(row)[i]) * scale;
      },
      [&](int32_t t, int32_t i) {
        return static_cast<double>(keys[(i / 2 * kPageTokens + t) * 2 + i % 2]) * key_scales[t];
      },
      [&](int32_t t, int32_t i) {
        return static_cast<double>(values[(t / 2 * dim + i) * 2 + t % 2]) * value_scales[t];
      });
}

}  // namespace

OpTable reference_int16_table() {
  OpTable ops;
  ops.isa = "reference";
  ops.mode = ComputeMode::kInt16;
  ops.kv_element_bytes = 2;
  ops.kv_token_scales = true;
  ops.row_bytes = row_bytes;
  ops.panel_scratch_bytes = [](int32_t) { return size_t{64}; };
  ops.query_row_bytes = query_row_bytes;
  ops.pack_row = pack_row;
  ops.gemm = gemm;
  ops.store_query = store_query;
  ops.store_key = store_key;
  ops.store_value = store_value;
  ops.attend_page = attend_page;
  return ops;
}

}  // namespace runahead
