// AVX-512 (F, BW, DQ, VL, VNNI; BF16 where compiled for it). See kernels/cpu/vec.h for the contract.
#pragma once

#include <immintrin.h>

namespace runahead::RUNAHEAD_ISA {

using VecF = __m512;
using VecI = __m512i;
using VecH = __m512i;

// Register tile of the products: kTileRows x kTileVecs accumulators, and what they need, fill 32 registers.
inline constexpr int kTileRows = 12, kTileVecs = 2;
inline constexpr int kIntTileRows = 6;  // of integer products: two sums an output, the block's and the total
// Rows up to which int16 products take panels as they lie: kDirectRowsMax, of bytes; not measured for words.
inline constexpr int kPairsInPlaceMax = 30;
// The attention's: 8 keys or value dimensions x 2 blocks of 16 query rows. 16 sums cover the dots' latency; what three
// blocks have beside the page does not fit the first-level cache.
inline constexpr int kAttendRows = 8, kAttendBlocks = 2;
// Independent dots that keep the units busy: latency times throughput of every dot instruction we know is at most 12.
inline constexpr int kDotChains = 12;
inline constexpr bool kDotsTakeMemory = true;  // dot_u8s8_at is one instruction

inline VecF zero() { return _mm512_setzero_ps(); }
inline VecF set1(float x) { return _mm512_set1_ps(x); }
inline VecF load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, VecF x) { _mm512_storeu_ps(p, x); }
inline VecF add(VecF a, VecF b) { return _mm512_add_ps(a, b); }
inline VecF sub(VecF a, VecF b) { return _mm512_sub_ps(a, b); }
inline VecF mul(VecF a, VecF b) { return _mm512_mul_ps(a, b); }
inline VecF div(VecF a, VecF b) { return _mm512_div_ps(a, b); }
inline VecF max(VecF a, VecF b) { return _mm512_max_ps(a, b); }
inline VecF min(VecF a, VecF b) { return _mm512_min_ps(a, b); }
inline VecF abs(VecF a) { return _mm512_abs_ps(a); }
inline VecF fma(VecF a, VecF b, VecF c) { return _mm512_fmadd_ps(a, b, c); }
inline VecF round_nearest(VecF x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline VecF scale_by_exp2(VecF x, VecF n) { return _mm512_scalef_ps(x, n); }
// Lanes whose `least` is below `key` become `other`.
inline VecF keep_where_least(VecF x, VecI least, int key, float other) {
  return _mm512_mask_mov_ps(_mm512_set1_ps(other), _mm512_cmpge_epi32_mask(least, _mm512_set1_epi32(key)), x);
}
// Lanes i and i ^ kDistance change places.
template <int kDistance>
inline VecF swap_lanes(VecF x) {
  static_assert(kDistance == 8 || kDistance == 4 || kDistance == 2 || kDistance == 1);
  if constexpr (kDistance == 8) return _mm512_shuffle_f32x4(x, x, 0x4E);
  if constexpr (kDistance == 4) return _mm512_shuffle_f32x4(x, x, 0xB1);
  if constexpr (kDistance == 2) return _mm512_permute_ps(x, 0x4E);
  if constexpr (kDistance == 1) return _mm512_permute_ps(x, 0xB1);
}
// The second and third of each four lanes change places.
inline VecF swap_middle(VecF x) { return _mm512_permute_ps(x, 0xD8); }
inline __m128 fold_max(VecF x) {
  const __m256 y = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  return _mm_max_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
}
inline float reduce_max(VecF x) {
  __m128 y = fold_max(x);
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_shuffle_ps(y, y, 1)));
}
// Lanes i and i + 8, then i + 4, i + 2, i + 1: the tree of every instruction set.
inline float reduce_add(VecF x) {
  const __m256 y = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 z = _mm_add_ps(_mm256_castps256_ps128(y), _mm256_extractf128_ps(y, 1));
  z = _mm_add_ps(z, _mm_movehl_ps(z, z));
  return _mm_cvtss_f32(_mm_add_ss(z, _mm_shuffle_ps(z, z, 1)));
}

inline VecI load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline void store_bytes(void* p, VecI x) { _mm512_storeu_si512(p, x); }
inline VecI zero_int() { return _mm512_setzero_si512(); }
inline VecI set1_int(int32_t x) { return _mm512_set1_epi32(x); }
inline VecI bit_and(VecI a, VecI b) { return _mm512_and_si512(a, b); }
inline VecI shift_right(VecI a, int bits) { return _mm512_srli_epi32(a, static_cast<unsigned>(bits)); }
inline VecI bit_or(VecI a, VecI b) { return _mm512_or_si512(a, b); }
inline VecI shift_left(VecI a, int bits) { return _mm512_slli_epi32(a, static_cast<unsigned>(bits)); }
inline VecI add_bytes(VecI a, VecI b) { return _mm512_add_epi8(a, b); }
inline VecI sub_bytes(VecI a, VecI b) { return _mm512_sub_epi8(a, b); }
// Each byte, which is below 16, becomes what stands there in the table of 16.
inline VecI look_up(VecI places, const uint8_t* table) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), places);
}
// Bytes 2i and 2i + 1 become their sum and their difference.
inline VecI sums_and_differences(VecI x) {
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  const __m512i swapped = _mm512_shuffle_epi8(x, order);
  return _mm512_mask_sub_epi8(_mm512_add_epi8(x, swapped), 0xAAAAAAAAAAAAAAAAu, swapped, x);
}
inline VecF to_float(VecI a) { return _mm512_cvtepi32_ps(a); }
// x * 2^(steps / 2^23) by an addition to its bits, which leaves the multiply units alone. steps: whole powers, at least
// zero; zero becomes 2^(steps / 2^23 - 127) or stays zero.
inline VecF add_to_exponent(VecF x, VecI steps) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), steps));
}
inline VecF load_half(const uint16_t* p) {  // 16 fp16
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// Rounded to nearest even, saturated; 16 int16 are written.
inline VecF load_int8(const int8_t* p) {  // 16
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline void store_int16(int16_t* p, VecF x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
}
// The pair (even[j], odd[j]) in lane j, rounded to nearest even and saturated to int16.
inline VecI interleave_int16(VecF even, VecF odd) {
  const __m512i low = _mm512_cvtepi16_epi32(_mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(even)));
  const __m512i high = _mm512_cvtepi16_epi32(_mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(odd)));
  return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xFFFF)), _mm512_slli_epi32(high, 16));
}
// Rounded to nearest even, saturated; 16 int8 are written.
inline void store_int8(int8_t* p, VecF x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}
// Rounded to nearest even, the inputs are in [0, 255]; 16 bytes are written.
inline void store_uint8(uint8_t* p, VecF x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
}
// Byte i of lane j is lane j of the i-th vector, rounded to nearest even; the inputs are in [0, 255].
inline VecI interleave_uint8(VecF a, VecF b, VecF c, VecF d) {
  const __m512i low = _mm512_packus_epi32(_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b));
  const __m512i high = _mm512_packus_epi32(_mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d));
  const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  return _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order);
}
// The dots are written as instructions because GCC 12 copies the accumulator of the intrinsics before and after each,
// and in the widest tiles spills it too: attention was half as fast.
// acc[j] += a[2j] * b[2j] + a[2j + 1] * b[2j + 1] in int16.
inline VecI dot_s16(VecI acc, VecI a, VecI b) {
  asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
  return acc;
}
// acc[j] += the sum over the four bytes i of lane j of u[4j + i] * s[4j + i], u unsigned and s signed; no saturation.
inline VecI dot_u8s8(VecI acc, VecI u, VecI s) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s));
  return acc;
}
// The same of four bytes that lie at `s`, for every lane: one instruction, where set1_int before it would be two.
inline VecI dot_u8s8_at(VecI acc, VecI u, const std::byte* s) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(u), "m"(*reinterpret_cast<const std::byte(*)[4]>(s)));
  return acc;
}

inline VecH load_pairs(const uint16_t* p) { return _mm512_loadu_si512(p); }
inline void store_pairs(uint16_t* p, VecH x) { _mm512_storeu_si512(p, x); }
inline VecH broadcast_pair(const uint16_t* p) {
  int32_t pair;
  std::memcpy(&pair, p, sizeof(pair));
  return _mm512_set1_epi32(pair);
}

// The first and the second of each pair, as floats.
inline VecF even_of_pairs(VecH x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline VecF odd_of_pairs(VecH x) {
  return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000u))));
}

#if defined(__AVX512BF16__)
inline constexpr bool kNativeBf16 = true;

inline VecF dot_pairs(VecF acc, VecH a, VecH b) { return _mm512_dpbf16_ps(acc, (__m512bh)a, (__m512bh)b); }
// Lane j of the result is the pair (even[j], odd[j]), rounded to nearest even.
inline VecH interleave_bf16(VecF even, VecF odd) {
  const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);  // words 0..15 even, 16..31 odd
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, both);
}
// 16 floats, in order, as bf16.
inline void store_bf16(uint16_t* p, VecF x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(x));
}
#else
inline constexpr bool kNativeBf16 = false;

inline __m512i high_bf16(VecF x) {  // the rounded value in the upper half of each lane
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7FFF)));
}
inline VecF dot_pairs(VecF acc, VecH a, VecH b) {
  const __m512i odd = _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000u));
  acc = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, odd)), _mm512_castsi512_ps(_mm512_and_si512(b, odd)),
                        acc);
  return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)),
                         acc);
}
inline VecH interleave_bf16(VecF even, VecF odd) {
  const __m512i upper = _mm512_and_si512(high_bf16(odd), _mm512_set1_epi32(static_cast<int32_t>(0xFFFF0000u)));
  return _mm512_or_si512(upper, _mm512_srli_epi32(high_bf16(even), 16));
}
inline void store_bf16(uint16_t* p, VecF x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(high_bf16(x), 16)));
}
#endif
// 16 bf16 as floats.
inline VecF load_bf16(const uint16_t* p) {
  const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

}  // namespace runahead::RUNAHEAD_ISA
