// The op table of a GPU: memory, copies and every kernel of the model behind plain functions, so that what drives them
// (model/cuda_transformer) is host code that knows no CUDA. Two make one: the shared object that nvcc builds (cuda_ops.cu), which
// is opened when a device is asked for, and the tests' emulation on the CPU (tests/support/simt), of the same kernels.
//   order    calls take effect in order, one after the other, as on one stream; finish() waits for all of them. Copies to the
//            host wait by themselves.
//   threads  one caller at a time, but for release() and what is of streams.
//   memory   pointers called "device" are of allocate(); others are the host's. Sizes and strides count elements unless they
//            say bytes. bf16 values are their 16 bits.
//   errors   a failed call says nothing: error() tells the first one, and everything after it is void.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace runahead::cuda {

inline constexpr int kPage = 64;  // tokens of a K/V page (kPageTokens)

// K and V of a page: [kv_heads][kPage][head_dim] bf16 of K, then the same of V. head_dim is padded to kHeadDims' next.
inline constexpr int kHeadDims[] = {32, 64, 96, 128, 256};

struct DequantizeArgs {
  uint32_t type = 0;  // GGUF's number of the format
  const uint8_t* blocks = nullptr;  // device: [rows, cols] in the file's blocks
  int64_t rows = 0, cols = 0;
  int64_t block_bytes = 0, block_len = 0;
  uint16_t* out = nullptr;  // device: [rows, out_stride], zeros behind cols
  int64_t out_stride = 0;
};

struct EmbedArgs {
  uint32_t type = 0;
  const uint8_t* table = nullptr;  // device: [vocab, cols] in the file's blocks
  int64_t cols = 0, block_bytes = 0, block_len = 0;
  const int32_t* tokens = nullptr;  // device: [rows]
  int rows = 0;
  float* out = nullptr;  // device: [rows, cols]
};

// out[r] = x[r] * gain / sqrt(mean(x[r]^2) + epsilon)
struct RmsNormArgs {
  const float* x = nullptr;  // device: [rows, dim]
  const float* gain = nullptr;  // device: [dim]
  float epsilon = 0;
  int rows = 0, dim = 0;
  uint16_t* out = nullptr;  // device: [rows, out_stride], zeros behind dim
  int out_stride = 0;
};

enum class Epilogue : int {
  kStore,  // float out[r][n] = y
  kAdd,  // float out[r][n] += y
  kSiluMul,  // bf16 out[r][n / 2] = silu(y[r][n]) * y[r][n + 1], n even: rows of the weights alternate gate and up
};

// y = a w^T
struct GemmArgs {
  const uint16_t* a = nullptr;  // device: [rows, k]
  const uint16_t* weights = nullptr;  // device: [n, k]
  int rows = 0, n = 0, k = 0;  // k a multiple of 32
  Epilogue epilogue = Epilogue::kStore;
  void* out = nullptr;  // device
  int out_stride = 0;
  // As choose_gemm() chose for the shape; else by our kernel. All pointers are 16-byte aligned then, if n is a multiple of 4.
  bool as_chosen = false;
};

struct GemmShape {
  int n = 0, k = 0;
  Epilogue epilogue = Epilogue::kStore;
  auto operator<=>(const GemmShape&) const = default;
};

// Epilogue::kSiluMul of a product that lies there: out[r][c] = silu(y[r][2 c]) * y[r][2 c + 1]
struct SiluMulArgs {
  const float* y = nullptr;  // device: [rows, 2 cols]
  int rows = 0, cols = 0;
  uint16_t* out = nullptr;  // device
  int out_stride = 0;
};

// Rotates Q and K (pairs i and i + rotated / 2 of a head), scales Q, and stores K and V into pages.
struct StoreQkvArgs {
  const float* qkv = nullptr;  // device: [rows, (heads + 2 kv_heads) * head_dim]
  const float* cos_sin = nullptr;  // device: [rows, 2, rotated / 2]
  int rows = 0, heads = 0, kv_heads = 0;
  int head_dim = 0, padded_dim = 0, rotated = 0;
  float query_scale = 0;
  uint16_t* queries = nullptr;  // device: [rows, heads, padded_dim]
  // device: [rows], where each row's K of head 0 goes; V lies value_offset behind
  uint16_t* const* keys = nullptr;
  int64_t value_offset = 0;
};

// One or more online-softmax steps of rows [row_begin, row_end) over pages [page_begin, page_end), in ascending order. Row r
// stands at position + r and sees what is not behind it. The softmax is of powers of two.
struct AttendArgs {
  const uint16_t* queries = nullptr;  // device: [rows, heads, padded_dim]
  const uint16_t* const* pages = nullptr;  // device: [page_end], of one layer
  int64_t value_offset = 0;
  int row_begin = 0, row_end = 0, position = 0;
  int page_begin = 0, page_end = 0;
  int heads = 0, kv_heads = 0, padded_dim = 0;
  bool anew = false;  // forget what the rows had
  float* sums = nullptr;  // device: [rows, heads, padded_dim], not divided yet
  float* state = nullptr;  // device: [rows, heads, 2]: largest score, sum of weights
};

// out[r] = the heads' sums / weights side by side, zeros behind.
struct FinishAttentionArgs {
  const float* sums = nullptr;
  const float* state = nullptr;
  int row_begin = 0, row_end = 0;
  int heads = 0, head_dim = 0, padded_dim = 0;
  uint16_t* out = nullptr;  // device: [rows, out_stride]
  int out_stride = 0;
};

// Of one token of each of several sequences, over all that it sees.
struct DecodeAttendArgs {
  const uint16_t* queries = nullptr;  // device: [rows, heads, padded_dim]
  const uint16_t* const* pages = nullptr;  // device: [rows, pages_stride]
  const int32_t* positions = nullptr;  // device: [rows]
  int64_t value_offset = 0;
  int rows = 0, pages_stride = 0;
  int heads = 0, kv_heads = 0, padded_dim = 0;
  float* parts = nullptr;  // device: [rows, heads, decode_parts(pages_stride), padded_dim + 2]
  float* sums = nullptr;  // device: [rows, heads, padded_dim]
  float* state = nullptr;  // device: [rows, heads, 2]
};
inline constexpr int kPagesPerPart = 8;  // whatever the batch, so that nobody's answer depends on it
constexpr int decode_parts(int pages) { return (pages + kPagesPerPart - 1) / kPagesPerPart; }

// A page between the device's form and that of the processor's bf16 mode (KvLayout): K [kv_heads][host_dim / 2][kPage][2], its
// halves padded each, then V [kv_heads][kPage / 2][host_dim][2].
struct RepackArgs {
  const uint16_t* from = nullptr;  // device
  uint16_t* to = nullptr;  // device
  bool to_host_form = false;  // else from it
  int kv_heads = 0, head_dim = 0;
  int padded_dim = 0, host_dim = 0;
};

struct ChecksumArgs {
  const uint8_t* const* pages = nullptr;  // device: [count]
  int count = 0;
  int64_t page_bytes = 0;  // a multiple of 16
  uint32_t* out = nullptr;  // device: [count], CRC32C
};

struct CudaOps {
  const char* device = "";  // its name
  const char* kind = "";  // of one the bits are the same: its architecture
  const char* id = "";  // this device, of all that there are

  void* (*allocate)(size_t bytes) = nullptr;  // device, 256-byte aligned; nullptr: there is no room
  void (*release)(void* device) = nullptr;  // from any thread, when what was asked for is done with it
  size_t (*free_bytes)() = nullptr;  // of the device, now
  void (*to_device)(void* device, const void* host, size_t bytes) = nullptr;  // the host's bytes are free on return
  void (*to_host)(void* host, const void* device, size_t bytes) = nullptr;
  void (*copy)(void* device, const void* from_device, size_t bytes) = nullptr;
  void (*clear)(void* device, size_t bytes) = nullptr;
  void (*finish)() = nullptr;
  const char* (*error)() = nullptr;  // nullptr: none so far

  void (*dequantize)(const DequantizeArgs&) = nullptr;
  void (*embed)(const EmbedArgs&) = nullptr;
  void (*rms_norm)(const RmsNormArgs&) = nullptr;
  void (*gemm)(const GemmArgs&) = nullptr;
  // Chooses how products of a shape are made from now on, whatever their rows. What it says tells apart the ways whose bits
  // differ; "": our kernel.
  const char* (*choose_gemm)(const GemmShape&) = nullptr;
  const char* (*gemm_text)() = nullptr;  // who makes products, for people
  void (*silu_mul)(const SiluMulArgs&) = nullptr;
  void (*store_qkv)(const StoreQkvArgs&) = nullptr;
  void (*attend)(const AttendArgs&) = nullptr;
  void (*finish_attention)(const FinishAttentionArgs&) = nullptr;
  void (*decode_attend)(const DecodeAttendArgs&) = nullptr;
  void (*repack)(const RepackArgs&) = nullptr;
  void (*checksum_pages)(const ChecksumArgs&) = nullptr;

  // Kernels that are asked for between the two are kept instead of run, with the arguments that they have then; nothing else may
  // be asked for there. nullptr: the device takes no graph of them, and is as before.
  void (*begin_graph)() = nullptr;
  void* (*end_graph)() = nullptr;
  void (*run_graph)(void* graph) = nullptr;
  void (*free_graph)(void* graph) = nullptr;

  // Streams beside the one that computes, for pages that travel. Who uses one has called use_device() on its thread.
  void (*use_device)() = nullptr;
  void* (*make_stream)() = nullptr;  // CUDA's own handle; nullptr: the device has failed
  void (*free_stream)(void* stream) = nullptr;  // when all on it is done
  void* (*make_event)() = nullptr;
  void (*free_event)(void* event) = nullptr;
  void (*record)(void* event, void* stream) = nullptr;
  bool (*has_passed)(void* event) = nullptr;  // also when the device has failed
  // Device memory that is in nobody's order: these wait for what the device has in hand. nullptr: there is no room.
  void* (*allocate_apart)(size_t bytes) = nullptr;
  void (*release_apart)(void* device) = nullptr;
  void* (*allocate_shared)(size_t bytes) = nullptr;  // the host's memory that kernels can use, too; nullptr: no room
  void (*release_shared)(void* memory) = nullptr;
  void (*checksum_on)(void* stream, const ChecksumArgs&) = nullptr;  // pages and out: shared memory
  void (*repack_on)(void* stream, const RepackArgs&) = nullptr;
  void (*to_host_on)(void* stream, void* host, const void* device,
                     size_t bytes) = nullptr;  // the host's is pinned, or it waits
  void (*copy_on)(void* stream, void* device, const void* from_device, size_t bytes) = nullptr;
  // What is of allocate_apart(), for another process on this device: 64 bytes say which. False, nullptr: it cannot be had.
  bool (*share)(void* device, void* handle) = nullptr;
  void* (*open_shared)(const void* handle, size_t* bytes) = nullptr;  // and how large it is
  void (*close_shared)(void* opened) = nullptr;
  void (*follow)(void* stream) = nullptr;  // what it is asked from now on comes after all that computes so far
  // On a thread of the device's, which may not call anything here, once the stream is so far; never, if the device has failed.
  void (*call_on)(void* stream, void (*call)(void*), void* with) = nullptr;
  bool (*pin)(void* host, size_t bytes) = nullptr;  // so that copies from and to it go at full speed, beside other work
  void (*unpin)(void* host) = nullptr;
};

}  // namespace runahead::cuda
