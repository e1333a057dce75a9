// The vector abstraction of the CPU kernels: 16 floats, whatever the machine has. Every kernel is written once over it
// and compiled once per instruction set (cmake/isa.cmake); RUNAHEAD_ISA is the namespace of this compilation.
//
// Each operation gives the same bits on every instruction set: a multiply-add is fused, sums and maxima over lanes have
// one fixed tree, and a bf16 pair product is fma(even, fma(odd, acc)) everywhere, which is what VDPBF16PS does (measured
// on Zen 4; tests/kernels/vec_test.cc compares 3.2 million cases of it, and all other operations, on the machine at hand).
// Denormals are flushed (ThreadTeam). Not the same: the payload of NaN; what becomes of denormals in max, min and the
// rounding to bf16, which arithmetic does not make here, and which count as zero in every product if a model file has
// them; NaN rounded to bf16; and integers of what is out of their range.
//
//   VecF   16 floats
//   VecI   16 int32, or the same 64 bytes seen as 64 bytes
//   VecH   16 pairs of bf16: word 2j and 2j+1 are the pair of lane j
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include "kernels/cpu/vec_avx512.h"
#elif defined(__AVX2__)
#include "kernels/cpu/vec_avx2.h"
#else
#include "kernels/cpu/vec_generic.h"
#endif

namespace runahead::RUNAHEAD_ISA {

// 2^x for x in [-125, 127]; smaller x gives 2^-125, larger x anything: a weight of a key that its row does not see, which is then
// put out. Relative error 8e-8 (a degree 5 minimax polynomial on [-0.5, 0.5]) and the rounding of its evaluation.
inline VecF exp2(VecF x) {
  x = max(x, set1(-125.0f));
  const VecF n = round_nearest(x);
  const VecF f = sub(x, n);
  VecF p = set1(0.0013276472f);
  p = fma(p, f, set1(0.00967554133f));
  p = fma(p, f, set1(0.0555071327f));
  p = fma(p, f, set1(0.240221197f));
  p = fma(p, f, set1(0.693146967f));
  p = fma(p, f, set1(1.00000007f));
  return scale_by_exp2(p, n);
}

// The same with a relative error of 7.5e-5 (degree 3): enough where the result is then rounded to 8 bits.
inline VecF exp2_coarse(VecF x) {
  x = max(x, set1(-125.0f));
  const VecF n = round_nearest(x);
  const VecF f = sub(x, n);
  VecF p = set1(0.0551716685f);
  p = fma(p, f, set1(0.242611125f));
  p = fma(p, f, set1(0.693260968f));
  p = fma(p, f, set1(0.999928057f));
  return scale_by_exp2(p, n);
}

inline constexpr float kLog2e = 1.44269504f;

// x / (1 + 2^z); past z = 126 that is zero in fp32 for every x of a model.
inline VecF gated(VecF x, VecF z) { return div(x, add(set1(1.0f), exp2(min(z, set1(126.0f))))); }

// x * sigmoid(x), the activation of SwiGLU.
inline VecF silu(VecF x) { return gated(x, mul(x, set1(-kLog2e))); }

// GELU by its tanh formula, x / 2 * (1 + tanh(u)) with u = sqrt(2 / pi) * (x + 0.044715 x^3), which is x * sigmoid(2 u).
inline VecF gelu(VecF x) {
  constexpr float kLinear = -2 * 0.797884561f * kLog2e, kCubic = kLinear * 0.044715f;
  return gated(x, mul(x, fma(mul(x, x), set1(kCubic), set1(kLinear))));
}

// cap * tanh(x / cap), within 1e-7 of cap.
inline VecF soft_cap(VecF x, float cap) {
  const VecF z = min(mul(x, set1(2 * kLog2e / cap)), set1(126.0f));
  return fma(set1(-2 * cap), div(set1(1.0f), add(exp2(z), set1(1.0f))), set1(cap));
}

}  // namespace runahead::RUNAHEAD_ISA
