// SamplingParams: how a token is chosen from logits. Validated at the border (services/gateway), used by model/sampler.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.h"

namespace runahead {

struct SamplingParams {
  float temperature = 1.0f;  // 0: exact greedy, the lowest id wins a tie
  int32_t top_k = 0;  // 0: off
  float top_p = 1.0f;  // 1: off
  float min_p = 0.0f;  // 0: off
  float presence_penalty = 0.0f;  // [-2, 2], over generated tokens
  float frequency_penalty = 0.0f;  // [-2, 2], over generated tokens
  float repetition_penalty = 1.0f;  // (0, 2], over prompt and generated tokens
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> banned = {};  // tokens that are never chosen ...
  int32_t banned_before = 0;  // ... for positions below this one: min_tokens, whatever a retry has kept
  std::string grammar = {};  // what the answer must be (model/grammar/grammar.h); empty: anything
  uint64_t seed = 0;  // key of the counter-based generator; the counter is the token's position
  int32_t top_logprobs = -1;  // -1: none; n: the chosen token's log-probability and the n most likely ones
};

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // natural logarithm, of the distribution before temperature and filters
  bool operator==(const TokenLogprob&) const = default;
};

struct SampledToken {
  TokenId token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // most likely first; empty unless asked for
  bool operator==(const SampledToken&) const = default;
};

}  // namespace runahead
