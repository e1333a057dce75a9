// BytePairs: joins the bytes of a piece of text into tokens by a model's merges, lowest rank first, leftmost first
// among equals, in O(n log n). Private to model/tokenizer.
//   threads  const after load; one Work a thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace runahead {

// Byte-level BPE spells every byte as a printable character. The text of a token or of half a merge -> its bytes; false
// if it holds another character.
bool bytes_from_stand_ins(std::string_view text, std::string& bytes);

class BytePairs {
 public:
  // tokens: bytes -> id, ids below vocab_size. merges: "left right" in stand-ins, in order of rank.
  static Result<BytePairs> load(const std::unordered_map<std::string, TokenId>& tokens, int32_t vocab_size,
                                const std::vector<std::string_view>& merges);

  // Reused from piece to piece, so that nothing is allocated for each.
  class Work {
    friend class BytePairs;
    struct Node {
      int32_t symbol;
      uint32_t begin;  // offset in the piece
      uint32_t previous, next;  // indices of the neighbours
      uint32_t rank;  // of the merge with the right neighbour
      int32_t merged;  // what that merge makes
    };
    std::vector<Node> nodes;
    std::vector<uint64_t> heap;  // rank << 32 | index of the left node; stale if that node's rank has changed
  };

  // Appends the tokens of `piece`, and to `missing` the offsets of its bytes that the vocabulary has no token for.
  void encode(std::string_view piece, Work& work, std::vector<TokenId>& out, std::vector<size_t>& missing) const;

 private:
  struct Merge {
    uint32_t rank;
    int32_t symbol;  // what left and right become
  };
  struct PairHash {
    size_t operator()(uint64_t pair) const { return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15ull >> 16; }
  };

  // Looks up the merge of a node with its right neighbour, and adds it to the heap's end.
  bool add_candidate(Work& work, uint32_t left) const;
  void merge_all(Work& work) const;

  // A symbol is a token, or (from vocab_size on) a string that merges pass through and that is no token.
  int32_t vocab_size_ = 0;
  int32_t byte_symbols_[256] = {};
  std::vector<TokenId> byte_tokens_;  // [256], kNoToken where the vocabulary has none
  std::unordered_map<uint64_t, Merge, PairHash> merges_;  // left symbol << 32 | right symbol
};

}  // namespace runahead
