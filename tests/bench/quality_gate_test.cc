// The quality gate of the compute modes: how far each may be from fp32 on the real model. `auto` only takes a mode that
// passes (kernels/ops_select.cc). Each text: one chunk
// of 2,048 tokens, of which the second half is scored.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "bench/perplexity.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/support/default_model.h"

namespace runahead::test {
namespace {

std::vector<TokenId> read_text(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream file(std::string(RUNAHEAD_SOURCE_DIR) + "/" + path);
  std::stringstream text;
  text << file.rdbuf();
  std::vector<TokenId> tokens = *tokenizer.encode(text.str(), false);
  if (tokens.size() > 2048) tokens.resize(2048);
  return tokens;
}

struct Gate {
  const char* compute;
  double perplexity, same_top,
      mean_kl;  // at most this far from 1; at least; at most (twice what was measured, or more)
};

TEST(QualityGate, ModesStayAsCloseToFp32AsTheyMust) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  auto base = *Transformer::load({.model = default_model(), .compute = ComputeMode::kFp32, .threads = 2});
  const Tokenizer tokenizer = *Tokenizer::load(base->file());
  const Gate gates[] = {{"int16", 0.002, 0.99, 1e-4}, {"int8", 0.005, 0.97, 2e-3}, {"int16+kv8", 0.005, 0.97, 1e-3}};
  std::vector<std::unique_ptr<Transformer>> owned;
  std::vector<Transformer*> engines;
  for (const Gate& gate : gates) {
    const ComputeOption option = *parse_compute_option(gate.compute);
    owned.push_back(*Transformer::load(
        {.model = default_model(), .compute = option.mode, .compact_pages = option.compact_pages, .threads = 2}));
    engines.push_back(owned.back().get());
  }
  for (const char* path : {"deploy/examples/handbook.txt", "kernels/quant_blocks.cc"}) {
    const std::vector<TokenId> tokens = read_text(tokenizer, path);
    const auto agreements = compare_engines(*base, engines, tokens, static_cast<int32_t>(tokens.size()));
    ASSERT_TRUE(agreements.has_value()) << path << ": " << agreements.error().message;
    for (size_t i = 0; i < std::size(gates); ++i) {
      const Gate& gate = gates[i];
      const Agreement& agreement = (*agreements)[i];
      const std::string what = gate.compute + (" on " + std::string(path));
      EXPECT_NEAR(agreement.perplexity_ratio, 1.0, gate.perplexity) << what;
      EXPECT_GE(agreement.same_top, gate.same_top) << what;
      EXPECT_LT(agreement.mean_kl, gate.mean_kl) << what;
      EXPECT_GT(agreement.tokens_scored, 950) << what;
      std::printf("%s: perplexity ratio %.5f, same top %.4f, KL %.2e\n", what.c_str(), agreement.perplexity_ratio,
                  agreement.same_top, agreement.mean_kl);
    }
  }
}

TEST(QualityGate, AutoIsAModeThatPasses) { EXPECT_NE(fastest_mode(), ComputeMode::kBf16); }

TEST(Perplexity, RefusesATextThatIsTooShort) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  auto engine = *Transformer::load({.model = default_model(), .compute = ComputeMode::kFp32});
  const std::vector<TokenId> tokens(100, 5);
  EXPECT_EQ(perplexity(*engine, tokens, 101).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(perplexity(*engine, tokens, 3).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace runahead::test
