// How each compute mode keeps queries, keys, values and softmax weights, and how a head's floats become them. The
// attention itself (attention.h) is one template over these.
//   fp32, bf16  the numbers themselves.
//   int16  a query, key or value is int16 with one fp32 scale of its own; dot products are exact. Queries and keys are
//          scaled by their length to 32,000, so that by Cauchy-Schwarz no sum leaves int32. Values have 12 bits and a
//          sign, weights 13 bits: 64 * 4,095 * 8,191 is just below 2^31. KL against fp32 on SmolLM2: 2e-7 to 5e-7 nats.
//   int8   bytes throughout. Queries and keys are rotated first, which spreads the few large entries that keys have (ADR
//          5). The instruction takes one unsigned operand: queries and weights are, queries by an offset of 128, which
//          a sum of 128 * -key that each key carries takes out again.
#pragma once

#include <type_traits>

#include "kernels/cpu/number_format.h"
#include "kernels/cpu/rotation.h"
#include "kernels/ops.h"

namespace runahead::RUNAHEAD_ISA {

// Writes head * unit / size, rounded, and returns the scale that undoes it. Code: int16_t, int8_t.
template <class Code>
inline float quantize_head(const float* head, int32_t head_dim, float size, float unit, Code* codes) {
  const VecF inverse = set1(size > 0 ? unit / size : 0.0f);
  for (int32_t i = 0; i < head_dim; i += 16) {
    if constexpr (sizeof(Code) == 2) store_int16(codes + i, mul(load(head + i), inverse));
    else store_int8(codes + i, mul(load(head + i), inverse));
  }
  return size / unit;
}

inline float length(const float* head, int32_t head_dim) {
  VecF sum = zero();
  for (int32_t i = 0; i < head_dim; i += 16) sum = fma(load(head + i), load(head + i), sum);
  return __builtin_sqrtf(reduce_add(sum));
}

inline float largest_entry(const float* head, int32_t head_dim) {
  VecF largest = zero();
  for (int32_t i = 0; i < head_dim; i += 16) largest = max(largest, abs(load(head + i)));
  return reduce_max(largest);
}

template <class Num>
struct FloatAttention {
  using Scores = Num;  // keys broadcast, queries in vectors
  using Mix = Num;  // values broadcast, weights in vectors
  using Element = typename Num::Element;
  static constexpr bool kScaled = false, kKeySums = false;
  static constexpr float kWeightMax = 1;

  static float encode_key(const float* head, int32_t head_dim, Element* codes) {
    for (int32_t i = 0; i < head_dim; i += 16) Num::store_row(codes + i, load(head + i));
    return 1;
  }
  static float encode_query(const float* head, int32_t head_dim, Element* codes) {
    return encode_key(head, head_dim, codes);
  }
  static float encode_value(const float* head, int32_t head_dim, Element* codes) {
    return encode_key(head, head_dim, codes);
  }
  static VecF weight(VecF exponent) { return exp2(exponent); }
  static void store_weights(Element* to, const VecF (&w)[Num::kPack]) {
    if constexpr (Num::kPack == 1) store(to, w[0]);
    else store_pairs(to, interleave_bf16(w[0], w[1]));
  }
  // The weights of 16 keys of one row.
  static void store_weight_row(Element* to, VecF w) { Num::store_row(to, w); }
};

struct Int16Attention {
  using Scores = Int16;
  using Mix = Int16;
  using Element = int16_t;
  static constexpr bool kScaled = true, kKeySums = false;
  static constexpr float kUnitLength = 32000;
  static constexpr float kValueMax = 4095;
  static constexpr float kWeightMax = 8191;

  static float encode_key(const float* head, int32_t head_dim, Element* codes) {
    return quantize_head(head, head_dim, length(head, head_dim), kUnitLength, codes);
  }
  static float encode_query(const float* head, int32_t head_dim, Element* codes) {
    return encode_key(head, head_dim, codes);
  }
  static float encode_value(const float* head, int32_t head_dim, Element* codes) {
    return quantize_head(head, head_dim, largest_entry(head, head_dim), kValueMax, codes);
  }
  static VecF weight(VecF exponent) { return exp2(exponent); }
  static void store_weights(Element* to, const VecF (&w)[2]) { store_bytes(to, interleave_int16(w[0], w[1])); }
  static void store_weight_row(Element* to, VecF w) { store_int16(to, w); }
};

struct Int8Attention {
  using Scores = Int8;
  using Mix = Int8;
  static constexpr bool kScaled = true, kKeySums = true;
  static constexpr float kWeightMax = 255;
  static constexpr int32_t kQueryOffset = 128;

  static float encode_key(const float* head, int32_t head_dim, int8_t* codes) {
    float spread[kHeadDimMax];
    spread_head(head, head_dim, spread);
    return quantize_head(spread, head_dim, largest_entry(spread, head_dim), kInt8Max, codes);
  }
  static float encode_query(const float* head, int32_t head_dim, int8_t* codes) {
    const float scale = encode_key(head, head_dim, codes);
    for (int32_t i = 0; i < head_dim; ++i) codes[i] = static_cast<int8_t>(codes[i] ^ kQueryOffset);
    return scale;
  }
  static float encode_value(const float* head, int32_t head_dim, int8_t* codes) {
    return quantize_head(head, head_dim, largest_entry(head, head_dim), kInt8Max, codes);
  }
  static VecF weight(VecF exponent) { return exp2_coarse(exponent); }
  static void store_weights(int8_t* to, const VecF (&w)[4]) {
    store_bytes(to, interleave_uint8(w[0], w[1], w[2], w[3]));
  }
  static void store_weight_row(int8_t* to, VecF w) { store_uint8(reinterpret_cast<uint8_t*>(to), w); }
};

// The scales [64] behind a head's K or V.
template <class Element>
inline float* token_scales(std::byte* half_page, int32_t head_dim) {
  return reinterpret_cast<float*>(reinterpret_cast<Element*>(half_page) + kPageTokens * head_dim);
}
template <class Element>
inline const float* token_scales(const std::byte* half_page, int32_t head_dim) {
  return reinterpret_cast<const float*>(reinterpret_cast<const Element*>(half_page) + kPageTokens * head_dim);
}

// Behind the scales of a page's keys: what a sum of products with unsigned queries starts with [64].
template <class Element, class Byte>
inline auto* key_sums(Byte* keys, int32_t head_dim) {
  using Int = std::conditional_t<std::is_const_v<Byte>, const int32_t, int32_t>;
  return reinterpret_cast<Int*>(token_scales<Element>(keys, head_dim) + kPageTokens);
}

// keys [head_dim / kPack, 64, kPack]: one token is a column; then scales [64], then kKeySums' sums [64].
template <class Mode>
void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  using Element = typename Mode::Scores::Element;
  constexpr int kPack = Mode::Scores::kPack;
  Element codes[kHeadDimMax];
  const float scale = Mode::encode_key(head, head_dim, codes);
  auto* to = reinterpret_cast<Element*>(keys) + slot * kPack;
  for (int32_t i = 0; i < head_dim; i += kPack, to += kPageTokens * kPack)
    std::memcpy(to, codes + i, kPack * sizeof(Element));
  if constexpr (Mode::kScaled) token_scales<Element>(keys, head_dim)[slot] = scale;
  if constexpr (Mode::kKeySums) {
    int32_t sum = 0;
    for (int32_t i = 0; i < head_dim; ++i) sum += codes[i];
    key_sums<Element>(keys, head_dim)[slot] = -Mode::kQueryOffset * sum;
  }
}

// values [64 / kPack, head_dim, kPack]: one token is every kPack-th element of a row; then scales [64].
template <class Mode>
void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  using Element = typename Mode::Mix::Element;
  constexpr int kPack = Mode::Mix::kPack;
  Element codes[kHeadDimMax];
  const float scale = Mode::encode_value(head, head_dim, codes);
  auto* to = reinterpret_cast<Element*>(values) +
             static_cast<size_t>(slot / kPack) * static_cast<size_t>(head_dim) * kPack + slot % kPack;
  for (int32_t i = 0; i < head_dim; ++i, to += kPack) *to = codes[i];
  if constexpr (Mode::kScaled) token_scales<Element>(values, head_dim)[slot] = scale;
}

}  // namespace runahead::RUNAHEAD_ISA
