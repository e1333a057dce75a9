// Weights of GGUF's formats, one at a time: kernels/quant_blocks.cc says what a block means; tests compare the two bit by bit.
// Loads happen once, so simple beats fast.
#pragma once

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.h"

namespace runahead::cuda {

DEVICE float half_at(const uint8_t* at) { return from_half(static_cast<uint16_t>(at[0] | at[1] << 8)); }

DEVICE int signed_byte(uint8_t byte) { return (byte ^ 0x80) - 0x80; }

// Bit i of a little-endian word of 32.
DEVICE int bit_at(const uint8_t* word, int i) { return word[i / 8] >> (i % 8) & 1; }

// Bytes of 4-bit formats hold weight i in the low and weight i + 16 in the high half.
DEVICE int nibble_of(const uint8_t* codes, int i) { return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4; }

// Q2_K and Q3_K: weight w = 128 h + 32 s + j lies in byte 32 h + j at bit 2 s.
DEVICE int two_bits_of(const uint8_t* codes, int w) { return codes[w / 128 * 32 + w % 32] >> (w % 128 / 32 * 2) & 3; }

// -127 -104 -83 -65 -49 -35 -22 -10, then 1 13 25 38 53 69 89 113: a table in an array would be in slow memory.
DEVICE float level_of_iq4(int code) {
  const uint64_t levels = code < 8 ? 0xf6eaddcfbfad9881u : 0x7159453526190d01u;
  return static_cast<float>(signed_byte(static_cast<uint8_t>(levels >> (code % 8 * 8))));
}

DEVICE float weight_q2_k(const uint8_t* block, int w) {
  const int scales = block[w / 16];
  const float scaled =
      half_at(block + 80) * static_cast<float>(scales & 15) * static_cast<float>(two_bits_of(block + 16, w));
  return scaled + -half_at(block + 82) * static_cast<float>(scales >> 4);
}

DEVICE float weight_q3_k(const uint8_t* block, int w) {
  const int g = w / 16;
  const uint8_t* scales = block + 96;
  const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
  const int scale = (low | (scales[8 + g % 4] >> (2 * (g / 4)) & 3) << 4) - 32;
  const int code = two_bits_of(block + 32, w) | (block[w % 32] >> (w / 32) & 1) << 2;
  return half_at(block + 108) * static_cast<float>(scale) * static_cast<float>(code - 4);
}

// Q4_K and Q5_K: 8 scales and 8 minima of 6 bits in 12 bytes; the last four of each are split over two bytes.
DEVICE float weight_q45_k(const uint8_t* block, int w, int code) {
  const uint8_t* packed = block + 4;
  const int g = w / 32;
  const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4;
  const int minimum = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | (packed[g] >> 6) << 4;
  const float scaled = half_at(block) * static_cast<float>(scale) * static_cast<float>(code);
  return scaled + -half_at(block + 2) * static_cast<float>(minimum);
}

DEVICE float weight_q4_k(const uint8_t* block, int w) {
  return weight_q45_k(block, w, block[16 + w / 64 * 32 + w % 32] >> (w / 32 % 2 * 4) & 15);
}

DEVICE float weight_q5_k(const uint8_t* block, int w) {
  const int low = block[48 + w / 64 * 32 + w % 32] >> (w / 32 % 2 * 4) & 15;
  return weight_q45_k(block, w, low | (block[16 + w % 32] >> (w / 32) & 1) << 4);
}

DEVICE float weight_q6_k(const uint8_t* block, int w) {
  const int h = w / 128, r = w % 128;
  const int low = block[64 * h + r % 64] >> (r / 64 * 4) & 15, high = block[128 + 32 * h + r % 32] >> (r / 32 * 2) & 3;
  const int scale = signed_byte(block[192 + w / 16]);
  return half_at(block + 208) * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
}

DEVICE float weight_iq4_xs(const uint8_t* block, int w) {
  const int g = w / 32;
  const int high = (block[2] | block[3] << 8) >> (2 * g) & 3;
  const int scale = ((block[4 + g / 2] >> (g % 2 * 4) & 15) | high << 4) - 32;
  return half_at(block) * static_cast<float>(scale) * level_of_iq4(nibble_of(block + 8 + g * 16, w % 32));
}

// 2^(byte - 128) times 0 1 2 3 4 6 8 12, the upper eight negative. The scale as 2^8 times another: 2^-128 is no normal float.
DEVICE float weight_mxfp4(const uint8_t* block, int i) {
  const int code = nibble_of(block + 1, i), level = static_cast<int>(0xc8643210u >> (code % 8 * 4) & 15);
  const float signed_level = static_cast<float>(code < 8 ? level : -level);
  const float scale = float_of(static_cast<uint32_t>(block[0] < 8 ? block[0] + 7 : block[0] - 1) << 23);
  return block[0] < 8 ? signed_level * scale * 0x1p-8f : signed_level * scale;
}

// Weight i of a block. type: QuantType's number.
DEVICE float weight_of(uint32_t type, const uint8_t* block, int i) {
  switch (type) {
    case 0:  // F32
      return float_of(static_cast<uint32_t>(block[0]) | static_cast<uint32_t>(block[1]) << 8 |
                      static_cast<uint32_t>(block[2]) << 16 | static_cast<uint32_t>(block[3]) << 24);
    case 1:  // F16
      return half_at(block);
    case 30:  // BF16
      return from_bf16(static_cast<uint16_t>(block[0] | block[1] << 8));
    case 2:  // Q4_0
      return half_at(block) * static_cast<float>(nibble_of(block + 2, i) - 8);
    case 3:  // Q4_1
      return half_at(block) * static_cast<float>(nibble_of(block + 4, i)) + half_at(block + 2);
    case 6:  // Q5_0
      return half_at(block) * static_cast<float>((nibble_of(block + 6, i) | bit_at(block + 2, i) << 4) - 16);
    case 7:  // Q5_1
      return half_at(block) * static_cast<float>(nibble_of(block + 8, i) | bit_at(block + 4, i) << 4) +
             half_at(block + 2);
    case 8:  // Q8_0
      return half_at(block) * static_cast<float>(signed_byte(block[2 + i]));
    case 10:
      return weight_q2_k(block, i);
    case 11:
      return weight_q3_k(block, i);
    case 12:
      return weight_q4_k(block, i);
    case 13:
      return weight_q5_k(block, i);
    case 14:
      return weight_q6_k(block, i);
    case 20:  // IQ4_NL
      return half_at(block) * level_of_iq4(nibble_of(block + 2, i));
    case 23:
      return weight_iq4_xs(block, i);
    case 39:
      return weight_mxfp4(block, i);
    default:
      return float_of(0x7fc00000u);  // the host has refused the file
  }
}

inline constexpr int kDequantizeThreads = 256;

// A block of threads takes the columns of one row.
KERNEL void dequantize_kernel(DequantizeArgs args) {
  const int64_t row = block_x();
  const uint8_t* blocks = args.blocks + row * (args.cols / args.block_len) * args.block_bytes;
  for (int64_t col = thread_id(); col < args.out_stride; col += block_threads()) {
    float weight = 0;
    if (col < args.cols)
      weight = weight_of(args.type, blocks + col / args.block_len * args.block_bytes,
                         static_cast<int>(col % args.block_len));
    args.out[row * args.out_stride + col] = to_bf16(weight);
  }
}

KERNEL void embed_kernel(EmbedArgs args) {
  const int64_t row = block_x(), token = args.tokens[row];
  const uint8_t* blocks = args.table + token * (args.cols / args.block_len) * args.block_bytes;
  for (int64_t col = thread_id(); col < args.cols; col += block_threads())
    args.out[row * args.cols + col] =
        weight_of(args.type, blocks + col / args.block_len * args.block_bytes, static_cast<int>(col % args.block_len));
}

}  // namespace runahead::cuda
