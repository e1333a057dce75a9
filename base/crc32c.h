// CRC32C (Castagnoli, reflected polynomial 0x82F63B78) of KV pages: the SSE4.2 instruction where the CPU has it, 3-way
// interleaved, else a table. Measured in docs/benchmarks.md. TCP's own sum has 16 bits,
// and shared memory has none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace runahead {

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t seed = 0);
inline uint32_t crc32c(std::string_view bytes, uint32_t seed = 0) {
  return crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())), seed);
}

}  // namespace runahead
