// The naive oracle of the attention of the integer modes: their layouts and their rounding of queries, keys and values
// (kernels/cpu/attention_formats.h), but sums in double and unrounded softmax weights.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/reference/reference_ops.h"

namespace runahead {
namespace {

float largest(const std::vector<float>& x) {
  float top = 0;
  for (float v : x) top = std::max(top, std::fabs(v));
  return top;
}

float length(const std::vector<float>& x) {
  double sum = 0;
  for (float v : x) sum += static_cast<double>(v) * v;
  return static_cast<float>(std::sqrt(sum));
}

struct Rounded {
  std::vector<int> codes;
  float scale;  // undoes it
};
Rounded round_to(const std::vector<float>& x, float size, float unit) {
  const float inverse = size > 0 ? unit / size : 0.0f;
  Rounded rounded{{}, size / unit};
  for (float v : x) rounded.codes.push_back(static_cast<int>(std::nearbyint(v * inverse)));
  return rounded;
}

// A Hadamard matrix over each n neighbours, n the largest power of two that divides the head's size.
std::vector<float> spread(const std::vector<float>& x) {
  const size_t n = x.size() & ~(x.size() - 1);
  std::vector<float> out;
  for (size_t i = 0; i < x.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < n; ++j) sum += (std::popcount(i % n & j) % 2 ? -1.0 : 1.0) * x[i / n * n + j];
    out.push_back(static_cast<float>(sum / std::sqrt(static_cast<double>(n))));
  }
  return out;
}

struct Int16 {
  using Key = int16_t;
  using Value = int16_t;
  static constexpr float kValueMax = 4095;
  static constexpr bool kKeySums = false;
  // Of queries too.
  static Rounded round_key(const std::vector<float>& x) { return round_to(x, length(x), 32000); }
};
struct Int8 {
  using Key = int8_t;
  using Value = int8_t;
  static constexpr float kValueMax = 127;
  static constexpr bool kKeySums = true;
  static Rounded round_key(const std::vector<float>& x) {
    const std::vector<float> even = spread(x);
    return round_to(even, largest(even), 127);
  }
};

template <class Code>
constexpr int32_t kPack = static_cast<int32_t>(4 / sizeof(Code));
template <class Code>
int32_t key_index(int32_t i, int32_t slot) {
  return (i / kPack<Code> * kPageTokens + slot) * kPack<Code> + i % kPack<Code>;
}
template <class Code>
int32_t value_index(int32_t i, int32_t slot, int32_t head_dim) {
  return (slot / kPack<Code> * head_dim + i) * kPack<Code> + slot % kPack<Code>;
}
template <class Code>
float* scales_of(std::byte* half_page, int32_t head_dim) {
  return reinterpret_cast<float*>(half_page + kPageTokens * head_dim * static_cast<int32_t>(sizeof(Code)));
}
template <class Code>
const float* scales_of(const std::byte* half_page, int32_t head_dim) {
  return scales_of<Code>(const_cast<std::byte*>(half_page), head_dim);
}

template <class Mode>
void store_query(const float* head, float scale, const AttentionTile& tile, int32_t row) {
  std::vector<float> scaled(head, head + tile.head_dim);
  for (float& v : scaled) v *= scale;
  const Rounded rounded = Mode::round_key(scaled);
  for (int32_t i = 0; i < tile.head_dim; ++i)
    reference_row(tile, row).query[i] = static_cast<double>(rounded.codes[static_cast<size_t>(i)]) * rounded.scale;
}

template <class Mode>
void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  using Code = typename Mode::Key;
  const Rounded rounded = Mode::round_key({head, head + head_dim});
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<Code*>(keys)[key_index<Code>(i, slot)] = static_cast<Code>(rounded.codes[static_cast<size_t>(i)]);
  float* scales = scales_of<Code>(keys, head_dim);
  scales[slot] = rounded.scale;
  if constexpr (Mode::kKeySums)
    reinterpret_cast<int32_t*>(scales + kPageTokens)[slot] =
        -128 * std::accumulate(rounded.codes.begin(), rounded.codes.end(), 0);
}

template <class Mode>
void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  using Code = typename Mode::Value;
  const std::vector<float> x(head, head + head_dim);
  const Rounded rounded = round_to(x, largest(x), Mode::kValueMax);
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<Code*>(values)[value_index<Code>(i, slot, head_dim)] =
        static_cast<Code>(rounded.codes[static_cast<size_t>(i)]);
  scales_of<Code>(values, head_dim)[slot] = rounded.scale;
}

template <class Mode>
void attend_page(const AttendArgs& args) {
  using Key = typename Mode::Key;
  using Value = typename Mode::Value;
  const int32_t dim = args.tile.head_dim;
  const auto* keys = reinterpret_cast<const Key*>(args.keys);
  const auto* values = reinterpret_cast<const Value*>(args.values);
  const float* key_scales = scales_of<Key>(args.keys, dim);
  const float* value_scales = scales_of<Value>(args.values, dim);
  reference_attend(
      args, [&](int32_t t, int32_t i) { return static_cast<double>(keys[key_index<Key>(i, t)]) * key_scales[t]; },
      [&](int32_t t, int32_t i) {
        return static_cast<double>(values[value_index<Value>(i, t, dim)]) * value_scales[t];
      });
}

template <class Mode>
void add(OpTable& ops) {
  ops.key_element_bytes = sizeof(typename Mode::Key);
  ops.value_element_bytes = sizeof(typename Mode::Value);
  ops.kv_token_scales = true;
  ops.kv_key_sums = Mode::kKeySums;
  ops.store_query = store_query<Mode>;
  ops.store_key = store_key<Mode>;
  ops.store_value = store_value<Mode>;
  ops.attend_page = attend_page<Mode>;
}

}  // namespace

void add_reference_attention_int16(OpTable& ops) { add<Int16>(ops); }
void add_reference_attention_int8(OpTable& ops) { add<Int8>(ops); }

}  // namespace runahead
