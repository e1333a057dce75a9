// TokenRange: tokens [begin, end) of a context. A chunk, a prefix, what a rank can see: all are ranges.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>

namespace runahead {

inline constexpr int32_t kPageTokens = 64;  // tokens a page: the attention tile, the unit of cache and of the wire

struct TokenRange {
  int32_t begin = 0;
  int32_t end = 0;

  constexpr int32_t size() const { return end - begin; }
  constexpr bool empty() const { return end <= begin; }
  // Pages that hold the range; begin must be a multiple of kPageTokens, the last page may be partly filled.
  constexpr int32_t first_page() const { return begin / kPageTokens; }
  constexpr int32_t end_page() const { return (end + kPageTokens - 1) / kPageTokens; }
  auto operator<=>(const TokenRange&) const = default;
};

constexpr int32_t pages_for(int32_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace runahead
