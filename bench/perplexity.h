// Perplexity by llama.cpp's rule: the text's tokens are cut into whole chunks of `ctx`; each chunk runs from an empty
// cache, without BOS; the tokens after the middle of a chunk are scored. Also how well one mode agrees with another.
#pragma once

#include <span>
#include <vector>

#include "model/transformer/transformer.h"

namespace runahead {

struct Perplexity {
  double perplexity = 0;  // exp of the mean negative log-probability
  int64_t tokens_scored = 0;
};

// kInvalidArgument if the text has fewer than `ctx` tokens or ctx is below 4; kContextOverflow if ctx is too long;
// kInvalidModel if logits overflow.
Result<Perplexity> perplexity(Transformer& engine, std::span<const TokenId> tokens, int32_t ctx);

// What the quality gate of a mode needs: the same chunks through the engine and a base.
struct Agreement {
  double perplexity_ratio = 0;  // of the engine to the base
  double same_top = 0;          // share of scored positions with the same most likely token
  double mean_kl = 0;           // Kullback-Leibler divergence from the base, nats
  int64_t tokens_scored = 0;
};
// Of each engine.
Result<std::vector<Agreement>> compare_engines(Transformer& base, std::span<Transformer* const> engines,
                                               std::span<const TokenId> tokens, int32_t ctx);

}  // namespace runahead
