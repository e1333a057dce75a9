// TokenMasks: which tokens may follow in an answer that keeps to a grammar. A token may follow if its bytes lead on to a text of
// the grammar, to the byte: a character that several tokens share, or a token that ends one value and begins the next, are as
// good as any. An end token may follow where the text is whole. Pure in what it answers: the same text gives the same mask on
// every worker, at every attempt, whatever was asked before.
//   threads  one at a time (the compute lane).
//   cost     a mask is made by one walk over the vocabulary's tree that turns back where the grammar does, and is kept: 0.05 to
//            1 ms the first time, nothing after that (docs/benchmarks.md).
//   memory   limits::kGrammarMaskBytes of masks; then those of all places are made anew.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "model/grammar/grammar_walk.h"

namespace runahead::grammar {

// The tokens of a vocabulary as a tree over their bytes. Immutable.
class TokenTree {
 public:
  // bytes[id]: what the token adds to an answer; a control token's are control_bytes(); empty: it may never be
  // chosen. end_tokens: any of them ends an answer.
  TokenTree(std::vector<std::string> bytes, std::vector<TokenId> end_tokens);

  std::span<const TokenId> end_tokens() const { return end_tokens_; }
  std::string_view bytes(TokenId token) const { return bytes_[static_cast<size_t>(token)]; }
  int32_t vocab_size() const { return static_cast<int32_t>(bytes_.size()); }

 private:
  friend class TokenMasks;
  // In preorder. Behind a node and all below it comes the one at `next`.
  struct TreeNode {
    uint8_t byte;
    int32_t depth;  // bytes above it
    int32_t next;
    int32_t tokens_begin, tokens_end;  // in tokens_: those that end here
  };

  std::vector<std::string> bytes_;
  std::vector<TokenId> end_tokens_;
  std::vector<TreeNode> nodes_;
  std::vector<TokenId> tokens_;
  int32_t depth_max_ = 0;
};

// A bit for each token, the lowest first. A model's output may be padded beyond its tokenizer's: what has no bit may not follow.
using TokenMask = std::vector<uint64_t>;

class TokenMasks {
 public:
  TokenMasks(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const TokenTree> tree);

  // Where one answer is: it goes on from what it has read before. Belongs to one answer and one TokenMasks.
  struct Reader {
    uint64_t memory = 0;  // of which the place is
    size_t tokens = 0;  // that were read
    GrammarWalk::Place place = GrammarWalk::kNowhere;
  };
  // For the token behind `generated`, all tokens of the answer so far; the reader has read some of them, or none. Valid until
  // the next call. kTooLarge if no token can follow, or the grammar is too ambiguous to say in time.
  Result<std::span<const uint64_t>> behind(std::span<const TokenId> generated, Reader& reader);

 private:
  GrammarWalk::Place read(std::span<const TokenId> generated, Reader& reader);
  Result<TokenMask> make(GrammarWalk::Place place);
  void forget();

  std::shared_ptr<const TokenTree> tree_;
  GrammarWalk walk_;
  uint64_t memory_ = 1;  // counts how often everything was forgotten
  std::unordered_map<GrammarWalk::Place, TokenMask> masks_;
};

}  // namespace runahead::grammar
