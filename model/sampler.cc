#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/check.h"
#include "base/limits.h"
#include "base/rng.h"

namespace runahead {

namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

struct Candidate {
  TokenId token;
  double weight;  // exp((logit - largest logit) / temperature): at most 1
};

// The most likely first, the lowest id of equals.
bool before(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

// A vocabulary is walked several times a token, by eight sequences in a step of a few milliseconds, so in vectors that every
// processor has: a scalar walk was 8 % of `bench/load.py --scenario eight` (perf, bd8f35f).
using Logits4 [[gnu::vector_size(16)]] = float;
constexpr size_t kLanes = sizeof(Logits4) / sizeof(float);
constexpr Logits4 filled(float x) { return Logits4{x, x, x, x}; }

size_t whole_vectors(std::span<const float> logits) { return logits.size() / kLanes * kLanes; }
Logits4 load4(const float* from) {
  Logits4 x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

void clean(std::span<float> logits) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  const size_t whole = whole_vectors(logits);
  float* const at = logits.data();
  for (size_t i = 0; i < whole; i += kLanes) {
    Logits4 x = load4(at + i);
    x = x <= filled(-kImpossible) ? x : filled(kImpossible);  // NaN is not
    x = x > filled(kLargest) ? filled(kLargest) : x;
    std::memcpy(at + i, &x, sizeof(x));
  }
  for (float& logit : logits.subspan(whole)) {
    if (std::isnan(logit)) logit = kImpossible;
    if (logit > kLargest) logit = kLargest;
  }
}

float largest_of(std::span<const float> logits) {
  constexpr size_t kChains = 4;  // a maximum waits for the one before
  Logits4 lanes[kChains] = {filled(kImpossible), filled(kImpossible), filled(kImpossible), filled(kImpossible)};
  const float* const at = logits.data();
  const size_t whole = logits.size() / (kLanes * kChains) * (kLanes * kChains);
  for (size_t i = 0; i < whole; i += kLanes * kChains)
    for (size_t chain = 0; chain < kChains; ++chain) {
      const Logits4 x = load4(at + i + chain * kLanes);
      lanes[chain] = x > lanes[chain] ? x : lanes[chain];
    }
  float largest = kImpossible;
  for (const Logits4& some : lanes)
    for (size_t lane = 0; lane < kLanes; ++lane) largest = std::max(largest, static_cast<float>(some[lane]));
  for (const float logit : logits.subspan(whole)) largest = std::max(largest, logit);
  return largest;
}

void apply_bias(std::span<float> logits, const SamplingParams& params) {
  for (const auto& [token, bias] : params.logit_bias) {
    RUNAHEAD_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size(), "validate() was not called");
    logits[token] += bias;
  }
}

void apply_ban(std::span<float> logits, const SamplingParams& params, int32_t position) {
  if (position >= params.banned_before) return;
  for (const TokenId token : params.banned) {
    RUNAHEAD_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size(), "validate() was not called");
    logits[token] = kImpossible;
  }
}

void apply_mask(std::span<float> logits, std::span<const uint64_t> mask) {
  if (mask.empty()) return;
  for (size_t token = 0; token < logits.size(); ++token) {
    const bool allowed = token / 64 < mask.size() && (mask[token / 64] >> (token % 64) & 1) != 0;
    if (!allowed) logits[token] = kImpossible;
  }
}

// Each token once, however often it occurs.
void apply_repetition(std::span<float> logits, float penalty, std::span<const TokenId> prompt,
                      std::span<const TokenId> generated) {
  if (penalty == 1.0f) return;
  std::unordered_set<TokenId> seen(prompt.begin(), prompt.end());
  seen.insert(generated.begin(), generated.end());
  for (const TokenId token : seen) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    float& logit = logits[token];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void apply_occurrence(std::span<float> logits, const SamplingParams& params, std::span<const TokenId> generated) {
  if (params.presence_penalty == 0.0f && params.frequency_penalty == 0.0f) return;
  std::unordered_map<TokenId, int32_t> counts;
  for (const TokenId token : generated) ++counts[token];
  for (const auto& [token, count] : counts) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    logits[token] -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
  }
}

// The first of the largest; no logit is NaN.
TokenId greedy(std::span<const float> logits) {
  constexpr size_t kPart = 1024;  // only the part with the largest is searched
  float largest = kImpossible;
  size_t begin = 0;
  for (size_t i = 0; i < logits.size(); i += kPart) {
    const float of_part = largest_of(logits.subspan(i, std::min(kPart, logits.size() - i)));
    if (of_part > largest) largest = of_part, begin = i;
  }
  return static_cast<TokenId>(std::ranges::find(logits.subspan(begin), largest) - logits.subspan(begin).begin() +
                              static_cast<ptrdiff_t>(begin));
}

// log(sum(exp(logit))), in double from the lowest id up.
double log_normalizer(std::span<const float> logits, float largest) {
  if (largest == kImpossible) return 0;
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

// The most likely first, the lowest id of equals. `count` is small, so nearly every token is passed after one comparison.
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, size_t count, double normalizer) {
  count = std::min(count, logits.size());
  std::vector<TokenLogprob> top;  // logprob: the logit, until the end
  if (count == 0) return top;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (top.size() == count && logits[i] <= top.back().logprob) continue;
    if (top.size() == count) top.pop_back();
    const auto behind = std::ranges::find_if(top, [&](const TokenLogprob& entry) { return entry.logprob < logits[i]; });
    top.insert(behind, {static_cast<TokenId>(i), logits[i]});
  }
  for (TokenLogprob& entry : top) entry.logprob = static_cast<float>(entry.logprob - normalizer);
  return top;
}

void sort_by_id(std::vector<Candidate>& candidates) {
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
}

// The filters take and leave candidates in ascending id, so that sums over them have one order.
void keep_top_k(std::vector<Candidate>& candidates, int32_t top_k) {
  if (top_k <= 0 || static_cast<size_t>(top_k) >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + top_k, candidates.end(), before);
  candidates.resize(top_k);
  sort_by_id(candidates);
}

// The fewest most likely tokens whose probabilities sum to top_p; the token that reaches it is in. Few tokens usually
// do, so ever longer prefixes are sorted.
void keep_top_p(std::vector<Candidate>& candidates, float top_p) {
  if (top_p >= 1.0f) return;
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double sum = 0;
  size_t kept = 0;
  for (size_t sorted = 0; kept < candidates.size() && sum < static_cast<double>(top_p) * total; ++kept) {
    if (kept == sorted) {
      const auto unsorted = candidates.begin() + sorted;
      sorted = std::min(candidates.size(), std::max<size_t>(64, sorted * 4));
      const auto end = candidates.begin() + sorted;
      if (end != candidates.end()) std::nth_element(unsorted, end, candidates.end(), before);
      std::sort(unsorted, end, before);
    }
    sum += candidates[kept].weight;
  }
  candidates.resize(kept);
  sort_by_id(candidates);
}

// Tokens at least min_p times as likely as the most likely one, whose weight is 1.
void keep_min_p(std::vector<Candidate>& candidates, float min_p) {
  if (min_p <= 0.0f) return;
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.weight < static_cast<double>(min_p); });
}

// Walks the cumulative distribution in ascending id.
TokenId draw(const std::vector<Candidate>& candidates, double uniform) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.weight;
  double left = uniform * total;
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.token;
  }
  return candidates.back().token;  // rounding left a rest
}

TokenId draw_token(std::span<const float> logits, const SamplingParams& params, float largest, int32_t position) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::exp((static_cast<double>(logits[i]) - largest) / params.temperature);
    if (weight > 0) candidates.push_back({static_cast<TokenId>(i), weight});
  }
  keep_top_k(candidates, params.top_k);
  keep_top_p(candidates, params.top_p);
  keep_min_p(candidates, params.min_p);
  return draw(candidates, philox_uniform(params.seed, static_cast<uint64_t>(position)));
}

Result<void> check_range(float value, float low, float high, const char* name) {
  if (value >= low && value <= high) return {};  // false for NaN
  return fail(ErrorCode::kInvalidArgument,
              std::string(name) + " must be between " + std::to_string(low) + " and " + std::to_string(high), name);
}

}  // namespace

Result<void> validate(const SamplingParams& params, int32_t vocab_size) {
  constexpr float kTemperatureMax = 100;  // beyond it every distribution is uniform
  constexpr float kBiasMax = 100;  // OpenAI's own bound: bans or forces a token
  TRY(check_range(params.temperature, 0, kTemperatureMax, "temperature"));
  TRY(check_range(params.min_p, 0, 1, "min_p"));
  TRY(check_range(params.presence_penalty, -2, 2, "presence_penalty"));
  TRY(check_range(params.frequency_penalty, -2, 2, "frequency_penalty"));
  const auto invalid = [](const char* name, const std::string& rule) {
    return fail(ErrorCode::kInvalidArgument, std::string(name) + " must be " + rule, name);
  };
  if (!(params.top_p > 0 && params.top_p <= 1)) return invalid("top_p", "over 0 and at most 1");
  if (!(params.repetition_penalty > 0 && params.repetition_penalty <= 2)) {
    return invalid("repetition_penalty", "over 0 and at most 2");
  }
  if (params.top_k < 0) return invalid("top_k", "0 (off) or a positive number of tokens");
  if (params.top_logprobs < -1 || params.top_logprobs > limits::kTopLogprobsMax) {
    return invalid("top_logprobs", "between 0 and " + std::to_string(limits::kTopLogprobsMax));
  }
  if (params.banned.size() > limits::kBannedTokensMax) return invalid("banned", "shorter");
  if (params.grammar.size() > limits::kGrammarBytesMax) return invalid("grammar", "shorter");
  for (const TokenId token : params.banned)
    if (token < 0 || token >= vocab_size) return invalid("banned", "of ids below " + std::to_string(vocab_size));
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return invalid("logit_bias", "given for ids below " + std::to_string(vocab_size));
    }
    TRY(check_range(bias, -kBiasMax, kBiasMax, "logit_bias"));
  }
  return {};
}

Result<void> check_logits(std::span<const float> logits) {
  const size_t whole = whole_vectors(logits);
  Logits4 zeros{};  // times zero is zero, but for NaN and infinity, and NaN stays
  for (size_t i = 0; i < whole; i += kLanes) {
    zeros += load4(logits.data() + i) * filled(0);
  }
  bool finite = std::ranges::all_of(logits.subspan(whole), [](float logit) { return std::isfinite(logit); });
  for (size_t lane = 0; lane < kLanes; ++lane) finite = finite && zeros[lane] == 0;
  if (finite) return {};
  return fail(ErrorCode::kInvalidModel,
              "the model's numbers overflow for this text: its weights are damaged, or too large; check the "
              "file");
}

Result<SampledToken> score(std::span<const float> logits, TokenId token, int32_t top) {
  TRY(check_logits(logits));
  RUNAHEAD_CHECK(token >= 0 && static_cast<size_t>(token) < logits.size(), "a token of the vocabulary");
  const double normalizer = log_normalizer(logits, largest_of(logits));
  return SampledToken{.token = token,
                      .logprob = static_cast<float>(logits[token] - normalizer),
                      .top = top_logprobs(logits, static_cast<size_t>(top), normalizer)};
}

SampledToken sample(std::span<float> logits, const SamplingParams& params, std::span<const TokenId> prompt,
                    std::span<const TokenId> generated, int32_t position, std::span<const uint64_t> mask) {
  RUNAHEAD_CHECK(!logits.empty(), "a model has a vocabulary");
  clean(logits);
  apply_bias(logits, params);
  apply_repetition(logits, params.repetition_penalty, prompt, generated);
  apply_occurrence(logits, params, generated);
  apply_ban(logits, params, position);
  apply_mask(logits, mask);
  clean(logits);
  const TokenId best = greedy(logits);
  const float largest = logits[best];
  SampledToken result;
  const bool draws = params.temperature > 0 && largest != kImpossible;
  result.token = draws ? draw_token(logits, params, largest, position) : best;
  if (params.top_logprobs < 0) return result;
  const double normalizer = log_normalizer(logits, largest);
  result.logprob = static_cast<float>(logits[result.token] - normalizer);
  result.top = top_logprobs(logits, static_cast<size_t>(params.top_logprobs), normalizer);
  return result;
}

}  // namespace runahead
