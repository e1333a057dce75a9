// Plain C++ for machines without AVX2. The same bits as the others, by loops over lanes; slow where the processor has
// no fused multiply-add of its own. See kernels/cpu/vec.h for the contract.
#pragma once

#include <cmath>

namespace runahead::RUNAHEAD_ISA {

struct VecF {
  float v[16];
};
struct VecI {
  int32_t v[16];
};
using VecH = VecI;

inline constexpr int kTileRows = 4, kTileVecs = 2;
inline constexpr int kIntTileRows = 2, kPairsInPlaceMax = 0;  // of integer products, see vec_avx2.h; always widened
inline constexpr int kAttendRows = 4, kAttendBlocks = 1;
inline constexpr bool kDotsTakeMemory = false;
inline constexpr int kDotChains = 4;
inline constexpr bool kNativeBf16 = false;

template <class F>
inline VecF each(F f) {
  VecF r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}
template <class F>
inline VecI each_int(F f) {
  VecI r;
  for (int i = 0; i < 16; ++i) r.v[i] = f(i);
  return r;
}

inline VecF zero() { return VecF{}; }
inline VecF set1(float x) {
  return each([&](int) { return x; });
}
inline VecF load(const float* p) {
  return each([&](int i) { return p[i]; });
}
inline void store(float* p, VecF x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline VecF add(VecF a, VecF b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline VecF sub(VecF a, VecF b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline VecF mul(VecF a, VecF b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline VecF div(VecF a, VecF b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline VecF max(VecF a, VecF b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline VecF min(VecF a, VecF b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline VecF abs(VecF a) {
  return each([&](int i) { return __builtin_fabsf(a.v[i]); });
}
inline VecF fma(VecF a, VecF b, VecF c) {
  return each([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline VecF round_nearest(VecF x) {
  return each([&](int i) { return __builtin_nearbyintf(x.v[i]); });
}
inline VecF scale_by_exp2(VecF x, VecF n) {
  return each([&](int i) {
    const int32_t bits = (static_cast<int32_t>(n.v[i] < 128 ? n.v[i] : 128) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof(power));
    return x.v[i] * power;
  });
}
inline VecF keep_where_least(VecF x, VecI least, int key, float other) {
  return each([&](int i) { return least.v[i] >= key ? x.v[i] : other; });
}
template <int kDistance>
inline VecF swap_lanes(VecF x) {
  return each([&](int i) { return x.v[i ^ kDistance]; });
}
// The second and third of each four lanes change places.
inline VecF swap_middle(VecF x) {
  return each([&](int i) { return x.v[i % 4 == 1 ? i + 1 : i % 4 == 2 ? i - 1 : i]; });
}
inline float reduce_max(VecF x) {  // the tree of reduce_add: of two equal zeros, or beside NaN, the order decides
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) x.v[i] = x.v[i] > x.v[i + width] ? x.v[i] : x.v[i + width];
  return x.v[0];
}
inline float reduce_add(VecF x) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) x.v[i] += x.v[i + width];
  return x.v[0];
}

inline VecI load_bytes(const void* p) {
  VecI r;
  std::memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline void store_bytes(void* p, VecI x) { std::memcpy(p, x.v, sizeof(x.v)); }
inline VecI zero_int() { return VecI{}; }
inline VecI set1_int(int32_t x) {
  return each_int([&](int) { return x; });
}
inline VecI bit_and(VecI a, VecI b) {
  return each_int([&](int i) { return a.v[i] & b.v[i]; });
}
inline VecI shift_right(VecI a, int bits) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) >> bits); });
}
inline VecI bit_or(VecI a, VecI b) {
  return each_int([&](int i) { return a.v[i] | b.v[i]; });
}
inline VecI shift_left(VecI a, int bits) {
  return each_int([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << bits); });
}
// f(byte of a, byte of b, its index) of each byte, modulo 256.
template <class F>
inline VecI each_byte(VecI a, VecI b, F f) {
  return each_int([&](int i) {
    uint32_t bytes = 0;
    for (int at = 0; at < 32; at += 8) {
      const uint32_t x = static_cast<uint32_t>(a.v[i]) >> at, y = static_cast<uint32_t>(b.v[i]) >> at;
      bytes |= (f(x, y, at / 8) & 255u) << at;
    }
    return static_cast<int32_t>(bytes);
  });
}
inline VecI add_bytes(VecI a, VecI b) {
  return each_byte(a, b, [](uint32_t x, uint32_t y, int) { return x + y; });
}
inline VecI sub_bytes(VecI a, VecI b) {
  return each_byte(a, b, [](uint32_t x, uint32_t y, int) { return x - y; });
}
inline VecI look_up(VecI places, const uint8_t* table) {
  return each_byte(places, places, [&](uint32_t place, uint32_t, int) { return uint32_t{table[place & 15]}; });
}
inline VecI sums_and_differences(VecI x) {
  const VecI neighbours = each_int([&](int i) {
    const auto y = static_cast<uint32_t>(x.v[i]);
    return static_cast<int32_t>((y >> 8 & 0x00FF00FFu) | (y << 8 & 0xFF00FF00u));
  });
  return each_byte(x, neighbours,
                   [](uint32_t own, uint32_t other, int at) { return at % 2 == 0 ? own + other : other - own; });
}
inline VecF to_float(VecI a) {
  return each([&](int i) { return static_cast<float>(a.v[i]); });
}
inline VecF add_to_exponent(VecF x, VecI steps) {
  VecI bits;
  std::memcpy(bits.v, x.v, sizeof(bits.v));
  bits = each_int([&](int i) { return bits.v[i] + steps.v[i]; });
  std::memcpy(x.v, bits.v, sizeof(x.v));
  return x;
}
inline float half_bits_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 0x3FFu;
  if (exponent == 0) {
    const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | (mantissa << 13);
  float r;
  std::memcpy(&r, &bits, sizeof(r));
  return r;
}
inline VecF load_half(const uint16_t* p) {
  return each([&](int i) { return half_bits_to_float(p[i]); });
}
inline VecF load_int8(const int8_t* p) {
  return each([&](int i) { return static_cast<float>(p[i]); });
}
// NaN is the least, as of the other sets' packing: lanes that nobody reads may hold it.
inline int32_t rounded(float x, float least, float most) {
  const float r = __builtin_nearbyintf(x);
  return static_cast<int32_t>(r > most ? most : r >= least ? r : least);
}
inline int32_t rounded_int16(float x) { return rounded(x, -32768, 32767); }
inline void store_int16(int16_t* p, VecF x) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int16_t>(rounded_int16(x.v[i]));
}
inline VecI interleave_int16(VecF even, VecF odd) {
  return each_int([&](int i) {
    const auto low = static_cast<uint32_t>(rounded_int16(even.v[i])),
               high = static_cast<uint32_t>(rounded_int16(odd.v[i]));
    return static_cast<int32_t>((low & 0xFFFFu) | (high << 16));
  });
}
inline VecI dot_s16(VecI acc, VecI a, VecI b) {
  return each_int([&](int i) {
    const int32_t even = static_cast<int16_t>(a.v[i]) * static_cast<int16_t>(b.v[i]);
    return acc.v[i] + even + (a.v[i] >> 16) * (b.v[i] >> 16);
  });
}
inline VecI dot_u8s8(VecI acc, VecI u, VecI s) {
  return each_int([&](int j) {
    int32_t sum = acc.v[j];
    for (int i = 0; i < 4; ++i)
      sum += ((u.v[j] >> (8 * i)) & 255) * static_cast<int8_t>(static_cast<uint32_t>(s.v[j]) >> (8 * i));
    return sum;
  });
}

inline void store_int8(int8_t* p, VecF x) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(rounded(x.v[i], -128, 127));
}
inline void store_uint8(uint8_t* p, VecF x) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint8_t>(rounded(x.v[i], 0, 255));
}
inline VecI interleave_uint8(VecF a, VecF b, VecF c, VecF d) {
  const auto byte = [](float x) { return static_cast<uint32_t>(rounded(x, 0, 255)); };
  return each_int([&](int i) {
    return static_cast<int32_t>(byte(a.v[i]) | byte(b.v[i]) << 8 | byte(c.v[i]) << 16 | byte(d.v[i]) << 24);
  });
}
inline float float_of(uint32_t bits) {
  float r;
  std::memcpy(&r, &bits, sizeof(r));
  return r;
}
inline uint32_t high_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits + 0x7FFFu + ((bits >> 16) & 1u);
}
inline VecH load_pairs(const uint16_t* p) { return load_bytes(p); }
inline void store_pairs(uint16_t* p, VecH x) { store_bytes(p, x); }
inline VecH broadcast_pair(const uint16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return set1_int(pair);
}
inline VecF even_of_pairs(VecH x) {
  return each([&](int i) { return float_of(static_cast<uint32_t>(x.v[i]) << 16); });
}
inline VecF odd_of_pairs(VecH x) {
  return each([&](int i) { return float_of(static_cast<uint32_t>(x.v[i]) & 0xFFFF0000u); });
}
inline VecF dot_pairs(VecF acc, VecH a, VecH b) {
  return each([&](int i) {
    const auto x = static_cast<uint32_t>(a.v[i]), y = static_cast<uint32_t>(b.v[i]);
    const float odd = __builtin_fmaf(float_of(x & 0xFFFF0000u), float_of(y & 0xFFFF0000u), acc.v[i]);
    return __builtin_fmaf(float_of(x << 16), float_of(y << 16), odd);
  });
}
inline VecH interleave_bf16(VecF even, VecF odd) {
  return each_int(
      [&](int i) { return static_cast<int32_t>((high_bf16(odd.v[i]) & 0xFFFF0000u) | (high_bf16(even.v[i]) >> 16)); });
}
inline void store_bf16(uint16_t* p, VecF x) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<uint16_t>(high_bf16(x.v[i]) >> 16);
}
inline VecF load_bf16(const uint16_t* p) {
  return each([&](int i) { return float_of(static_cast<uint32_t>(p[i]) << 16); });
}

}  // namespace runahead::RUNAHEAD_ISA
