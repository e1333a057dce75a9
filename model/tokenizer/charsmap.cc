#include "model/tokenizer/charsmap.h"

#include <algorithm>
#include <cstring>

namespace runahead {
namespace {

// How a unit of the double array is packed.
uint32_t children_of(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
uint32_t label_of(uint32_t unit) { return unit & (1u << 31 | 0xFF); }  // with bit 31: of a value, equal to no byte
bool has_value(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t value_of(uint32_t unit) { return unit & ~(1u << 31); }

}  // namespace

Result<CharsMap> CharsMap::load(std::span<const std::byte> blob) {
  const auto bad = [] {
    return fail(ErrorCode::kInvalidModel,
                "tokenizer.ggml.precompiled_charsmap, the tokenizer's rules of normalising, is cut short; convert the "
                "model again",
                "tokenizer.ggml.precompiled_charsmap");
  };
  CharsMap map;
  uint32_t trie_bytes = 0;
  if (blob.size() < sizeof(trie_bytes)) return bad();
  std::memcpy(&trie_bytes, blob.data(), sizeof(trie_bytes));
  blob = blob.subspan(sizeof(trie_bytes));
  if (trie_bytes >= blob.size() || trie_bytes % sizeof(uint32_t) != 0 || blob.back() != std::byte{0}) return bad();
  map.units_.resize(trie_bytes / sizeof(uint32_t));
  if (trie_bytes > 0) std::memcpy(map.units_.data(), blob.data(), trie_bytes);
  blob = blob.subspan(trie_bytes);
  map.right_sides_.assign(reinterpret_cast<const char*>(blob.data()), blob.size());
  return map;
}

CharsMap::Match CharsMap::find(std::string_view text, bool first) const {
  Match best;
  if (units_.empty()) return best;
  uint32_t at = children_of(units_[0]);
  for (size_t i = 0; i < std::min(text.size(), kRuleBytesMax); ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    at ^= byte;
    if (byte == 0 || at >= units_.size() || label_of(units_[at]) != byte) break;
    const uint32_t unit = units_[at];
    at ^= children_of(unit);
    if (!has_value(unit)) continue;
    if (at >= units_.size() || value_of(units_[at]) >= right_sides_.size()) break;
    best = {i + 1, right_sides_.data() + value_of(units_[at])};  // load saw that a zero byte follows
    if (first) break;
  }
  return best;
}

}  // namespace runahead
