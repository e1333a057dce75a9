#include "model/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "base/rng.h"
#include "tests/support/naive_score.h"

namespace runahead {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(int size, uint64_t seed, float spread) {
  std::vector<float> logits(size);
  for (int i = 0; i < size; ++i) logits[i] = static_cast<float>((philox_uniform(seed, i) - 0.5) * spread);
  return logits;
}

SampledToken sample_copy(std::vector<float> logits, const SamplingParams& params, int32_t position,
                         const std::vector<TokenId>& prompt = {}, const std::vector<TokenId>& generated = {}) {
  return sample(logits, params, prompt, generated, position);
}

// The naive oracle: full sorts, plain probabilities, filters one after the other. [vocab]
std::vector<double> exact_distribution(const std::vector<float>& logits, const SamplingParams& params) {
  const size_t size = logits.size();
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> p(size);
  for (size_t i = 0; i < size; ++i) p[i] = std::exp((logits[i] - largest) / params.temperature);
  std::vector<size_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  const auto normalize = [&] {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
  };
  for (size_t i = 0; params.top_k > 0 && i < size; ++i) {
    if (i >= static_cast<size_t>(params.top_k)) p[order[i]] = 0;
  }
  normalize();
  double sum = 0;
  for (const size_t i : order) {
    if (params.top_p < 1 && sum >= params.top_p) p[i] = 0;
    sum += p[i];
  }
  normalize();
  const double best = *std::max_element(p.begin(), p.end());
  for (double& x : p) x = x < params.min_p * best ? 0 : x;
  normalize();
  return p;
}

// Pearson's statistic of `draws` samples at different positions against the exact probabilities. Tokens expected under
// five times count as one cell. Returns statistic and degrees of freedom; a token of probability 0 fails at once.
std::pair<double, int> chi_square(const std::vector<float>& logits, const SamplingParams& params, int draws) {
  const std::vector<double> p = exact_distribution(logits, params);
  std::vector<int> seen(p.size());
  for (int i = 0; i < draws; ++i) ++seen[sample_copy(logits, params, i).token];
  double statistic = 0, rare_expected = 0;
  int cells = 0, rare_seen = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0) EXPECT_EQ(seen[i], 0) << "token " << i << " was filtered out";
    const double expected = p[i] * draws;
    if (expected < 5) {
      rare_expected += expected;
      rare_seen += seen[i];
      continue;
    }
    statistic += (seen[i] - expected) * (seen[i] - expected) / expected;
    ++cells;
  }
  if (rare_expected > 0) {
    statistic += (rare_seen - rare_expected) * (rare_seen - rare_expected) / std::max(rare_expected, 1.0);
    ++cells;
  }
  return {statistic, cells - 1};
}

// Mean k and variance 2k: five standard deviations are passed by chance once in some ten thousand seeds.
void expect_distribution(const std::vector<float>& logits, const SamplingParams& params) {
  const auto [statistic, freedom] = chi_square(logits, params, 20000);
  EXPECT_LT(statistic, freedom + 5 * std::sqrt(2.0 * std::max(freedom, 1))) << freedom << " degrees of freedom";
}

TEST(Sampler, DrawsFollowTheExactProbabilities) {
  for (const float temperature : {0.3f, 1.0f, 2.0f}) {
    SamplingParams params;
    params.temperature = temperature;
    params.seed = 7;
    expect_distribution(random_logits(40, 1, 8), params);
  }
}

TEST(Sampler, FiltersKeepWhatANaiveOracleKeeps) {
  for (uint64_t trial = 0; trial < 12; ++trial) {
    SamplingParams params;
    params.seed = 100 + trial;
    params.temperature = trial % 2 ? 0.7f : 1.3f;
    if (trial % 3 == 0) params.top_k = 1 + static_cast<int32_t>(trial);
    if (trial % 4 != 1) params.top_p = 0.5f + 0.04f * static_cast<float>(trial);
    if (trial % 5 == 2) params.min_p = 0.1f;
    expect_distribution(random_logits(200, trial, 10), params);
  }
}

TEST(Sampler, TopPOfOneTokenAndTopKOfOneAreGreedy) {
  const std::vector<float> logits = random_logits(1000, 3, 4);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  SamplingParams narrow_p;
  narrow_p.top_p = 1e-6f;
  SamplingParams narrow_k;
  narrow_k.top_k = 1;
  SamplingParams full_min_p;
  full_min_p.min_p = 1.0f;
  for (int position = 0; position < 50; ++position) {
    EXPECT_EQ(sample_copy(logits, narrow_p, position).token, best);
    EXPECT_EQ(sample_copy(logits, narrow_k, position).token, best);
    EXPECT_EQ(sample_copy(logits, full_min_p, position).token, best);
  }
}

TEST(Sampler, AScoreIsWhatTheNaiveOracleSaysAndWhatASampledTokenCarries) {
  for (uint64_t trial = 0; trial < 20; ++trial) {
    std::vector<float> logits = random_logits(300, trial, 30);
    for (size_t i = 0; i < logits.size(); i += 7) logits[i] = logits[0];  // equals
    SamplingParams params;
    params.seed = trial;
    params.top_logprobs = static_cast<int32_t>(trial);
    const SampledToken sampled = sample_copy(logits, params, 0);
    EXPECT_EQ(score(logits, sampled.token, params.top_logprobs).value(), sampled);
    for (const TokenId token : {0, 7, 12, 299})
      EXPECT_EQ(score(logits, token, params.top_logprobs).value(),
                test::naive_score(logits, token, params.top_logprobs));
  }
  EXPECT_EQ(score(std::vector<float>{1, 2}, 1, 20)->top.size(), 2u) << "no more than there are";
  for (const float bad : {kInf, -kInf, std::nanf("")})
    EXPECT_EQ(score(std::vector<float>{1, bad, 2}, 0, 1).error().code, ErrorCode::kInvalidModel);
}

TEST(Sampler, GreedyTakesTheLowestIdOfEquals) {
  SamplingParams params;
  params.temperature = 0;
  EXPECT_EQ(sample_copy({1, 3, 2, 3, 3}, params, 0).token, 1);
  EXPECT_EQ(sample_copy({-kInf, std::nanf(""), -5, -5}, params, 0).token, 2);
  EXPECT_EQ(sample_copy({1, kInf, 2, kInf}, params, 0).token, 1);
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargestWhereverItStands) {
  for (const int size : {1, 2, 3, 4, 5, 15, 16, 17, 1023, 1024, 1025, 2048, 2051, 3000}) {
    for (int round = 0; round < 40; ++round) {
      std::vector<float> logits = random_logits(size, static_cast<uint64_t>(size) * 100 + round, 8);
      for (float& logit : logits) logit = std::round(logit);  // equals everywhere
      if (round % 4 == 1) logits[round * 77 % size] = kInf, logits[round * 31 % size] = kInf;
      if (round % 4 == 2) logits[round * 77 % size] = std::numeric_limits<float>::quiet_NaN();
      if (round % 4 == 3) std::ranges::fill(logits, -kInf);
      int expected = 0;
      for (int i = 0; i < size; ++i)
        if (logits[i] > logits[expected] || std::isnan(logits[expected])) expected = i;
      if (std::isnan(logits[expected])) expected = 0;
      EXPECT_EQ(sample_copy(logits, {.temperature = 0}, 0).token, expected) << size << " " << round;
    }
  }
}

TEST(Sampler, AnOverflowIsFoundWhereverItStands) {
  std::vector<float> logits = random_logits(1029, 7, 8);
  EXPECT_TRUE(check_logits(logits));
  for (size_t i = 0; i < logits.size(); ++i) {
    const float kept = logits[i];
    for (const float broken : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
      logits[i] = broken;
      EXPECT_FALSE(check_logits(logits)) << i << " " << broken;
    }
    logits[i] = i % 2 == 0 ? std::numeric_limits<float>::max() : std::numeric_limits<float>::denorm_min();
    EXPECT_TRUE(check_logits(logits)) << i;
    logits[i] = kept;
  }
}

TEST(Sampler, ImpossibleLogitsAreNeverDrawnAndNeverCrash) {
  SamplingParams params;
  params.top_logprobs = 4;
  for (int position = 0; position < 100; ++position) {
    const SampledToken token = sample_copy({std::nanf(""), 1, -kInf, 1}, params, position);
    EXPECT_TRUE(token.token == 1 || token.token == 3);
    EXPECT_NEAR(token.logprob, std::log(0.5), 1e-6);
  }
  EXPECT_EQ(sample_copy({std::nanf(""), -kInf}, params, 0).token, 0);
  EXPECT_EQ(sample_copy({kInf, 0, kInf}, params, 1).token % 2, 0);
}

TEST(Sampler, TheSameSeedAndPositionDrawTheSameTokenInAnyOrder) {
  const std::vector<float> logits = random_logits(5000, 5, 3);
  SamplingParams params;
  params.seed = 42;
  params.top_p = 0.9f;
  std::map<int, TokenId> forward;
  for (int position = 0; position < 200; ++position) forward[position] = sample_copy(logits, params, position).token;
  for (int position = 199; position >= 0; --position) {
    EXPECT_EQ(sample_copy(logits, params, position).token, forward[position]);
  }
  SamplingParams other = params;
  other.seed = 43;
  int different = 0;
  for (int position = 0; position < 200; ++position) {
    different += sample_copy(logits, other, position).token != forward[position];
  }
  EXPECT_GT(different, 150);
}

TEST(Sampler, PenaltiesAndBiasChangeTheLogitsAsDefined) {
  SamplingParams params;
  params.temperature = 0;
  params.top_logprobs = 4;
  params.presence_penalty = 0.5f;
  params.frequency_penalty = 0.25f;
  params.repetition_penalty = 1.25f;
  params.logit_bias = {{3, 2.0f}, {3, 1.0f}};
  // Token 0: prompt and twice generated. 1: prompt only, negative. 2: generated once. 3: biased. -1, 99: not in the
  // vocabulary, ignored.
  const std::vector<float> logits = {5, -1, 4, -2};
  const float expected[] = {5 / 1.25f - 0.5f - 0.5f, -1 * 1.25f, 4 / 1.25f - 0.5f - 0.25f, 1};
  const SampledToken token = sample_copy(logits, params, 0, {0, 1, 1, -1}, {0, 2, 0, 99});
  double sum = 0;
  for (const float logit : expected) sum += std::exp(static_cast<double>(logit));
  ASSERT_EQ(token.top.size(), 4u);
  for (const TokenLogprob& top : token.top) EXPECT_NEAR(top.logprob, expected[top.token] - std::log(sum), 1e-6);
  EXPECT_EQ(token.token, 0);
  SamplingParams ban;
  ban.temperature = 0;
  ban.logit_bias = {{0, -100.0f}};
  EXPECT_EQ(sample_copy(logits, ban, 0).token, 2);
}

TEST(Sampler, WhatTheMaskLeavesOutIsNeverChosen) {
  std::vector<float> logits(130, 0.0f);  // the mask has bits for 128: those beyond are a model's padding
  logits[129] = 50, logits[1] = 40, logits[127] = 9, logits[64] = 8;
  std::vector<uint64_t> mask(2);
  mask[1] = uint64_t{1} << 63 | 1;  // 64 and 127
  SamplingParams params;
  params.logit_bias = {{1, 100.0f}};  // no bias brings it back
  for (const float temperature : {0.0f, 1.0f, 50.0f}) {
    params.temperature = temperature;
    for (int32_t position = 0; position < 50; ++position) {
      std::vector<float> scratch = logits;
      const TokenId token = sample(scratch, params, {}, {}, position, mask).token;
      ASSERT_TRUE(token == 127 || (token == 64 && temperature > 0)) << token;
    }
  }
}

TEST(Sampler, BannedTokensWaitForTheirPosition) {
  const std::vector<float> logits = {1, 9, 3, 8};
  SamplingParams params;
  params.banned = {1, 3};
  params.banned_before = 100;
  for (const float temperature : {0.0f, 1.0f}) {
    params.temperature = temperature;
    params.top_k = 1;
    EXPECT_EQ(sample_copy(logits, params, 99).token, 2);
    EXPECT_EQ(sample_copy(logits, params, 99, {1}, {0, 2}).token, 2) << "it is the position that counts, not what came";
    EXPECT_EQ(sample_copy(logits, params, 100).token, 1);
  }
  params.logit_bias = {{1, 100.0f}};
  EXPECT_EQ(sample_copy(logits, params, 0).token, 2) << "no bias brings it back";
}

TEST(Sampler, LogProbabilitiesAreThoseBeforeTemperatureAndFilters) {
  const std::vector<float> logits = random_logits(3000, 9, 20);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
  SamplingParams params;
  params.temperature = 0.5f;
  params.top_k = 3;
  params.top_logprobs = 20;
  const SampledToken token = sample_copy(logits, params, 3);
  EXPECT_NEAR(token.logprob, logits[token.token] - std::log(sum), 1e-5);
  ASSERT_EQ(token.top.size(), 20u);
  std::vector<float> sorted = logits;
  std::sort(sorted.rbegin(), sorted.rend());
  for (size_t i = 0; i < token.top.size(); ++i) {
    EXPECT_EQ(logits[token.top[i].token], sorted[i]);
    EXPECT_NEAR(token.top[i].logprob, sorted[i] - std::log(sum), 1e-5);
  }
  params.top_logprobs = 0;
  EXPECT_TRUE(sample_copy(logits, params, 3).top.empty());
  EXPECT_EQ(sample_copy(logits, params, 3).logprob, token.logprob);
}

TEST(Sampler, ValidationNamesTheParameter) {
  const auto param_of = [](auto change) {
    SamplingParams params;
    change(params);
    const auto result = validate(params, 100);
    return result ? std::string("valid") : result.error().param;
  };
  EXPECT_EQ(param_of([](auto&) {}), "valid");
  EXPECT_EQ(param_of([](auto& p) { p.temperature = -0.1f; }), "temperature");
  EXPECT_EQ(param_of([](auto& p) { p.temperature = std::nanf(""); }), "temperature");
  EXPECT_EQ(param_of([](auto& p) { p.top_k = -1; }), "top_k");
  EXPECT_EQ(param_of([](auto& p) { p.top_p = 0; }), "top_p");
  EXPECT_EQ(param_of([](auto& p) { p.top_p = 1.1f; }), "top_p");
  EXPECT_EQ(param_of([](auto& p) { p.min_p = 2; }), "min_p");
  EXPECT_EQ(param_of([](auto& p) { p.presence_penalty = 2.1f; }), "presence_penalty");
  EXPECT_EQ(param_of([](auto& p) { p.frequency_penalty = -3; }), "frequency_penalty");
  EXPECT_EQ(param_of([](auto& p) { p.repetition_penalty = 0; }), "repetition_penalty");
  EXPECT_EQ(param_of([](auto& p) { p.top_logprobs = 21; }), "top_logprobs");
  EXPECT_EQ(param_of([](auto& p) { p.logit_bias = {{100, 1.0f}}; }), "logit_bias");
  EXPECT_EQ(param_of([](auto& p) { p.logit_bias = {{1, 101.0f}}; }), "logit_bias");
  EXPECT_EQ(param_of([](auto& p) { p.logit_bias = {{99, -100.0f}}; }), "valid");
}

}  // namespace
}  // namespace runahead
