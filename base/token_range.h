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

// The first page that a token sees something of, if it sees `window` tokens, its own included; 0: it sees all.
constexpr int32_t first_page_in_reach(int32_t position, int32_t window) {
  return window > 0 && position >= window ? (position - window + 1) / kPageTokens : 0;
}

constexpr int32_t pages_for(int32_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

}  // namespace runahead
