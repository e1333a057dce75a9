// sample: chooses the next token from logits. Pure: the same arguments give the same token on every machine, in every
// order, at every attempt; the only randomness is Philox keyed by (seed, position) (base/rng.h), so a retry after a
// crash continues exactly.
//   order    logit bias; repetition penalty (tokens of prompt and generated: a positive logit is divided, a negative
//            one multiplied); presence and frequency penalty (generated tokens); ban (min_tokens); mask; log-probabilities;
//            temperature; top-k; top-p; min-p; draw. Log-probabilities are thus those of the biased and penalised
//            distribution before temperature and filters, over the whole vocabulary.
//   greedy   temperature 0 takes the largest logit, the lowest id of equals; no draw, filters do not matter.
//   numbers  sums and exponentials in double, in a fixed order. NaN and -inf count as impossible; +inf as the largest
//            float. If every token is impossible, the lowest id is taken: the model is broken, but the process lives.
//   cost     greedy: two passes over the vocabulary. Sampling sorts only as many candidates as top-k or top-p keep.
//   threads  any; it holds no state. Source: OpenAI API (penalties), CTRL (repetition).
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "base/result.h"
#include "model/sampling_params.h"

namespace runahead {

// kInvalidArgument with the parameter's name, if a value is out of its range or a biased id is not in the vocabulary.
Result<void> validate(const SamplingParams& params, int32_t vocab_size);

// kInvalidModel if one is NaN or infinite: what is sampled from them would be no answer of the model.
Result<void> check_logits(std::span<const float> logits);

// How likely `token` was by the model alone, and the `top` most likely tokens: sample()'s log-probabilities of a request
// without bias, penalties and ban. kInvalidModel as check_logits().
Result<SampledToken> score(std::span<const float> logits, TokenId token, int32_t top);

// `logits` [vocab_size] is scratch: modified. `position` is that of the token to choose. `params` must be validated. `mask`: a
// bit for each token, the lowest first, that its grammar lets follow, none for what lies beyond; empty: all may.
SampledToken sample(std::span<float> logits, const SamplingParams& params, std::span<const TokenId> prompt,
                    std::span<const TokenId> generated, int32_t position, std::span<const uint64_t> mask = {});

}  // namespace runahead
