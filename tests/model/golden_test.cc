// The real model in fp32 against a float64 implementation that shares no code with it: tests/golden/README.md has the
// meaning of every field and the reason of every tolerance.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "model/perplexity.h"
#include "model/prefill.h"
#include "model/tokenizer.h"
#include "tests/support/default_model.h"

namespace runahead {
namespace {

constexpr double kLogitTolerance = 1e-3;
constexpr double kNearTie = 2 * kLogitTolerance;
constexpr double kPerplexityTolerance = 1e-4;  // relative

const nlohmann::json& golden() {
  static const nlohmann::json kGolden = [] {
    std::ifstream file(RUNAHEAD_SOURCE_DIR "/tests/golden/smollm2.json");
    return nlohmann::json::parse(file);
  }();
  return kGolden;
}

Transformer& engine() {
  static const std::unique_ptr<Transformer> kEngine =
      Transformer::load({.model = testing::default_model(), .compute = ComputeMode::kFp32, .threads = 2}).value();
  return *kEngine;
}

TEST(Golden, TheTokenizerGivesTheIdsOfTheGoldenPrompts) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const Tokenizer tokenizer = Tokenizer::load(engine().file()).value();
  for (const auto& prompt : golden()["prompts"]) {
    if (prompt["text"].is_null()) continue;
    EXPECT_EQ(tokenizer.encode(prompt["text"].get<std::string>(), prompt["name"] == "chat").value(),
              prompt["ids"].get<std::vector<TokenId>>());
  }
}

void expect_logits(const nlohmann::json& prompt, const std::vector<float>& logits) {
  for (const auto& [id, logit] : prompt["top"].get<std::vector<std::pair<size_t, double>>>())
    EXPECT_NEAR(logits[id], logit, kLogitTolerance) << "logit " << id;
  const auto sample = prompt["sample"].get<std::vector<double>>();
  const auto step = golden()["sample_step"].get<size_t>();
  ASSERT_EQ(sample.size(), (logits.size() + step - 1) / step);
  for (size_t i = 0; i < sample.size(); ++i)
    EXPECT_NEAR(logits[i * step], sample[i], kLogitTolerance) << "logit " << i * step;
  double sum = 0;
  for (const float x : logits) sum += std::exp(double{x} - logits[prompt["top"][0][0].get<size_t>()]);
  EXPECT_NEAR(std::log(sum) + logits[prompt["top"][0][0].get<size_t>()], prompt["log_sum_exp"].get<double>(),
              kLogitTolerance);
}

TEST(Golden, EveryLogitAndGreedyTokenAgreesWithFloat64) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  LocalCache cache(engine(), 1408);
  for (const auto& prompt : golden()["prompts"]) {
    SCOPED_TRACE(prompt["name"].get<std::string>());
    const auto ids = prompt["ids"].get<std::vector<TokenId>>();
    const auto greedy = prompt["greedy"].get<std::vector<std::pair<TokenId, double>>>();
    auto position = static_cast<int32_t>(ids.size());
    const auto kv = cache.lease(position + static_cast<int32_t>(greedy.size())).value();
    std::vector<float> logits = prefill(engine(), *kv, ids);
    expect_logits(prompt, logits);
    for (const auto& [token, margin] : greedy) {
      if (margin < kNearTie) {
        std::printf("[   NOTE   ] %s: compared up to position %d, where two logits are %.1e apart\n",
                    prompt["name"].get<std::string>().c_str(), position, margin);
        break;
      }
      ASSERT_EQ(std::ranges::max_element(logits) - logits.begin(), token) << "at position " << position;
      const DecodeRow row{.kv = kv.get(), .token = token, .position = position++};
      engine().decode({&row, 1}, logits);
    }
  }
}

TEST(Golden, PerplexityAgreesWithFloat64) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  const auto& wanted = golden()["perplexity"];
  const auto got = perplexity(engine(), wanted["ids"].get<std::vector<TokenId>>(), wanted["context"].get<int32_t>());
  ASSERT_TRUE(got) << got.error().message;
  EXPECT_EQ(got->tokens_scored, wanted["tokens_scored"].get<int64_t>());
  EXPECT_NEAR(got->perplexity / wanted["perplexity"].get<double>(), 1, kPerplexityTolerance);
}

}  // namespace
}  // namespace runahead
