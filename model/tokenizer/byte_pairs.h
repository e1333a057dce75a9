// BytePairs: joins the bytes of a piece of text into tokens by a model's merges, lowest rank first, leftmost first
// among equals, in O(n log n). Private to model/tokenizer.
//   threads  const after load.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/tokenizer/pair_merging.h"

namespace runahead {

// Byte-level BPE spells every byte as a printable character. The text of a token or of half a merge -> its bytes; false
// if it holds another character.
bool bytes_from_stand_ins(std::string_view text, std::string& bytes);

class BytePairs {
 public:
  // tokens: bytes -> id, ids below vocab_size. merges: "left right" in stand-ins, in order of rank.
  static Result<BytePairs> load(const std::unordered_map<std::string, TokenId>& tokens, int32_t vocab_size,
                                const std::vector<std::string_view>& merges);

  // Appends the tokens of `piece`, and to `missing` the offsets of its bytes that the vocabulary has no token for.
  void encode(std::string_view piece, PairMerging& merging, std::vector<TokenId>& out,
              std::vector<size_t>& missing) const;

 private:
  struct PairHash {
    size_t operator()(uint64_t pair) const { return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15ull >> 16; }
  };

  // A symbol is a token, or (from vocab_size on) a string that merges pass through and that is no token.
  int32_t vocab_size_ = 0;
  int32_t byte_symbols_[256] = {};
  std::vector<TokenId> byte_tokens_;  // [256], kNoToken where the vocabulary has none
  std::unordered_map<uint64_t, PairMerging::Merge, PairHash> merges_;  // left symbol << 32 | right symbol
};

}  // namespace runahead
