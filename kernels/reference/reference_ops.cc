// The naive oracle: plain loops, sums in double, no tiles and no vectors. It reads and writes the same layouts as the
// fast path, so that any op can be compared alone.
#include "kernels/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "base/check.h"

namespace runahead {
namespace {

struct Fp32 {
  using Element = float;
  static double value(Element x) { return x; }
  static Element round(float x) { return x; }
};
struct Bf16 {
  using Element = uint16_t;
  static double value(Element x) { return bf16_to_float(x); }
  static Element round(float x) { return float_to_bf16(x); }
};

template <class Num>
double dot_row(const typename Num::Element* a, const Panel& panel, int32_t k_len, int32_t output) {
  double sum = 0;
  for (int32_t k = 0; k < k_len; ++k)
    sum += Num::value(a[k]) * Num::value(Num::round(reference_weight(panel, k, output)));
  return sum;
}

template <class Num>
void gemm(const GemmArgs& args) {
  reference_gemm(args, [&](int32_t r, const Panel& panel, int32_t output) {
    const auto* a = reinterpret_cast<const typename Num::Element*>(args.a) +
                    static_cast<size_t>(r) * static_cast<size_t>(args.operand.k);
    return dot_row<Num>(a, panel, args.operand.k, output);
  });
}

void rms_norm(const NormArgs& a) {
  double sum = 0;
  for (int32_t i = 0; i < a.padded; ++i) sum += static_cast<double>(a.x[i]) * a.x[i];
  const double scale = 1 / std::sqrt(sum / a.count + a.epsilon);
  for (int32_t i = 0; i < a.padded; ++i) a.out[i] = static_cast<float>(a.x[i] * scale * a.gain[i]);
}

void layer_norm(const NormArgs& a) {
  double sum = 0, squares = 0;
  for (int32_t i = 0; i < a.count; ++i) sum += a.x[i];
  const double mean = sum / a.count;
  for (int32_t i = 0; i < a.count; ++i) squares += (a.x[i] - mean) * (a.x[i] - mean);
  const double scale = 1 / std::sqrt(squares / a.count + a.epsilon);
  for (int32_t i = 0; i < a.padded; ++i)
    a.out[i] = static_cast<float>((a.x[i] - mean) * scale * a.gain[i] + (a.bias != nullptr ? a.bias[i] : 0));
}

double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x))); }
void gelu_row(float* x, int32_t k) {
  for (int32_t i = 0; i < k; ++i) x[i] = static_cast<float>(gelu(x[i]));
}
void soft_cap_row(float* x, float cap, int32_t k) {
  for (int32_t i = 0; i < k; ++i) x[i] = static_cast<float>(cap * std::tanh(double{x[i]} / cap));
}

template <class Num>
void pack_row(const float* x, const Operand& operand, std::byte* out) {
  for (int32_t i = 0; i < operand.k; ++i) reinterpret_cast<typename Num::Element*>(out)[i] = Num::round(x[i]);
}

void rotate(float* head, const float* cos_sin, int32_t head_dim) {
  const int32_t half = head_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const double a = head[i], b = head[half + i], c = cos_sin[i], s = cos_sin[half + i];
    head[i] = static_cast<float>(a * c - b * s);
    head[half + i] = static_cast<float>(b * c + a * s);
  }
}

template <class Num>
void store_query(const float* head, float scale, const AttentionTile& tile, int32_t row) {
  for (int32_t i = 0; i < tile.head_dim; ++i)
    reference_row(tile, row).query[i] = Num::value(Num::round(head[i] * scale));
}

template <class Num>
constexpr int32_t kPack = static_cast<int32_t>(4 / sizeof(typename Num::Element));

template <class Num>
int32_t key_index(int32_t i, int32_t slot) {
  return (i / kPack<Num> * kPageTokens + slot) * kPack<Num> + i % kPack<Num>;
}
template <class Num>
int32_t value_index(int32_t i, int32_t slot, int32_t head_dim) {
  return (slot / kPack<Num> * head_dim + i) * kPack<Num> + slot % kPack<Num>;
}

template <class Num>
void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<typename Num::Element*>(keys)[key_index<Num>(i, slot)] = Num::round(head[i]);
}
template <class Num>
void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<typename Num::Element*>(values)[value_index<Num>(i, slot, head_dim)] = Num::round(head[i]);
}

template <class Num>
void attend_page(const AttendArgs& args) {
  using Element = typename Num::Element;
  const auto* keys = reinterpret_cast<const Element*>(args.keys);
  const auto* values = reinterpret_cast<const Element*>(args.values);
  reference_attend(
      args, [&](int32_t t, int32_t i) { return Num::value(keys[key_index<Num>(i, t)]); },
      [&](int32_t t, int32_t i) { return Num::value(values[value_index<Num>(i, t, args.tile.head_dim)]); });
}

size_t attention_tile_bytes(int32_t rows, int32_t) { return static_cast<size_t>(rows) * sizeof(ReferenceRow); }

void copy_query(const AttentionTile& from, int32_t from_row, const AttentionTile& to, int32_t to_row) {
  std::copy_n(reference_row(from, from_row).query, from.head_dim, reference_row(to, to_row).query);
}

void finish_attention(const AttentionTile& tile, int32_t row, float* out) {
  const ReferenceRow& state = reference_row(tile, row);
  for (int32_t i = 0; i < tile.head_dim; ++i) out[i] = static_cast<float>(state.out[i] / state.row_sum);
}

template <class Num>
OpTable float_table(ComputeMode mode) {
  using Element = typename Num::Element;
  OpTable ops;
  ops.isa = "reference";
  ops.mode = mode;
  ops.key_element_bytes = ops.value_element_bytes = sizeof(Element);
  ops.row_bytes = [](int32_t k) { return static_cast<size_t>(k) * sizeof(Element); };
  ops.panel_scratch_bytes = [](int32_t) { return size_t{64}; };
  ops.pack_row = pack_row<Num>;
  ops.gemm = gemm<Num>;
  ops.store_query = store_query<Num>;
  ops.store_key = store_key<Num>;
  ops.store_value = store_value<Num>;
  ops.attend_page = attend_page<Num>;
  return ops;
}

OpTable with_common_ops(OpTable ops) {
  ops.rms_norm = rms_norm;
  ops.layer_norm = layer_norm;
  ops.gelu = gelu_row;
  ops.soft_cap = soft_cap_row;
  ops.rotate = rotate;
  ops.attention_tile_bytes = attention_tile_bytes;
  ops.copy_query = copy_query;
  ops.finish_attention = finish_attention;
  ops.issue_dots = [](int64_t) { return 0.0; };
  return ops;
}

}  // namespace

float reference_weight(const Panel& panel, int32_t k, int32_t output) {
  const PanelLayout& layout = panel_layout(panel.format);
  const int32_t b = k / kPanelBlock, kk = k % kPanelBlock;
  const std::byte* super = panel.data + panel_bytes(panel.format, b / layout.blocks * layout.blocks * kPanelBlock);
  const std::byte* block = super + layout.shared_bytes + static_cast<size_t>(b % layout.blocks) * layout.block_bytes;
  if (layout.code_bits == 0) return reinterpret_cast<const float*>(block)[kk * kPanelOutputs + output];
  const auto* codes = reinterpret_cast<const uint8_t*>(block) + layout.scale_bytes;
  int code;
  if (layout.code_bits == 8) code = codes[(kk / 4 * kPanelOutputs + output) * 4 + kk % 4];
  else code = (codes[(kk / 4 * 16 + output % 16) * 4 + kk % 4] >> (output < 16 ? 0 : 4)) & 15;
  if (layout.code_bits == 6) {
    const int high = codes[512 + (kk / 8 * 16 + output % 16) * 4 + kk % 4];
    code |= (high >> (kk / 4 % 2 * 4 + output / 16 * 2) & 3) << 4;
  }
  const auto* halves = reinterpret_cast<const uint16_t*>(super);
  double d = half_to_float(halves[output]), m = half_to_float(halves[kPanelOutputs + output]);
  if (layout.blocks > 1) {
    const auto* own = reinterpret_cast<const int8_t*>(block) + kk * layout.sub_blocks / kPanelBlock * 2 * kPanelOutputs;
    d *= own[output], m *= own[kPanelOutputs + output];
  }
  return static_cast<float>(d * code + m);
}

void reference_gemm(const GemmArgs& args, const std::function<double(int32_t, const Panel&, int32_t)>& dot) {
  for (int32_t r = 0; r < args.operand.rows; ++r) {
    float* out = args.out + static_cast<size_t>(r) * args.out_stride;
    for (int32_t p = args.panel_begin; p < args.panel_end; ++p) {
      const Panel& w = args.panels[p];
      if (is_gated(args.epilogue)) {
        for (int32_t n = 0; n < 16; ++n) {
          const double gate = dot(r, w, n);
          const double open = args.epilogue == Epilogue::kGeluMul ? gelu(gate) : gate / (1 + std::exp(-gate));
          out[p * 16 + n] = static_cast<float>(open * dot(r, w, 16 + n));
        }
        continue;
      }
      for (int32_t n = 0; n < kPanelOutputs; ++n) {
        const double y = dot(r, w, n);
        float& to = out[p * kPanelOutputs + n];
        to = static_cast<float>(args.epilogue == Epilogue::kAdd ? to + y : y);
      }
    }
  }
}

ReferenceRow& reference_row(const AttentionTile& tile, int32_t row) {
  return reinterpret_cast<ReferenceRow*>(tile.data)[row];
}

void reference_attend(const AttendArgs& args, const RealAt& key, const RealAt& value) {
  const int32_t dim = args.tile.head_dim;
  for (int32_t r = 0; r < args.tile.rows; ++r) {
    ReferenceRow& row = reference_row(args.tile, r);
    if (args.anew) {
      row.row_max = kNoScore, row.row_sum = 0;
      std::fill_n(row.out, dim, 0.0);
    }
    const int32_t own = args.position + r / args.tile.group - args.page_position;
    const int32_t visible = std::min(kPageTokens, own + 1);
    const int32_t first = args.window > 0 ? std::max(0, own - args.window + 1) : 0;
    if (first >= visible) continue;
    std::vector<double> scores(static_cast<size_t>(visible), 0.0);
    double new_max = row.row_max;
    for (int32_t t = first; t < visible; ++t) {
      double& score = scores[static_cast<size_t>(t)];
      for (int32_t i = 0; i < dim; ++i) score += row.query[i] * key(t, i);
      if (args.soft_cap > 0) score = args.soft_cap * std::tanh(score / args.soft_cap);
      new_max = std::max(new_max, score);
    }
    const double shrink = std::exp2(row.row_max - new_max);
    row.row_sum *= shrink;
    for (int32_t i = 0; i < dim; ++i) row.out[i] *= shrink;
    for (int32_t t = first; t < visible; ++t) {
      const double p = std::exp2(scores[static_cast<size_t>(t)] - new_max);
      row.row_sum += p;
      for (int32_t i = 0; i < dim; ++i) row.out[i] += p * value(t, i);
    }
    row.row_max = new_max;
  }
}

const OpTable& reference_ops(ComputeMode mode) {
  static const OpTable fp32 = with_common_ops(float_table<Fp32>(ComputeMode::kFp32));
  static const OpTable bf16 = with_common_ops(float_table<Bf16>(ComputeMode::kBf16));
  static const OpTable int16 = with_common_ops(reference_int16_table());
  static const OpTable int8 = with_common_ops(reference_int8_table());
  switch (mode) {
    case ComputeMode::kFp32:
      return fp32;
    case ComputeMode::kBf16:
      return bf16;
    case ComputeMode::kInt16:
      return int16;
    case ComputeMode::kInt8:
      return int8;
  }
  RUNAHEAD_CHECK(false, "a compute mode without a reference");
}

}  // namespace runahead
