// The quality gate of the compute modes: how far each may be from fp32 on the real model. `auto` only takes a mode that
// passes (kernels/ops_select.cc). Each text: one chunk
// of 1,024 tokens; the numbers of longer ones stand in kernels/ops_select.cc.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "model/perplexity.h"
#include "model/tokenizer.h"
#include "tests/support/default_model.h"

namespace runahead::testing {
namespace {

std::vector<TokenId> read_text(const Tokenizer& tokenizer, const std::string& path) {
  std::ifstream file(std::string(RUNAHEAD_SOURCE_DIR) + "/" + path);
  std::stringstream text;
  text << file.rdbuf();
  std::vector<TokenId> tokens = *tokenizer.encode(text.str(), false);
  if (tokens.size() > 1024) tokens.resize(1024);
  return tokens;
}

TEST(QualityGate, Int16IsWithinAFifthOfAPercentOfFp32) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  auto base = *load_engine({.model = default_model(), .compute = ComputeMode::kFp32, .threads = 2});
  auto engine = *load_engine({.model = default_model(), .compute = ComputeMode::kInt16, .threads = 2});
  const Tokenizer tokenizer = *Tokenizer::load(base->file());
  for (const char* path : {"deploy/examples/handbook.txt", "LICENSE", "kernels/quant_blocks.cc"}) {
    const auto agreement = compare_engines(*base, *engine, read_text(tokenizer, path), 1024);
    ASSERT_TRUE(agreement.has_value()) << path << ": " << agreement.error().message;
    EXPECT_NEAR(agreement->perplexity_ratio, 1.0, 0.002) << path;
    EXPECT_GE(agreement->same_top, 0.99) << path;
    EXPECT_LT(agreement->mean_kl, 1e-4) << path;
    RecordProperty(path, std::to_string(agreement->mean_kl));
  }
}

TEST(QualityGate, AutoIsAModeThatPasses) {
  EXPECT_TRUE(fastest_mode() == ComputeMode::kFp32 || fastest_mode() == ComputeMode::kInt16);
}

TEST(Perplexity, RefusesATextThatIsTooShort) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  auto engine = *load_engine({.model = default_model(), .compute = ComputeMode::kFp32});
  const std::vector<TokenId> tokens(100, 5);
  EXPECT_EQ(perplexity(*engine, tokens, 101).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(perplexity(*engine, tokens, 3).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace runahead::testing
