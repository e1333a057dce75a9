// How each compute mode keeps queries, keys, values and softmax weights, and how a head's floats become them. The
// attention itself (attention.h) is one template over these.
//   fp32, bf16  the numbers themselves.
//   int16  a query, key or value is int16 with one fp32 scale of its own; dot products are exact. Queries and keys are
//          scaled by their length to 32,000, so that by Cauchy-Schwarz no sum leaves int32. Values have 12 bits and a
//          sign, weights 13 bits: 64 * 4,095 * 8,191 is just below 2^31. KL against fp32 on SmolLM2: 2e-7 to 5e-7 nats.
//   int8   the same in bytes, after a Hadamard rotation of queries and keys, which leaves their products as they are and
//          spreads the few large channels of the keys over all: KL 2e-4 to 6e-4 with it, 6e-4 to 2.4e-3 without.
#pragma once

#include "kernels/cpu/number.h"
#include "kernels/ops.h"

namespace runahead::RUNAHEAD_ISA {

// Writes head * unit / size, rounded, and returns the scale that undoes it. Code: int16_t, int8_t.
template <class Code>
inline float quantize_head(const float* head, int32_t head_dim, float size, float unit, Code* codes) {
  const VecF inverse = set1(size > 0 ? unit / size : 0.0f);
  for (int32_t i = 0; i < head_dim; i += 16) {
    if constexpr (sizeof(Code) == 2)
      store_int16(codes + i, mul(load(head + i), inverse));
    else
      store_int8(codes + i, mul(load(head + i), inverse));
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
  using Mix = Num;     // values broadcast, weights in vectors
  using Element = typename Num::Element;
  static constexpr bool kScaled = false;
  static constexpr float kWeightMax = 1;

  static float encode(const float* head, int32_t head_dim, Element* codes) {
    for (int32_t i = 0; i < head_dim; i += 16) Num::store_row(codes + i, load(head + i));
    return 1;
  }
  static float encode_query(const float* head, int32_t head_dim, Element* codes, int32_t&) {
    return encode(head, head_dim, codes);
  }
  static float encode_key(const float* head, int32_t head_dim, Element* codes) { return encode(head, head_dim, codes); }
  static float encode_value(const float* head, int32_t head_dim, Element* codes) {
    return encode(head, head_dim, codes);
  }
  static void store_weights(Element* to, const VecF (&w)[Num::kPack]) {
    if constexpr (Num::kPack == 1)
      store(to, w[0]);
    else
      store_pairs(to, interleave_bf16(w[0], w[1]));
  }
};

struct Int16Attention {
  using Scores = Int16;
  using Mix = Int16;
  using Element = int16_t;
  static constexpr bool kScaled = true;
  static constexpr float kUnitLength = 32000;
  static constexpr float kValueMax = 4095;
  static constexpr float kWeightMax = 8191;

  static float encode_query(const float* head, int32_t head_dim, Element* codes, int32_t&) {
    return quantize_head(head, head_dim, length(head, head_dim), kUnitLength, codes);
  }
  static float encode_key(const float* head, int32_t head_dim, Element* codes) {
    return quantize_head(head, head_dim, length(head, head_dim), kUnitLength, codes);
  }
  static float encode_value(const float* head, int32_t head_dim, Element* codes) {
    return quantize_head(head, head_dim, largest_entry(head, head_dim), kValueMax, codes);
  }
  static void store_weights(Element* to, const VecF (&w)[2]) { store_bytes(to, interleave_int16(w[0], w[1])); }
};

// Bytes of keys are unsigned (code + 128), because the dot instruction wants one unsigned operand; a query's sum, times
// -128, takes the bias out again.
struct Int8Scores : Int8 {
  static VecI dot(VecI acc, Vec key, Vec query) { return dot_u8s8(acc, key, query); }
};

// The orthonormal Walsh-Hadamard transform of the largest power of two that divides the head, block by block.
inline void rotate_hadamard(const float* head, int32_t head_dim, float* out) {
  const int32_t block = head_dim & -head_dim;
  const VecF norm = set1(1 / __builtin_sqrtf(static_cast<float>(block)));
  for (int32_t i = 0; i < head_dim; i += 16) {
    VecF x = mul(load(head + i), norm);
    x = butterfly<1>(x), x = butterfly<2>(x), x = butterfly<4>(x), x = butterfly<8>(x);
    store(out + i, x);
  }
  for (int32_t step = 16; step < block; step *= 2)
    for (int32_t i = 0; i < head_dim; i += 2 * step)
      for (int32_t j = i; j < i + step; j += 16) {
        const VecF a = load(out + j), b = load(out + j + step);
        store(out + j, add(a, b));
        store(out + j + step, sub(a, b));
      }
}

struct Int8Attention {
  using Scores = Int8Scores;
  using Mix = Int8;  // softmax weights are unsigned, values signed
  using Element = int8_t;
  static constexpr bool kScaled = true;
  static constexpr float kCodeMax = 127;
  static constexpr float kWeightMax = 255;

  static float encode_query(const float* head, int32_t head_dim, Element* codes, int32_t& offset) {
    float rotated[kHeadDimMax];
    rotate_hadamard(head, head_dim, rotated);
    const float scale = encode_value(rotated, head_dim, codes);
    int32_t sum = 0;
    for (int32_t i = 0; i < head_dim; ++i) sum += codes[i];
    offset = -128 * sum;
    return scale;
  }
  static float encode_key(const float* head, int32_t head_dim, Element* codes) {
    float rotated[kHeadDimMax];
    rotate_hadamard(head, head_dim, rotated);
    const float scale = encode_value(rotated, head_dim, codes);
    for (int32_t i = 0; i < head_dim; ++i) codes[i] = static_cast<int8_t>(codes[i] ^ 0x80);
    return scale;
  }
  static float encode_value(const float* head, int32_t head_dim, Element* codes) {
    return quantize_head(head, head_dim, largest_entry(head, head_dim), kCodeMax, codes);
  }
  static void store_weights(Element* to, const VecF (&w)[4]) {
    store_bytes(to, interleave_uint8(w[0], w[1], w[2], w[3]));
  }
};

// keys [head_dim / kPack, 64, kPack]: one token is a column; then scales [64].
template <class Mode>
void store_key(const float* head, int32_t head_dim, int32_t slot, std::byte* keys) {
  using Element = typename Mode::Element;
  constexpr int kPack = Mode::Scores::kPack;
  Element codes[kHeadDimMax];
  const float scale = Mode::encode_key(head, head_dim, codes);
  auto* to = reinterpret_cast<Element*>(keys) + slot * kPack;
  for (int32_t i = 0; i < head_dim; i += kPack, to += kPageTokens * kPack)
    std::memcpy(to, codes + i, kPack * sizeof(Element));
  if constexpr (Mode::kScaled)
    reinterpret_cast<float*>(reinterpret_cast<Element*>(keys) + static_cast<size_t>(kPageTokens * head_dim))[slot] =
        scale;
}

// values [64 / kPack, head_dim, kPack]: one token is every kPack-th element of a row; then scales [64].
template <class Mode>
void store_value(const float* head, int32_t head_dim, int32_t slot, std::byte* values) {
  using Element = typename Mode::Element;
  constexpr int kPack = Mode::Mix::kPack;
  Element codes[kHeadDimMax];
  const float scale = Mode::encode_value(head, head_dim, codes);
  auto* to = reinterpret_cast<Element*>(values) +
             static_cast<size_t>(slot / kPack) * static_cast<size_t>(head_dim) * kPack + slot % kPack;
  for (int32_t i = 0; i < head_dim; ++i, to += kPack) *to = codes[i];
  if constexpr (Mode::kScaled)
    reinterpret_cast<float*>(reinterpret_cast<Element*>(values) + static_cast<size_t>(kPageTokens * head_dim))[slot] =
        scale;
}

}  // namespace runahead::RUNAHEAD_ISA
