// The naive oracle of the attention of the integer modes: their layouts and their rounding of queries, keys and values
// (kernels/cpu/attention_formats.h), but sums in double and unrounded softmax weights.
#include <algorithm>
#include <bit>
#include <cmath>
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

// By its definition: entry (i, j) of the transform is 1 or -1 by the parity of the common bits of i and j.
std::vector<float> hadamard(const std::vector<float>& x) {
  const size_t block = x.size() & -x.size();
  std::vector<float> out;
  for (size_t i = 0; i < x.size(); ++i) {
    double sum = 0;
    for (size_t j = 0; j < block; ++j)
      sum += (std::popcount(i % block & j) % 2 == 0 ? 1.0 : -1.0) * x[i / block * block + j];
    out.push_back(static_cast<float>(sum / std::sqrt(static_cast<double>(block))));
  }
  return out;
}

struct Int16 {
  using Code = int16_t;
  static constexpr int kKeyBias = 0;
  static Rounded key(const std::vector<float>& x) { return round_to(x, length(x), 32000); }
  static Rounded value(const std::vector<float>& x) { return round_to(x, largest(x), 4095); }
};
struct Int8 {
  using Code = uint8_t;
  static constexpr int kKeyBias = 128;
  static Rounded key(const std::vector<float>& x) { return value(hadamard(x)); }
  static Rounded value(const std::vector<float>& x) { return round_to(x, largest(x), 127); }
};

template <class Mode>
constexpr int32_t kPack = static_cast<int32_t>(4 / sizeof(typename Mode::Code));
template <class Mode>
int32_t key_index(int32_t i, int32_t slot) {
  return (i / kPack<Mode> * kPageTokens + slot) * kPack<Mode> + i % kPack<Mode>;
}
template <class Mode>
int32_t value_index(int32_t i, int32_t slot, int32_t head_dim) {
  return (slot / kPack<Mode> * head_dim + i) * kPack<Mode> + slot % kPack<Mode>;
}
template <class Mode, class Bytes>
auto* scales_of(Bytes* half_page, int32_t head_dim) {
  using Float = std::conditional_t<std::is_const_v<Bytes>, const float, float>;
  return reinterpret_cast<Float*>(half_page + kPageTokens * head_dim * static_cast<int32_t>(sizeof(typename Mode::Code)));
}

template <class Mode>
void store_query(const float* head, float scale, const AttentionTile& tile, int32_t row) {
  std::vector<float> scaled(head, head + tile.head_dim);
  for (float& v : scaled) v *= scale;
  const Rounded rounded = Mode::key(scaled);
  for (int32_t i = 0; i < tile.head_dim; ++i)
    reference_row(tile, row).query[i] = static_cast<double>(rounded.codes[static_cast<size_t>(i)]) * rounded.scale;
}

template <class Mode>
void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  const Rounded rounded = Mode::key({head, head + head_dim});
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<typename Mode::Code*>(keys)[key_index<Mode>(i, slot)] =
        static_cast<typename Mode::Code>(rounded.codes[static_cast<size_t>(i)] + Mode::kKeyBias);
  scales_of<Mode>(keys, head_dim)[slot] = rounded.scale;
}

template <class Mode>
void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  const Rounded rounded = Mode::value({head, head + head_dim});
  for (int32_t i = 0; i < head_dim; ++i)
    reinterpret_cast<typename Mode::Code*>(values)[value_index<Mode>(i, slot, head_dim)] =
        static_cast<typename Mode::Code>(rounded.codes[static_cast<size_t>(i)]);
  scales_of<Mode>(values, head_dim)[slot] = rounded.scale;
}

template <class Mode>
void attend_page(const AttendArgs& args) {
  using Code = typename Mode::Code;
  const int32_t dim = args.tile.head_dim;
  const auto* keys = reinterpret_cast<const Code*>(args.keys);
  const auto* values = reinterpret_cast<const Code*>(args.values);
  const float* key_scales = scales_of<Mode>(args.keys, dim);
  const float* value_scales = scales_of<Mode>(args.values, dim);
  reference_attend(
      args,
      [&](int32_t t, int32_t i) {
        return static_cast<double>(static_cast<int>(keys[key_index<Mode>(i, t)]) - Mode::kKeyBias) * key_scales[t];
      },
      [&](int32_t t, int32_t i) {
        const auto code = static_cast<std::make_signed_t<Code>>(values[value_index<Mode>(i, t, dim)]);
        return static_cast<double>(code) * value_scales[t];
      });
}

template <class Mode>
void add(OpTable& ops) {
  ops.kv_element_bytes = sizeof(typename Mode::Code);
  ops.kv_token_scales = true;
  ops.store_query = store_query<Mode>;
  ops.store_key = store_key<Mode>;
  ops.store_value = store_value<Mode>;
  ops.attend_page = attend_page<Mode>;
}

}  // namespace

void add_reference_attention_int16(OpTable& ops) {
  add<Int16>(ops);
}
void add_reference_attention_int8(OpTable& ops) {
  add<Int8>(ops);
}

}  // namespace runahead
