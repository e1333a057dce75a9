// The naive oracle of the int8 mode's products: its operand rows, its rounding of activations and of weights that come
// as floats, but sums in double.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>

#include "kernels/reference/reference_ops.h"

namespace runahead {
namespace {

constexpr float kOutlierRatio = 1.75f;  // as in kernels/cpu/int8_plain_rows.h

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

size_t row_bytes(int32_t k) {
  const auto blocks = static_cast<size_t>(k / kPanelBlock);
  return round_up(static_cast<size_t>(k) * 2 + blocks * 20, 64);
}

float largest(const float* x) {
  float top = 0;
  for (int32_t i = 0; i < kPanelBlock; ++i) top = std::max(top, std::fabs(x[i]));
  return top;
}

bool is_rotated(const Operand& operand) {
  return operand.weights == PanelFormat::kCodes4 || operand.weights == PanelFormat::kCodes4K;
}
bool is_rotated_back(const Operand& operand) {
  return is_rotated(operand) && operand.rows <= 4;  // as in kernels/cpu/int8_rotated_rows.h
}

// out[i] = the sum of the values of i's group that have bit 1 of their index in common with i, with the sign of the
// other bits that both have. In the order of additions that the kernels have: over bits 4, 3, 2 and 0.
void rotate(std::array<float, kPanelBlock>& block) {
  for (size_t bit : {16, 8, 4, 1}) {
    const std::array<float, kPanelBlock> x = block;
    for (size_t i = 0; i < x.size(); ++i) block[i] = (i & bit) != 0 ? x[i ^ bit] - x[i] : x[i] + x[i ^ bit];
  }
}

// The least float of the form (1 + quarter / 4) * 2^power, power from -50 to 40, that is at least `scale`; 2^40 the most.
struct RotatedScale {
  explicit RotatedScale(float scale) {
    while (power < 40 && value() < scale) {
      quarters = (quarters + 1) % 4;
      if (quarters == 0) ++power;
    }
  }
  float value() const { return std::ldexp(1 + static_cast<float>(quarters) / 4, power); }
  int32_t power = -50, quarters = 0;
};

void pack_rotated(const float* x, const Operand& operand, std::byte* out) {
  const int32_t k = operand.k, blocks = k / kPanelBlock;
  auto* powers = reinterpret_cast<int32_t*>(out + k * 2);
  auto* sums = reinterpret_cast<float*>(powers + blocks);
  int32_t *starts = powers + 2 * blocks, *quarters = powers + 3 * blocks;
  for (int32_t b = 0; b < blocks; ++b) {
    std::array<float, kPanelBlock> values;
    std::copy_n(x + b * kPanelBlock, kPanelBlock, values.begin());
    rotate(values);
    const RotatedScale scale(largest(values.data()) * (1 / 127.0f));
    for (float& v : values) v = std::nearbyint(std::clamp(v * (1 / scale.value()), -127.0f, 127.0f));
    const float group_sums = values[0] + values[2];
    powers[b] = (scale.power + 50) << 23;
    quarters[b] = scale.quarters;
    sums[b] = std::ldexp(scale.value(), 54) * group_sums;
    starts[b] = static_cast<int32_t>(-120 * (std::accumulate(values.begin(), values.end(), 0.0f) - group_sums));
    auto* codes = reinterpret_cast<int8_t*>(out) + b * kPanelBlock;
    if (!is_rotated_back(operand)) {
      std::copy(values.begin(), values.end(), codes);
      continue;
    }
    rotate(values);
    for (int32_t i = 0; i < kPanelBlock; ++i) {
      const float first = std::nearbyint(values[static_cast<size_t>(i)] / 16);
      codes[i] = static_cast<int8_t>(first);
      codes[k + i] = static_cast<int8_t>(values[static_cast<size_t>(i)] - 16 * first);
    }
  }
}

void pack_plain(const float* x, int32_t k, std::byte* out) {
  const int32_t blocks = k / kPanelBlock;
  auto* high = reinterpret_cast<int8_t*>(out);
  auto* scales = reinterpret_cast<float*>(out + k * 2);
  auto* flags = reinterpret_cast<uint32_t*>(out + k * 2 + blocks * 8);
  float all = 0;
  for (int32_t b = 0; b < blocks; ++b) all += largest(x + b * kPanelBlock);
  const float limit = all / static_cast<float>(blocks) * kOutlierRatio;
  std::memset(flags, 0, static_cast<size_t>(blocks) * 4);
  for (int32_t b = 0; b < blocks; ++b) {
    const float top = largest(x + b * kPanelBlock);
    const bool outlier = top > limit;
    const float unit = outlier ? 32639.0f : 127.0f, inverse = top > 1e-30f ? unit / top : 0.0f;
    int32_t sums_of_16[2] = {0, 0};
    for (int32_t i = b * kPanelBlock; i < (b + 1) * kPanelBlock; ++i) {
      const auto value = static_cast<int32_t>(std::nearbyint(x[i] * inverse));
      const int32_t rest = outlier ? (value + 128 + 65536) % 256 - 128 : 0;
      high[i] = static_cast<int8_t>(outlier ? (value - rest) / 256 : value);
      high[k + i] = static_cast<int8_t>(rest);
      sums_of_16[i / 16 % 2] += value;
    }
    if (outlier) flags[b / 32] |= 1u << (b % 32);
    scales[b] = top / unit * (outlier ? 256 : 1);
    scales[blocks + b] = top / unit * static_cast<float>(sums_of_16[0] + sums_of_16[1]);
    for (int32_t half = 0; half < 2; ++half)
      scales[3 * blocks + 2 * b + half] = top / unit * static_cast<float>(sums_of_16[half]);
  }
}

// The weights of one output and block as the mode sees them.
void block_weights(const Panel& panel, int32_t b, int32_t output, float (&weights)[kPanelBlock]) {
  for (int32_t i = 0; i < kPanelBlock; ++i) weights[i] = reference_weight(panel, b * kPanelBlock + i, output);
  if (panel_layout(panel.format).code_bits != 0) return;
  const auto [least, most] = std::minmax_element(weights, weights + kPanelBlock);
  const float from = *least, range = std::max(*most - *least, 1e-30f);
  for (float& w : weights) w = std::nearbyint((w - from) * (255.0f / range)) * (range / 255.0f) + from;
}

void pack_row(const float* x, const Operand& operand, std::byte* out) {
  if (is_rotated(operand)) return pack_rotated(x, operand, out);
  pack_plain(x, operand.k, out);
}

// Rows as pack_plain and pack_rotated leave them: values(b), what the codes of block b stand for, times scale(b).
struct PlainRow {
  const std::byte* data;
  Operand operand;

  std::array<float, kPanelBlock> values(int32_t b) const {
    const auto* high = reinterpret_cast<const int8_t*>(data) + b * kPanelBlock;
    std::array<float, kPanelBlock> values;
    for (int32_t i = 0; i < kPanelBlock; ++i)
      values[static_cast<size_t>(i)] =
          static_cast<float>(high[i]) + static_cast<float>(high[operand.k + i]) * (1.0f / 256);
    return values;
  }
  double scale(int32_t b) const { return reinterpret_cast<const float*>(data + operand.k * 2)[b]; }
};

struct RotatedRow {
  const std::byte* data;
  Operand operand;

  std::array<float, kPanelBlock> values(int32_t b) const {
    const auto* first = reinterpret_cast<const int8_t*>(data) + b * kPanelBlock;
    std::array<float, kPanelBlock> values;
    if (is_rotated_back(operand)) {
      for (int32_t i = 0; i < kPanelBlock; ++i)
        values[static_cast<size_t>(i)] = static_cast<float>(first[i]) * 16 + static_cast<float>(first[operand.k + i]);
    } else {
      std::copy_n(first, kPanelBlock, values.begin());
      rotate(values);
    }
    return values;
  }
  double scale(int32_t b) const {
    const auto* powers = reinterpret_cast<const int32_t*>(data + operand.k * 2);
    const size_t quarters = 3 * (operand.k / kPanelBlock) + b;
    return std::ldexp(1 + powers[quarters] / 4.0, (powers[b] >> 23) - 50 - 4);
  }
};

template <class Row>
double dot_row(const Row& row, const Panel& panel, int32_t output) {
  double total = 0;
  for (int32_t b = 0; b < row.operand.k / kPanelBlock; ++b) {
    float weights[kPanelBlock];
    block_weights(panel, b, output, weights);
    const std::array<float, kPanelBlock> values = row.values(b);
    double sum = 0;
    for (size_t i = 0; i < values.size(); ++i) sum += double{weights[i]} * values[i];
    total += sum * row.scale(b);
  }
  return total;
}

template <class Row>
void gemm_of_rows(const GemmArgs& args) {
  reference_gemm(args, [&](int32_t r, const Panel& panel, int32_t output) {
    const Row row{args.a + static_cast<size_t>(r) * row_bytes(args.operand.k), args.operand};
    return dot_row(row, panel, output);
  });
}

void gemm(const GemmArgs& args) {
  return is_rotated(args.operand) ? gemm_of_rows<RotatedRow>(args) : gemm_of_rows<PlainRow>(args);
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
