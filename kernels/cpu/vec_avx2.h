// AVX2 + FMA + F16C: a vector is two halves of 8 lanes. See kernels/cpu/vec.h for the contract.
#pragma once

#include <immintrin.h>

namespace runahead::RUNAHEAD_ISA {

struct VecF {
  __m256 lo, hi;
};
struct VecI {
  __m256i lo, hi;
};
using VecH = VecI;

// 3 x 2 accumulators of two registers each: 12 of 16 registers.
inline constexpr int kTileRows = 3, kTileVecs = 2;
// Of integer products: the sums of a block fill 8 registers, the totals stay in the first-level cache meanwhile.
inline constexpr int kIntTileRows = 2;
// Rows up to which int16 products take panels as they lie. Measured on Zen 3: at 8 rows even, at 16 widening is faster.
inline constexpr int kPairsInPlaceMax = 4;
inline constexpr int kAttendRows = 4, kAttendBlocks = 1;
inline constexpr bool kDotsTakeMemory = false;  // there is no dot_u8s8_at
inline constexpr int kDotChains = 4;  // of two registers each: more would be spilled
inline constexpr bool kNativeBf16 = false;

inline VecF zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline VecF set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline VecF load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void store(float* p, VecF x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline VecF add(VecF a, VecF b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline VecF sub(VecF a, VecF b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline VecF mul(VecF a, VecF b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline VecF div(VecF a, VecF b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline VecF max(VecF a, VecF b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline VecF min(VecF a, VecF b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline VecF abs(VecF a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
inline VecF fma(VecF a, VecF b, VecF c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline VecF round_nearest(VecF x) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.lo, kMode), _mm256_round_ps(x.hi, kMode)};
}
inline __m256 power_of_two(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
inline VecF scale_by_exp2(VecF x, VecF n) { return mul(x, {power_of_two(n.lo), power_of_two(n.hi)}); }
inline __m256 keep_where_least(__m256 x, __m256i least, int key, float other) {
  const __m256i hidden = _mm256_cmpgt_epi32(_mm256_set1_epi32(key), least);
  return _mm256_blendv_ps(x, _mm256_set1_ps(other), _mm256_castsi256_ps(hidden));
}
inline VecF keep_where_least(VecF x, VecI least, int key, float other) {
  return {keep_where_least(x.lo, least.lo, key, other), keep_where_least(x.hi, least.hi, key, other)};
}
// Lanes i and i ^ kDistance change places.
template <int kDistance>
inline VecF swap_lanes(VecF x) {
  static_assert(kDistance == 8 || kDistance == 4 || kDistance == 2 || kDistance == 1);
  if constexpr (kDistance == 8) return {x.hi, x.lo};
  if constexpr (kDistance == 4) return {_mm256_permute2f128_ps(x.lo, x.lo, 1), _mm256_permute2f128_ps(x.hi, x.hi, 1)};
  if constexpr (kDistance == 2) return {_mm256_permute_ps(x.lo, 0x4E), _mm256_permute_ps(x.hi, 0x4E)};
  if constexpr (kDistance == 1) return {_mm256_permute_ps(x.lo, 0xB1), _mm256_permute_ps(x.hi, 0xB1)};
}
// The second and third of each four lanes change places.
inline VecF swap_middle(VecF x) { return {_mm256_permute_ps(x.lo, 0xD8), _mm256_permute_ps(x.hi, 0xD8)}; }
inline float reduce_max(VecF x) {
  const __m256 y = _mm256_max_ps(x.lo, x.hi);
  __m128 z = _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_max_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_max_ss(z, _mm_shuffle_ps(z, z, 1)));
}
inline float reduce_add(VecF x) {
  const __m256 y = _mm256_add_ps(x.lo, x.hi);
  __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(z, _mm_shuffle_ps(z, z, 1)));
}

inline VecI load_bytes(const void* p) {
  const auto* q = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
inline void store_bytes(void* p, VecI x) {
  auto* q = static_cast<__m256i*>(p);
  _mm256_storeu_si256(q, x.lo);
  _mm256_storeu_si256(q + 1, x.hi);
}
inline VecI zero_int() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline VecI set1_int(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
inline VecI bit_and(VecI a, VecI b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
inline VecI shift_right(VecI a, int bits) { return {_mm256_srli_epi32(a.lo, bits), _mm256_srli_epi32(a.hi, bits)}; }
inline VecI bit_or(VecI a, VecI b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
inline VecI shift_left(VecI a, int bits) { return {_mm256_slli_epi32(a.lo, bits), _mm256_slli_epi32(a.hi, bits)}; }
inline VecI add_bytes(VecI a, VecI b) { return {_mm256_add_epi8(a.lo, b.lo), _mm256_add_epi8(a.hi, b.hi)}; }
inline VecI sub_bytes(VecI a, VecI b) { return {_mm256_sub_epi8(a.lo, b.lo), _mm256_sub_epi8(a.hi, b.hi)}; }
inline VecI look_up(VecI places, const uint8_t* table) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
  return {_mm256_shuffle_epi8(both, places.lo), _mm256_shuffle_epi8(both, places.hi)};
}
// Bytes 2i and 2i + 1 become their sum and their difference.
inline __m256i sums_and_differences(__m256i x) {
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  const __m256i swapped = _mm256_shuffle_epi8(x, order), odd = _mm256_set1_epi16(static_cast<int16_t>(0xFF00));
  return _mm256_blendv_epi8(_mm256_add_epi8(x, swapped), _mm256_sub_epi8(swapped, x), odd);
}
inline VecI sums_and_differences(VecI x) { return {sums_and_differences(x.lo), sums_and_differences(x.hi)}; }
inline VecF to_float(VecI a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline VecF add_to_exponent(VecF x, VecI steps) {
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.lo), steps.lo)),
          _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x.hi), steps.hi))};
}
inline VecF load_half(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1))};
}
inline VecF load_int8(const int8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
inline void store_int16(int16_t* p, VecF x) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));  // halves interleaved
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xD8));
}
inline __m256i interleave_int16(__m256 even, __m256 odd) {
  const __m256i most = _mm256_set1_epi32(32767), least = _mm256_set1_epi32(-32768);
  const __m256i low = _mm256_max_epi32(_mm256_min_epi32(_mm256_cvtps_epi32(even), most), least);
  const __m256i high = _mm256_max_epi32(_mm256_min_epi32(_mm256_cvtps_epi32(odd), most), least);
  return _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi32(0xFFFF)), _mm256_slli_epi32(high, 16));
}
inline VecI interleave_int16(VecF even, VecF odd) {
  return {interleave_int16(even.lo, odd.lo), interleave_int16(even.hi, odd.hi)};
}
// The barriers keep GCC 12 from multiplying for all sums first and adding later, which spills products and sums.
inline __m256i dot_s16(__m256i acc, __m256i a, __m256i b) {
  __m256i product = _mm256_madd_epi16(a, b);
  asm volatile("" : "+x"(product));
  acc = _mm256_add_epi32(acc, product);
  asm volatile("" : "+x"(acc));
  return acc;
}
inline VecI dot_s16(VecI acc, VecI a, VecI b) { return {dot_s16(acc.lo, a.lo, b.lo), dot_s16(acc.hi, a.hi, b.hi)}; }
// maddubs would saturate the sum of two products, so even and odd bytes are widened and summed in two madds.
inline __m256i dot_u8s8(__m256i acc, __m256i u, __m256i s) {
  const __m256i even =
      _mm256_madd_epi16(_mm256_and_si256(u, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u, 8), _mm256_srai_epi16(s, 8));
  return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
inline VecI dot_u8s8(VecI acc, VecI u, VecI s) { return {dot_u8s8(acc.lo, u.lo, s.lo), dot_u8s8(acc.hi, u.hi, s.hi)}; }

inline __m128i saturated_int8(__m256 x) {  // in the low eight bytes
  const __m256i rounded = _mm256_cvtps_epi32(x);
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
  return _mm_packs_epi16(words, words);
}
inline void store_int8(int8_t* p, VecF x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_unpacklo_epi64(saturated_int8(x.lo), saturated_int8(x.hi)));
}
// Rounded to nearest even, the inputs are in [0, 255]; 16 bytes are written.
inline void store_uint8(uint8_t* p, VecF x) {
  const __m256i words =
      _mm256_packus_epi32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));  // 0..3, 8..11, 4..7 ..
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}
inline __m256i interleave_uint8(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256i low = _mm256_packus_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
  const __m256i high = _mm256_packus_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
  const __m256i order =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), order);
}
inline VecI interleave_uint8(VecF a, VecF b, VecF c, VecF d) {
  return {interleave_uint8(a.lo, b.lo, c.lo, d.lo), interleave_uint8(a.hi, b.hi, c.hi, d.hi)};
}
inline VecH load_pairs(const uint16_t* p) { return load_bytes(p); }
inline void store_pairs(uint16_t* p, VecH x) { store_bytes(p, x); }
inline VecH broadcast_pair(const uint16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return set1_int(pair);
}
inline __m256 odd_floats(__m256i x) {
  return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000u))));
}
inline __m256 even_floats(__m256i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
inline VecF even_of_pairs(VecH x) { return {even_floats(x.lo), even_floats(x.hi)}; }
inline VecF odd_of_pairs(VecH x) { return {odd_floats(x.lo), odd_floats(x.hi)}; }
inline VecF dot_pairs(VecF acc, VecH a, VecH b) {
  acc = fma({odd_floats(a.lo), odd_floats(a.hi)}, {odd_floats(b.lo), odd_floats(b.hi)}, acc);
  return fma({even_floats(a.lo), even_floats(a.hi)}, {even_floats(b.lo), even_floats(b.hi)}, acc);
}
inline __m256i high_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7FFF)));
}
inline __m256i interleave_bf16(__m256 even, __m256 odd) {
  const __m256i upper = _mm256_and_si256(high_bf16(odd), _mm256_set1_epi32(static_cast<int32_t>(0xFFFF0000u)));
  return _mm256_or_si256(upper, _mm256_srli_epi32(high_bf16(even), 16));
}
inline VecH interleave_bf16(VecF even, VecF odd) {
  return {interleave_bf16(even.lo, odd.lo), interleave_bf16(even.hi, odd.hi)};
}
inline void store_bf16(uint16_t* p, VecF x) {
  const __m256i words =
      _mm256_packus_epi32(_mm256_srli_epi32(high_bf16(x.lo), 16), _mm256_srli_epi32(high_bf16(x.hi), 16));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(words, 0xD8));
}
inline VecF load_bf16(const uint16_t* p) {
  const auto* q = reinterpret_cast<const __m128i*>(p);
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1)), 16))};
}

}  // namespace runahead::RUNAHEAD_ISA
