// What is done row by row: normalisation, rotation with the store into pages, the end of attention, checksums of pages.
#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"

namespace runahead::cuda {

inline constexpr int kRowThreads = 128;
inline constexpr int kRowWarps = kRowThreads / kWarpLanes;

// A block of threads takes a row.
KERNEL void rms_norm_kernel(RmsNormArgs args) {
  SHARED(float, sums, kRowWarps);
  const float* x = args.x + static_cast<int64_t>(block_x()) * args.dim;
  float squares = 0;
  for (int i = thread_id(); i < args.dim; i += kRowThreads) squares += x[i] * x[i];
  squares = warp_sum(squares);
  if (lane_id() == 0) sums[warp_id()] = squares;
  BARRIER();
  float total = 0;
  for (int warp = 0; warp < kRowWarps; ++warp) total += sums[warp];
  const float scale = 1.0f / sqrtf(total / static_cast<float>(args.dim) + args.epsilon);
  uint16_t* out = args.out + static_cast<int64_t>(block_x()) * args.out_stride;
  for (int i = thread_id(); i < args.out_stride; i += kRowThreads)
    out[i] = i < args.dim ? to_bf16(x[i] * scale * args.gain[i]) : to_bf16(0);
}

// Value i of a head after the rotation of pairs (i, i + rotated / 2).
DEVICE float rotated_value(const float* head, const float* cos_sin, int i, int rotated) {
  const int half = rotated / 2;
  if (i >= rotated) return head[i];
  const int pair = i % half;
  const float cosine = cos_sin[pair], sine = cos_sin[half + pair];
  return i < half ? head[i] * cosine - head[i + half] * sine : head[i] * cosine + head[i - half] * sine;
}

// A block of threads takes a row: all its heads.
KERNEL void store_qkv_kernel(StoreQkvArgs args) {
  const int64_t row = block_x();
  const int all_heads = args.heads + 2 * args.kv_heads;
  const float* qkv = args.qkv + row * all_heads * args.head_dim;
  const float* cos_sin = args.cos_sin + row * args.rotated;
  uint16_t* queries = args.queries + row * args.heads * args.padded_dim;
  uint16_t* keys = args.keys[row];
  const int64_t head_stride = static_cast<int64_t>(kPage) * args.padded_dim;  // of pages
  for (int at = thread_id(); at < all_heads * args.padded_dim; at += kRowThreads) {
    const int head = at / args.padded_dim, i = at % args.padded_dim;
    const float* values = qkv + head * args.head_dim;
    const bool is_value = head >= args.heads + args.kv_heads;
    float value = 0;
    if (i < args.head_dim) value = is_value ? values[i] : rotated_value(values, cos_sin, i, args.rotated);
    if (head < args.heads) queries[at] = to_bf16(value * args.query_scale);
    else if (!is_value) keys[(head - args.heads) * head_stride + i] = to_bf16(value);
    else keys[args.value_offset + (head - args.heads - args.kv_heads) * head_stride + i] = to_bf16(value);
  }
}

// A block of threads takes a row.
KERNEL void finish_attention_kernel(FinishAttentionArgs args) {
  const int64_t row = args.row_begin + block_x();
  const float* sums = args.sums + row * args.heads * args.padded_dim;
  const float* state = args.state + row * args.heads * 2;
  uint16_t* out = args.out + row * args.out_stride;
  for (int i = thread_id(); i < args.out_stride; i += kRowThreads) {
    const int head = i / args.head_dim;
    out[i] = head < args.heads ? to_bf16(sums[head * args.padded_dim + i % args.head_dim] / state[head * 2 + 1])
                               : to_bf16(0);
  }
}

// A block of threads takes K or V of a head.
KERNEL void repack_kernel(RepackArgs args) {
  const bool is_value = block_x() >= args.kv_heads;
  const int64_t device_begin = static_cast<int64_t>(block_x()) * kPage * args.padded_dim;
  const int64_t host_begin = static_cast<int64_t>(block_x()) * kPage * args.host_dim;
  const int dim = args.to_host_form ? args.host_dim : args.padded_dim, half = args.head_dim / 2;
  for (int at = thread_id(); at < kPage * dim; at += kRowThreads) {
    const int token = at / dim, d = at % dim;
    int host_d = d, device_d = d;  // the same value in both forms
    if (!is_value && args.to_host_form) device_d = d < args.host_dim / 2 ? d : half + d - args.host_dim / 2;
    if (!is_value && !args.to_host_form) host_d = d < half ? d : args.host_dim / 2 + d - half;
    bool is_padding = device_d >= args.head_dim;
    if (!is_value && args.to_host_form) is_padding = d % (args.host_dim / 2) >= half;
    const int64_t host_at = host_begin + (is_value ? (token / 2 * args.host_dim + host_d) * 2 + token % 2
                                                   : (host_d / 2 * kPage + token) * 2 + host_d % 2);
    const int64_t device_at = device_begin + token * args.padded_dim + device_d;
    if (args.to_host_form) args.to[host_at] = is_padding ? to_bf16(0) : args.from[device_at];
    else args.to[device_at] = is_padding ? to_bf16(0) : args.from[host_at];
  }
}

// CRC32C by the polynomial of RFC 3720, bits reflected. A thread takes a contiguous part; parts are joined by moving the first
// one's remainder past the bytes behind it: a product of polynomials modulo the CRC's.
inline constexpr uint32_t kCrcPolynomial = 0x82f63b78u;
inline constexpr int kCrcThreads = 128;

DEVICE uint32_t crc_of_byte(uint32_t crc, uint8_t byte) {
  crc ^= byte;
  for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1u ? kCrcPolynomial : 0u);
  return crc;
}
DEVICE uint32_t crc_product(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = b >> 1 ^ (b & 1u ? kCrcPolynomial : 0u);
  }
  return product;
}
// x^(8 bytes) modulo the polynomial.
DEVICE uint32_t crc_shift(int64_t bytes) {
  uint32_t power = 0x00800000u, result = 0x80000000u;  // x^8 and 1
  for (; bytes > 0; bytes >>= 1) {
    if (bytes & 1) result = crc_product(result, power);
    power = crc_product(power, power);
  }
  return result;
}

KERNEL void checksum_pages_kernel(ChecksumArgs args) {
  SHARED(uint32_t, parts, kCrcThreads);
  const uint8_t* page = args.pages[block_x()];
  const int64_t part_bytes = (args.page_bytes + kCrcThreads - 1) / kCrcThreads;
  const int64_t begin = min_of(args.page_bytes, thread_id() * part_bytes),
                end = min_of(args.page_bytes, begin + part_bytes);
  uint32_t crc = thread_id() == 0 ? 0xffffffffu : 0u;
  for (int64_t at = begin; at < end; ++at) crc = crc_of_byte(crc, page[at]);
  parts[thread_id()] = crc_product(crc, crc_shift(args.page_bytes - end));
  BARRIER();
  if (thread_id() != 0) return;
  uint32_t all = 0;
  for (int part = 0; part < kCrcThreads; ++part) all ^= parts[part];
  args.out[block_x()] = ~all;
}

}  // namespace runahead::cuda
