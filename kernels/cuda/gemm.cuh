// y = a w^T with bf16 tiles and fp32 sums. A block of four warps makes [64, 64] of y, 32 of k at a time, while the next 32 are on
// their way. A row's sums are made in the order of k, whatever the other rows are.
#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"

namespace runahead::cuda {

inline constexpr int kGemmThreads = 128;
inline constexpr int kGemmTile = 64;  // rows and columns of y
inline constexpr int kGemmDepth = 32;
inline constexpr int kGemmStride = kGemmDepth + 8;  // so that eight rows of a fragment lie in different banks

// Rows [row, row + 64) of a matrix [rows, k], columns [col, col + 32), into a tile; zeros where there are none.
template <class Tile>
DEVICE void fetch_gemm_tile(const Tile& tile, const uint16_t* matrix, int rows, int k, int row, int col) {
  constexpr int kChunks = kGemmDepth / 8;
  for (int chunk = thread_id(); chunk < kGemmTile * kChunks; chunk += kGemmThreads) {
    const int r = chunk / kChunks, c = chunk % kChunks * 8;
    const bool valid = row + r < rows;
    copy16_later(tile + (r * kGemmStride + c), matrix + (valid ? static_cast<int64_t>(row + r) * k + col + c : 0),
                 valid);
  }
}

DEVICE uint16_t silu_times(float gate, float up) {
  const float activated = gate / (1.0f + exp2_fast(-1.44269504f * gate));
  return to_bf16(activated * up);
}

template <Epilogue kEpilogue>
DEVICE void store_pair(const GemmArgs& args, int row, int col, float first, float second) {
  if (row >= args.rows || col >= args.n) return;
  const int64_t at = static_cast<int64_t>(row) * args.out_stride;
  if constexpr (kEpilogue == Epilogue::kSiluMul) {
    static_cast<uint16_t*>(args.out)[at + col / 2] = silu_times(first, second);
  } else {
    float* out = static_cast<float*>(args.out) + at + col;
    const bool both = col + 1 < args.n;
    if constexpr (kEpilogue == Epilogue::kAdd) {
      out[0] += first;
      if (both) out[1] += second;
    } else {
      out[0] = first;
      if (both) out[1] = second;
    }
  }
}

template <Epilogue kEpilogue>
KERNEL void gemm_kernel(GemmArgs args) {
  constexpr int kTileValues = kGemmTile * kGemmStride;
  SHARED(uint16_t, a_tiles, 2 * kTileValues);
  SHARED(uint16_t, w_tiles, 2 * kTileValues);
  const int row = block_y() * kGemmTile, col = block_x() * kGemmTile;
  const int warp_row = warp_id() / 2 * 32, warp_col = warp_id() % 2 * 32;
  float sums[2][4][4] = {};
  fetch_gemm_tile(a_tiles + 0, args.a, args.rows, args.k, row, 0);
  fetch_gemm_tile(w_tiles + 0, args.weights, args.n, args.k, col, 0);
  close_copies();
  for (int k = 0, stage = 0; k < args.k; k += kGemmDepth, stage ^= 1) {
    if (k + kGemmDepth < args.k) {
      fetch_gemm_tile(a_tiles + (stage ^ 1) * kTileValues, args.a, args.rows, args.k, row, k + kGemmDepth);
      fetch_gemm_tile(w_tiles + (stage ^ 1) * kTileValues, args.weights, args.n, args.k, col, k + kGemmDepth);
    }
    close_copies();
    await_copies<1>();
    BARRIER();
    const auto a_tile = a_tiles + stage * kTileValues, w_tile = w_tiles + stage * kTileValues;
    for (int depth = 0; depth < kGemmDepth; depth += 16) {
      uint32_t a[2][4];
      for (int m = 0; m < 2; ++m) load_a(a[m], a_tile, warp_row + m * 16, depth, kGemmStride);
      for (int n = 0; n < 4; ++n) {
        uint32_t b[2];
        load_b(b, w_tile, warp_col + n * 8, depth, kGemmStride);
        for (int m = 0; m < 2; ++m) multiply_add(sums[m][n], a[m], b);
      }
    }
    BARRIER();
  }
  for (int m = 0; m < 2; ++m)
    for (int n = 0; n < 4; ++n) {
      const int r = row + warp_row + m * 16 + lane_id() / 4, c = col + warp_col + n * 8 + lane_id() % 4 * 2;
      store_pair<kEpilogue>(args, r, c, sums[m][n][0], sums[m][n][1]);
      store_pair<kEpilogue>(args, r + 8, c, sums[m][n][2], sums[m][n][3]);
    }
}

// A thread takes a value.
KERNEL void silu_mul_kernel(SiluMulArgs args) {
  const int col = block_x() * kGemmThreads + thread_id();
  if (col >= args.cols) return;
  const int64_t row = block_y(), at = (row * args.cols + col) * 2;
  args.out[row * args.out_stride + col] = silu_times(args.y[at], args.y[at + 1]);
}

}  // namespace runahead::cuda
