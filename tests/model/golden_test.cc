// The fp32 mode on the real model against float64 (tests/golden/README.md says how the numbers came about and why the
// tolerances are what they are). int16 must make the same greedy tokens where the margin is clear.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/perplexity.h"
#include "model/transformer/prefill.h"
#include "tests/support/default_model.h"

namespace runahead::test {
namespace {

nlohmann::json golden() {
  std::ifstream file(std::string(RUNAHEAD_SOURCE_DIR) + "/tests/golden/smollm2.json");
  return nlohmann::json::parse(file);
}

void expect_logits(const nlohmann::json& prompt, size_t sample_step, const std::vector<float>& logits,
                   double tolerance) {
  const auto name = prompt["name"].get<std::string>();
  for (const auto& [id, logit] : prompt["top"].get<std::vector<std::pair<size_t, double>>>())
    EXPECT_NEAR(logits[id], logit, tolerance) << name << ", logit " << id;
  const auto sample = prompt["sample"].get<std::vector<double>>();
  for (size_t i = 0; i < sample.size(); ++i)
    ASSERT_NEAR(logits[i * sample_step], sample[i], tolerance) << name << ", logit " << i * sample_step;
}

// Prefill, then 20 greedy tokens by decode.
void expect_prompt(Transformer& engine, const nlohmann::json& prompt, size_t sample_step, double tolerance) {
  const auto ids = prompt["ids"].get<std::vector<TokenId>>();
  const auto greedy = prompt["greedy"].get<std::vector<std::pair<TokenId, double>>>();
  auto position = static_cast<int32_t>(ids.size());
  SequenceCache cache(engine, position + static_cast<int32_t>(greedy.size()));
  auto kv = *cache.lease(position + static_cast<int32_t>(greedy.size()));
  std::vector<float> logits = prefill(engine, *kv, ids);
  expect_logits(prompt, sample_step, logits, tolerance);
  for (const auto& [token, margin] : greedy) {
    const auto got = static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    if (margin < 2 * tolerance) {
      std::cout << prompt["name"] << ": stops before a near-tie of " << margin << "\n";
      return;
    }
    ASSERT_EQ(got, token) << prompt["name"] << " at position " << position;
    const DecodeRow row{kv.get(), token, position++};
    engine.decode({&row, 1}, logits);
  }
}

TEST(Golden, Fp32AgreesWithFloat64OnEveryLogitAndGreedyToken) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const nlohmann::json want = golden();
  auto engine = *Transformer::load({.model = default_model(), .compute = ComputeMode::kFp32, .threads = 2});
  for (const auto& prompt : want["prompts"]) expect_prompt(*engine, prompt, want["sample_step"], 1e-3);
  const auto& expected = want["perplexity"];
  const auto got = perplexity(*engine, expected["ids"].get<std::vector<TokenId>>(), expected["context"]);
  ASSERT_TRUE(got.has_value()) << got.error().message;
  EXPECT_EQ(got->tokens_scored, expected["tokens_scored"].get<int64_t>());
  EXPECT_NEAR(got->perplexity / expected["perplexity"].get<double>(), 1.0, 1e-4);
}

// 15-bit activations move a logit by some 1e-2.
TEST(Golden, Int16AgreesWithinATwentieth) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const nlohmann::json want = golden();
  auto engine = *Transformer::load({.model = default_model(), .compute = ComputeMode::kInt16, .threads = 2});
  for (const auto& prompt : want["prompts"]) expect_prompt(*engine, prompt, want["sample_step"], 0.05);
}

}  // namespace
}  // namespace runahead::test
