// The operations of kernels/cpu/vec.h behind one signature, so that vec_test.cc can give the same bytes to every
// instruction set. vec_operations.cc is compiled once per instruction set (cmake/isa.cmake); nothing of the standard
// library is in it, because what one instruction set compiles must not be what the linker keeps for all.
#pragma once

#include <cstddef>
#include <cstdint>

namespace runahead::test {

// 16 lanes of four operands; a scalar is lane 0.
struct VecInput {
  alignas(64) uint32_t a[16], b[16], c[16], d[16];
};
struct VecOutput {
  alignas(64) uint32_t bits[16];
};

// Which operands the operation is defined for: what the kernels give it.
enum class VecDomain {
  kAnyBits,
  kNumbers,        // any floats: both zeros, denormals, infinities, NaN
  kNoDenormals,    // a, b: the same without denormals, which arithmetic under FlushDenormals does not make
  kRoundable,      // a, b: nor NaN
  kPairs,          // a: any float; b, c: pairs of any bf16
  kScaled,         // a: any float; b: whole numbers in [-126, 127], as floats
  kExponents,      // a: any float up to 127
  kInt32Range,     // a, b: floats that round to an int32
  kByteRange,      // a to d: floats in [0, 255]
  kExponentSteps,  // a: floats of middling size; b: whole powers of two, as added to the bits of a float
  kDotInt16,       // a: a sum that does not overflow; b, c: pairs of int16
  kDotInt8,        // a: a sum that does not overflow; b: four uint8, c: four int8
};

// Bits: the same. Numbers: the same, or both are NaN, whose payload no kernel looks at.
enum class VecResult { kBits, kNumbers };

struct VecOperation {
  const char* name = nullptr;  // null ends a list
  VecDomain domain = VecDomain::kAnyBits;
  VecResult result = VecResult::kBits;
  void (*run)(const VecInput& in, VecOutput& out) = nullptr;
};

}  // namespace runahead::test

namespace runahead::generic {
const test::VecOperation* vec_operations();
}
#if defined(RUNAHEAD_X86_KERNELS)
namespace runahead::avx2 {
const test::VecOperation* vec_operations();
}
namespace runahead::avx512 {
const test::VecOperation* vec_operations();
}
#endif
#if defined(RUNAHEAD_AVX512BF16_KERNELS)
namespace runahead::avx512bf16 {
const test::VecOperation* vec_operations();
}
#endif
