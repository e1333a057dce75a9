// One worker's prefill of a whole prompt in this process: what `runahead logits`, `perplexity` and `bench prefill` run.
//   threads  the caller's; the engine's rules hold (one call at a time).
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "model/transformer/transformer.h"

namespace runahead {

// The pages of `sequences` sequences of `tokens` tokens each, for one engine.
class SequenceCache {
 public:
  SequenceCache(Engine& engine, int32_t tokens, int32_t sequences = 1);
  // Pages for `tokens` tokens; kOverloaded if the cache is full.
  Result<std::shared_ptr<KvLease>> lease(int32_t tokens);

 private:
  int32_t num_layers_;
  std::unique_ptr<KvPool> pool_;
};

// All layers over the whole prompt, positions from 0, every row kept. Tokens must be in the vocabulary.
std::unique_ptr<Hidden> run_layers(Engine& engine, KvLease& kv, std::span<const TokenId> tokens);
// The same with the last layer for the last token only; returns its logits [vocab_size]. This is the prefill that
// serves.
std::vector<float> prefill(Engine& engine, KvLease& kv, std::span<const TokenId> tokens);

// kInvalidArgument, naming the first one that is outside the vocabulary, or an empty list; kContextOverflow if too
// long.
Result<void> check_tokens(const Engine& engine, std::span<const TokenId> tokens);

}  // namespace runahead
