#include "base/crc32c.h"

#include <array>
#include <cstring>

namespace runahead {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ kPolynomial : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr auto kTable = make_table();

uint32_t update_portable(uint32_t crc, const std::byte* data, size_t size) {
  for (size_t i = 0; i < size; ++i) crc = kTable[(crc ^ static_cast<uint32_t>(data[i])) & 0xff] ^ (crc >> 8);
  return crc;
}

#if defined(__x86_64__)
// a * b modulo the polynomial, both reflected: moves a CRC past the zero bytes that b stands for.
uint32_t multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t mask = 1u << 31; mask != 0; mask >>= 1) {
    if (a & mask) product ^= b;
    b = (b & 1) ? (b >> 1) ^ kPolynomial : b >> 1;
  }
  return product;
}

// x^(8 * bytes) modulo the polynomial.
uint32_t shift_operator(size_t bytes) {
  uint32_t result = 1u << 31;   // x^0
  uint32_t square = 1u << 23;   // x^8
  for (size_t n = bytes; n != 0; n >>= 1, square = multiply(square, square))
    if (n & 1) result = multiply(result, square);
  return result;
}

constexpr size_t kLane =
    1024;  // bytes a stream: the instruction has latency 3 and throughput 1, so three streams run at once

__attribute__((target("sse4.2"))) uint32_t update_sse42(uint32_t crc, const std::byte* data, size_t size) {
  static const uint32_t past_one = shift_operator(kLane), past_two = shift_operator(2 * kLane);
  const auto word = [](const std::byte* p) {
    uint64_t w;
    std::memcpy(&w, p, sizeof w);
    return w;
  };
  uint64_t c = crc;
  for (; size >= 3 * kLane; data += 3 * kLane, size -= 3 * kLane) {
    uint64_t c1 = 0, c2 = 0;
    for (size_t i = 0; i < kLane; i += 8) {
      c = __builtin_ia32_crc32di(c, word(data + i));
      c1 = __builtin_ia32_crc32di(c1, word(data + kLane + i));
      c2 = __builtin_ia32_crc32di(c2, word(data + 2 * kLane + i));
    }
    c = multiply(static_cast<uint32_t>(c), past_two) ^ multiply(static_cast<uint32_t>(c1), past_one) ^ c2;
  }
  for (; size >= 8; data += 8, size -= 8) c = __builtin_ia32_crc32di(c, word(data));
  crc = static_cast<uint32_t>(c);
  for (; size > 0; ++data, --size) crc = __builtin_ia32_crc32qi(crc, static_cast<unsigned char>(*data));
  return crc;
}
#endif

}  // namespace

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed) {
  const uint32_t crc = ~seed;
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return ~update_sse42(crc, bytes.data(), bytes.size());
#endif
  return ~update_portable(crc, bytes.data(), bytes.size());
}

}  // namespace runahead
