// The number formats of the products, as traits: what an element is, how many neighbours along k one instruction sums,
// and that instruction. Kernels are templates over them.
#pragma once

#include "kernels/compute_mode.h"
#include "kernels/cpu/vec.h"

namespace runahead::RUNAHEAD_ISA {

struct Fp32 {
  using Element = float;
  using Sum = VecF;                // 16 sums
  static constexpr int kPack = 1;  // values of k an instruction sums
  using Vec = VecF;                // 16 outputs x kPack
  static Vec load(const Element* p) { return RUNAHEAD_ISA::load(p); }
  static Vec broadcast(const Element* p) { return set1(*p); }
  static VecF dot(VecF acc, Vec a, Vec b) { return fma(a, b, acc); }
  static void store_row(Element* p, VecF x) { store(p, x); }
  static VecF load_row(const Element* p) { return RUNAHEAD_ISA::load(p); }
  // Two consecutive k of 16 outputs, into [2 / kPack, row] with `row` elements from one k to the next.
  static void store_two_k(Element* p, int row, VecF first, VecF second) {
    store(p, first);
    store(p + row, second);
  }
};

struct Bf16 {
  using Element = uint16_t;
  using Sum = VecF;
  static constexpr int kPack = 2;
  using Vec = VecH;
  static Vec load(const Element* p) { return load_pairs(p); }
  static Vec broadcast(const Element* p) { return broadcast_pair(p); }
  static VecF dot(VecF acc, Vec a, Vec b) { return dot_pairs(acc, a, b); }
  static void store_row(Element* p, VecF x) { store_bf16(p, x); }
  static VecF load_row(const Element* p) { return load_bf16(p); }
  static void store_two_k(Element* p, int, VecF first, VecF second) { store_pairs(p, interleave_bf16(first, second)); }
};

inline constexpr float kInt16Max = 32767;

// Sums are exact in int32; the scales that make them real numbers are the callers' (gemm_int16.h, attention_formats.h).
struct Int16 {
  using Element = int16_t;
  using Sum = VecI;
  static constexpr int kPack = 2;
  using Vec = VecI;
  static Vec load(const Element* p) { return load_bytes(p); }
  static Vec broadcast(const Element* p) { return broadcast_pair(reinterpret_cast<const uint16_t*>(p)); }
  static VecI dot(VecI acc, Vec a, Vec b) { return dot_s16(acc, a, b); }
};

inline constexpr float kInt8Max = 127;

// Four signed bytes, broadcast, against four unsigned ones in the vector: values against softmax weights. The products
// (gemm_bytes.h) have loops of their own, because their codes come from several panel formats.
struct Int8 {
  using Element = int8_t;
  using Sum = VecI;
  static constexpr int kPack = 4;
  using Vec = VecI;
  static Vec load(const Element* p) { return load_bytes(p); }
  static Vec broadcast(const Element* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof(four));
    return set1_int(four);
  }
  static VecI dot(VecI acc, Vec a, Vec w) { return dot_u8s8(acc, w, a); }
};

// The inner loop of everything: acc[r][v] += sum over k of a[r, k] * b[k, v], k ascending, one chain an output.
//   a  broadcast operand: element (r, k) at r * a_row + k / kPack * a_step, kPack neighbours
//   b  vector operand: 16 lanes of kPack neighbours at k / kPack * b_step + v * b_vec
template <class Num>
struct TileOperands {
  const typename Num::Element* a = nullptr;
  size_t a_row = 0, a_step = Num::kPack;
  const typename Num::Element* b = nullptr;
  size_t b_step = 0, b_vec = 16 * Num::kPack;
};

template <class Num, int kRows, int kVecs>
inline void multiply_tile(TileOperands<Num> t, int k_steps, typename Num::Sum (&acc)[kRows][kVecs]) {
  for (int step = 0; step < k_steps; ++step, t.a += t.a_step, t.b += t.b_step) {
    typename Num::Vec w[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) w[v] = Num::load(t.b + static_cast<size_t>(v) * t.b_vec);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const typename Num::Vec x = Num::broadcast(t.a + static_cast<size_t>(r) * t.a_row);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[r][v] = Num::dot(acc[r][v], x, w[v]);
    }
  }
}

// Calls f.template operator()<n>() with n = min(rows, kMax), for tiles whose height is a compile-time constant.
template <int kMax, class F>
inline void with_tile_rows(int rows, const F& f) {
  if constexpr (kMax == 1) {
    f.template operator()<1>();
  } else {
    if (rows >= kMax) f.template operator()<kMax>();
    else with_tile_rows<kMax - 1>(rows, f);
  }
}

}  // namespace runahead::RUNAHEAD_ISA
