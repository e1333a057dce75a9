// What a kernel may use of CUDA, and nothing else: thread numbers, barriers, shuffles, tiles in shared memory, matrix products of
// a warp. nvcc compiles it for the device; g++ over tests/support/simt for a test on the CPU, where every use of shared memory,
// of a barrier and of a warp's operation is checked. Source of the fragments' places: PTX ISA, mma.m16n8k16 and ldmatrix.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>

#define KERNEL __global__
#define DEVICE __device__ __forceinline__
#define SHARED(T, name, count) __shared__ alignas(16) T name[count]
#define BARRIER() __syncthreads()
#define WARP_BARRIER() __syncwarp()
#else
#include <cmath>
#include <cstring>

#include "simt.h"

#define KERNEL inline
#define DEVICE inline
#define SHARED(T, name, count) SIMT_SHARED(T, name, count)
#define BARRIER() ::simt::barrier(SIMT_SITE)
#define WARP_BARRIER() ::simt::warp_barrier(SIMT_SITE)
#endif

namespace runahead::cuda {

inline constexpr int kWarpLanes = 32;

#ifdef __CUDACC__

DEVICE int thread_id() { return static_cast<int>(threadIdx.x); }
DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
DEVICE float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Bytes of global memory to shared memory behind the threads' back: 16 at a time, zeros if not `valid`.
DEVICE void copy16_later(uint16_t* to, const uint16_t* from, bool valid) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
DEVICE void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Of the groups that this thread has closed all but the newest kLeft are there; a barrier makes them everybody's.
template <int kLeft>
DEVICE void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

template <bool kTransposed, int kCount>
DEVICE void load_matrices(uint32_t (&out)[kCount], const uint16_t* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kCount == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address));
  } else if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(out[0]), "=r"(out[1]) : "r"(address));
  }
}

#else

inline int thread_id() { return static_cast<int>(simt::thread_index().x); }
inline int block_threads() { return static_cast<int>(simt::block_size().x); }
inline int block_x() { return static_cast<int>(simt::block_index().x); }
inline int block_y() { return static_cast<int>(simt::block_index().y); }
inline int block_z() { return static_cast<int>(simt::block_index().z); }
inline float shuffle_xor_at(simt::Site site, float value, int mask) {
  return simt::collective<float>(site, value, [&](const auto& in, auto& out) {
    for (size_t lane = 0; lane < in.size(); ++lane) out[lane] = in[lane ^ static_cast<size_t>(mask)];
  });
}
#define shuffle_xor(value, mask) shuffle_xor_at(SIMT_SITE, value, mask)
inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float exp2_fast(float x) { return std::exp2(x); }

inline void copy16_later(simt::Shared<uint16_t> to, const uint16_t* from, bool valid) {
  to.copy_later(valid ? from : nullptr, 8);
}
inline void close_copies() { simt::close_copies(); }
template <int kLeft>
void await_copies() {
  simt::await_copies(kLeft);
}

#endif

template <class T>
DEVICE T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
DEVICE T max_of(T a, T b) {
  return a < b ? b : a;
}

DEVICE int lane_id() { return thread_id() % kWarpLanes; }
DEVICE int warp_id() { return thread_id() / kWarpLanes; }

DEVICE float warp_sum(float value) {
  for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

DEVICE float from_bf16(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }
DEVICE uint16_t to_bf16(float value) {  // to the nearest, ties to even; a NaN stays one
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
DEVICE uint32_t to_bf16_pair(float low, float high) {
  return static_cast<uint32_t>(to_bf16(low)) | static_cast<uint32_t>(to_bf16(high)) << 16;
}
DEVICE float from_half(uint16_t bits) {  // exact
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = bits >> 10 & 31u, fraction = bits & 1023u;
  if (exponent == 0) return float_of(bits_of(static_cast<float>(fraction) * 0x1p-24f) | sign);
  return float_of(sign | (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13);
}

// Fragments of bf16 tiles in shared memory whose rows are `stride` values apart. Lane l holds of A [16, 16] rows l / 4 and
// l / 4 + 8 at columns l % 4 * 2 + {0, 1, 8, 9}; of B [16, 8] column l / 4 at rows l % 4 * 2 + {0, 1, 8, 9}; of the sum [16, 8]
// rows l / 4 and l / 4 + 8 at columns l % 4 * 2 + {0, 1}.
template <class Tile>
DEVICE void load_a(uint32_t (&a)[4], const Tile& tile, int row, int col, int stride) {
  const int lane = lane_id();
#ifdef __CUDACC__
  load_matrices<false>(a, tile + (row + lane % 16) * stride + col + lane / 16 * 8);
#else
  for (int i = 0; i < 4; ++i) {
    const auto at = static_cast<size_t>((row + lane / 4 + i % 2 * 8) * stride + col + lane % 4 * 2 + i / 2 * 8);
    a[i] = static_cast<uint32_t>(tile[at]) | static_cast<uint32_t>(tile[at + 1]) << 16;
  }
#endif
}
// B from a tile [columns of B, rows of B]: its rows are B's columns.
template <class Tile>
DEVICE void load_b(uint32_t (&b)[2], const Tile& tile, int col_of_b, int row_of_b, int stride) {
  const int lane = lane_id();
#ifdef __CUDACC__
  load_matrices<false>(b, tile + (col_of_b + lane % 8) * stride + row_of_b + lane / 8 % 2 * 8);
#else
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<size_t>((col_of_b + lane / 4) * stride + row_of_b + lane % 4 * 2 + i * 8);
    b[i] = static_cast<uint32_t>(tile[at]) | static_cast<uint32_t>(tile[at + 1]) << 16;
  }
#endif
}
// B from a tile [rows of B, columns of B].
template <class Tile>
DEVICE void load_b_as_it_lies(uint32_t (&b)[2], const Tile& tile, int row_of_b, int col_of_b, int stride) {
  const int lane = lane_id();
#ifdef __CUDACC__
  load_matrices<true>(b, tile + (row_of_b + lane % 16) * stride + col_of_b);
#else
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<size_t>((row_of_b + lane % 4 * 2 + i * 8) * stride + col_of_b + lane / 4);
    b[i] = static_cast<uint32_t>(tile[at]) | static_cast<uint32_t>(tile[at + static_cast<size_t>(stride)]) << 16;
  }
#endif
}

// d += A B, sums in fp32.
#ifdef __CUDACC__
DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#else
#define multiply_add(d, a, b) ::simt::multiply_bf16(SIMT_SITE, d, a, b)
#endif

}  // namespace runahead::cuda
