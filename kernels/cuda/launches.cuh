// Each op as a launch of its kernel: grids and the choice of an instance. For nvcc and for the emulation alike; who includes it
// says how a kernel starts: start(kernel, grid, threads, args).
#pragma once

#include <type_traits>

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/decode_attention.cuh"
#include "kernels/cuda/dequantize.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/gemm.cuh"

namespace runahead::cuda {

struct Grid {
  int x = 1, y = 1, z = 1;
};

// As nvcc's <<<>>> or the emulation has it.
template <class Args>
void start(void (*kernel)(Args), Grid grid, int threads, const Args& args);

// On a stream of its own.
template <class Args>
void start_on(void* stream, void (*kernel)(Args), Grid grid, int threads, const Args& args);

inline int blocks_of(int count, int size) { return (count + size - 1) / size; }

// f(std::integral_constant of the head's padded length).
template <class F>
void with_head_dim(int padded_dim, F f) {
  switch (padded_dim) {
    case 32:
      return f(std::integral_constant<int, 32>());
    case 64:
      return f(std::integral_constant<int, 64>());
    case 96:
      return f(std::integral_constant<int, 96>());
    case 128:
      return f(std::integral_constant<int, 128>());
    default:
      return f(std::integral_constant<int, 256>());
  }
}

inline void dequantize(const DequantizeArgs& args) {
  start(dequantize_kernel, {static_cast<int>(args.rows)}, kDequantizeThreads, args);
}

inline void embed(const EmbedArgs& args) { start(embed_kernel, {args.rows}, kDequantizeThreads, args); }

inline void rms_norm(const RmsNormArgs& args) { start(rms_norm_kernel, {args.rows}, kRowThreads, args); }

inline void gemm(const GemmArgs& args) {
  const Grid grid{blocks_of(args.n, kGemmTile), blocks_of(args.rows, kGemmTile)};
  switch (args.epilogue) {
    case Epilogue::kStore:
      return start(gemm_kernel<Epilogue::kStore>, grid, kGemmThreads, args);
    case Epilogue::kAdd:
      return start(gemm_kernel<Epilogue::kAdd>, grid, kGemmThreads, args);
    case Epilogue::kSiluMul:
      return start(gemm_kernel<Epilogue::kSiluMul>, grid, kGemmThreads, args);
  }
}

inline void silu_mul(const SiluMulArgs& args) {
  start(silu_mul_kernel, {blocks_of(args.cols, kGemmThreads), args.rows}, kGemmThreads, args);
}

inline void store_qkv(const StoreQkvArgs& args) { start(store_qkv_kernel, {args.rows}, kRowThreads, args); }

inline void attend(const AttendArgs& args) {
  const Grid grid{blocks_of(args.row_end - args.row_begin, kAttendRows), args.heads};
  with_head_dim(args.padded_dim, [&](auto dim) { start(attend_kernel<dim>, grid, kAttendThreads, args); });
}

inline void finish_attention(const FinishAttentionArgs& args) {
  start(finish_attention_kernel, {args.row_end - args.row_begin}, kRowThreads, args);
}

inline void decode_attend(const DecodeAttendArgs& args) {
  const Grid parts{decode_parts(args.pages_stride), args.kv_heads * head_groups(args.heads, args.kv_heads), args.rows};
  with_head_dim(args.padded_dim, [&](auto dim) {
    start(decode_part_kernel<dim>, parts, kDecodeThreads, args);
    start(decode_join_kernel<dim>, {args.heads, args.rows}, kDecodeThreads, args);
  });
}

inline void repack(const RepackArgs& args) { start(repack_kernel, {2 * args.kv_heads}, kRowThreads, args); }

inline void checksum_pages(const ChecksumArgs& args) { start(checksum_pages_kernel, {args.count}, kCrcThreads, args); }

inline void checksum_on(void* stream, const ChecksumArgs& args) {
  start_on(stream, checksum_pages_kernel, {args.count}, kCrcThreads, args);
}

inline void repack_on(void* stream, const RepackArgs& args) {
  start_on(stream, repack_kernel, {2 * args.kv_heads}, kRowThreads, args);
}

inline void add_kernels(CudaOps& ops) {
  ops.dequantize = dequantize;
  ops.embed = embed;
  ops.rms_norm = rms_norm;
  ops.gemm = gemm;
  ops.choose_gemm = [](const GemmShape&) { return ""; };
  ops.gemm_text = [] { return "ours"; };
  ops.silu_mul = silu_mul;
  ops.store_qkv = store_qkv;
  ops.attend = attend;
  ops.finish_attention = finish_attention;
  ops.decode_attend = decode_attend;
  ops.repack = repack;
  ops.checksum_pages = checksum_pages;
  ops.checksum_on = checksum_on;
  ops.repack_on = repack_on;
}

}  // namespace runahead::cuda
