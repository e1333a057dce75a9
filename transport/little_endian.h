// Integers in the byte order of the wire (little-endian), at any alignment. The caller has checked the bounds.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>

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

}  // namespace runahead
