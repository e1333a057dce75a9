// Integers in the byte order of the wire (little-endian), at any alignment. The caller has checked the bounds.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>

#include "base/ids.h"

namespace runahead {

static_assert(std::endian::native == std::endian::little, "pages travel in the machine's own byte order");

template <std::unsigned_integral T>
T load_le(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <std::unsigned_integral T>
void store_le(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// 16 bytes.
inline StreamToken load_token(const std::byte* from) { return {load_le<uint64_t>(from), load_le<uint64_t>(from + 8)}; }
inline void store_token(std::byte* to, StreamToken token) {
  store_le<uint64_t>(to, token.high);
  store_le<uint64_t>(to + 8, token.low);
}

}  // namespace runahead
