// ADR 2: logits and pages are bit-identical for every partition, grouping of pages, thread count and batch
// mate.
#include <gtest/gtest.h>

#include "model/transformer/transformer.h"
#include "tests/model/transformer/engine_cases.h"
#include "tests/support/architectures/architecture_models.h"
#include "tests/support/default_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

// Parameter: what people say of a mode.
class Exactness : public ::testing::TestWithParam<std::string> {};

std::unique_ptr<Transformer> load(const std::filesystem::path& model, const std::string& compute, int32_t threads) {
  const ComputeOption option = *parse_compute_option(compute);
  return *Transformer::load(
      {.model = model, .compute = option.mode, .compact_pages = option.compact_pages, .threads = threads});
}

void expect_the_same_bits_however_run(const std::filesystem::path& model, const std::string& compute, int prompts) {
  std::vector<std::unique_ptr<Transformer>> engines;  // 1, 2 and 3 threads
  for (int32_t threads : {1, 2, 3}) engines.push_back(load(model, compute, threads));
  constexpr int kCasesEach = 16;
  for (uint64_t p = 0; p < static_cast<uint64_t>(prompts); ++p) {
    Case c(1000 + p);
    const int32_t tokens = 1 + c.below(p % 4 == 0 ? 600 : 200);
    const std::vector<TokenId> prompt = prompt_of(c, tokens, 300), continuation = prompt_of(c, 3, 300);
    const Outcome want = run_case(*engines[0], prompt, continuation, {}, 0, c);
    for (uint64_t i = 0; i < kCasesEach; ++i) {
      Case variation(5000 + p * 100 + i);
      Engine& engine = *engines[i % engines.size()];
      const Outcome got = run_case(engine, prompt, continuation, variation.cuts(tokens), variation.below(6), variation);
      ASSERT_TRUE(same_bits(got.logits, want.logits))
          << "prompt seed " << 1000 + p << ", case " << i << ", " << tokens << " tokens";
      ASSERT_EQ(got.pages, want.pages) << "prompt seed " << 1000 + p << ", case " << i;
      for (size_t step = 0; step < want.decoded.size(); ++step)
        ASSERT_TRUE(same_bits(got.decoded[step], want.decoded[step]))
            << "prompt seed " << 1000 + p << ", case " << i << ", step " << step;
    }
  }
}

TEST_P(Exactness, AnyPartitionGroupingThreadsAndMatesGiveTheSameBits) {
  TempDir dir;
  write_tiny_llama(dir / "m.gguf", 77);
  expect_the_same_bits_however_run(dir / "m.gguf", GetParam(), 20);
}

TEST_P(Exactness, HoldsForKQuants) {
  TempDir dir;
  write_tiny_k_quants(dir / "k.gguf", 79);
  expect_the_same_bits_however_run(dir / "k.gguf", GetParam(), 4);
}

TEST_P(Exactness, HoldsForLengthsThatTheKernelsDoNotTake) {
  TempDir dir;
  for (const OddModel& odd : kOddModels) {
    SCOPED_TRACE(odd.name);
    write_odd_model(dir / odd.name, odd);
    expect_the_same_bits_however_run(dir / odd.name, GetParam(), 1);
  }
}

// Windows, norms, rotations and FFNs of every kind; the prompts are longer than the windows.
TEST_P(Exactness, HoldsForEveryArchitecture) {
  TempDir dir;
  for (const ArchitectureModel& model : architecture_models()) {
    SCOPED_TRACE(model.name);
    write_architecture_model(dir / model.name, model);
    expect_the_same_bits_however_run(dir / model.name, GetParam(), 1);
  }
}

// What a rank does not get because it is out of reach of its layers' windows.
TEST_P(Exactness, PagesOutOfReachAreNotRead) {
  TempDir dir;
  for (const ArchitectureModel& model : architecture_models()) {
    if (model.window == 0) continue;
    SCOPED_TRACE(model.name);
    write_architecture_model(dir / model.name, model);
    const auto engine = load(dir / model.name, GetParam(), 2);
    Case c(5);
    const std::vector<TokenId> prompt = prompt_of(c, 300, 300), more = prompt_of(c, 3, 300);
    const Outcome want = run_case(*engine, prompt, more, {}, 0, c);
    SequenceCache cache(*engine, 303);
    const auto kv = *cache.lease(303);
    run_chunk(*engine, *kv, prompt, {0, 192}, false, c);
    spoil_pages_out_of_reach(*engine, *kv, 192);
    std::vector<float> logits(want.logits.size());
    engine->logits(*run_chunk(*engine, *kv, prompt, {192, 300}, true, c), logits);
    ASSERT_TRUE(same_bits(logits, want.logits));
    spoil_pages_out_of_reach(*engine, *kv, 300);
    for (int32_t step = 0; step < 3; ++step) {
      const DecodeRow row{kv.get(), more[static_cast<size_t>(step)], 300 + step};
      engine->decode({&row, 1}, logits);
      ASSERT_TRUE(same_bits(logits, want.decoded[static_cast<size_t>(step)])) << step;
    }
  }
}

// A retry after a crash prefills what was decoded before: the answer must continue as if nothing had happened.
void expect_a_retry_continues(Engine& engine, std::initializer_list<int32_t> lengths) {
  for (const int32_t tokens : lengths) {
    Case c(static_cast<uint64_t>(tokens));
    std::vector<TokenId> prompt = prompt_of(c, tokens, 300);
    const std::vector<TokenId> emitted = prompt_of(c, 5, 300);
    const Outcome decoded = run_case(engine, prompt, emitted, {}, 0, c);
    for (size_t step = 0; step < emitted.size(); ++step) {
      prompt.push_back(emitted[step]);
      const Outcome again = run_case(engine, prompt, {}, {}, 0, c);
      ASSERT_TRUE(same_bits(again.logits, decoded.decoded[step])) << tokens << " tokens, step " << step;
    }
  }
}

TEST_P(Exactness, ARetryThatPrefillsEmittedTokensContinuesExactly) {
  TempDir dir;
  write_tiny_llama(dir / "m.gguf", 78);
  expect_a_retry_continues(*load(dir / "m.gguf", GetParam(), 2), {1, 60, 63, 64, 65, 130});
}

TEST_P(Exactness, ARetryContinuesExactlyInEveryArchitecture) {
  TempDir dir;
  for (const ArchitectureModel& model : architecture_models()) {
    SCOPED_TRACE(model.name);
    write_architecture_model(dir / model.name, model);
    expect_a_retry_continues(*load(dir / model.name, GetParam(), 2), {1, 65, 200});  // the last beyond the windows
  }
}

TEST_P(Exactness, HoldsOnTheRealModel) {
  RUNAHEAD_SKIP_WITHOUT_MODEL();
  std::vector<std::unique_ptr<Transformer>> engines;
  for (int32_t threads : {1, 2}) engines.push_back(load(default_model(), GetParam(), threads));
  Case c(9);
  const std::vector<TokenId> prompt = prompt_of(c, 200, 49152), continuation = prompt_of(c, 2, 49152);
  const Outcome want = run_case(*engines[0], prompt, continuation, {}, 0, c);
  for (uint64_t i = 0; i < 3; ++i) {
    Case variation(70 + i);
    const Outcome got =
        run_case(*engines[i % 2], prompt, continuation, variation.cuts(200), variation.below(3), variation);
    ASSERT_TRUE(same_bits(got.logits, want.logits)) << i;
    ASSERT_EQ(got.pages, want.pages) << i;
    ASSERT_TRUE(same_bits(got.decoded[1], want.decoded[1])) << i;
  }
}

std::string mode_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::ranges::replace(name, '+', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Modes, Exactness, ::testing::Values("fp32", "bf16", "int16", "int8", "int16+kv8"), mode_name);

void expect_the_same_bits_of_every_table(const std::filesystem::path& model) {
  for (const char* compute : {"fp32", "bf16", "int16", "int8", "fp32+kv8", "bf16+kv8", "int16+kv8"}) {
    const ComputeOption option = *parse_compute_option(compute);
    Case c(4);
    const std::vector<TokenId> prompt = prompt_of(c, 150, 300), continuation = prompt_of(c, 2, 300);
    Outcome want;
    for (const OpTable* ops : runnable_ops()) {
      if (ops->mode != option.mode) continue;
      auto engine =
          *Transformer::load({.model = model, .compact_pages = option.compact_pages, .threads = 2, .ops = ops});
      Case same(1);
      Outcome got = run_case(*engine, prompt, continuation, {64}, 1, same);
      if (want.logits.empty()) want = got;
      ASSERT_TRUE(same_bits(got.logits, want.logits)) << ops->isa;
      ASSERT_EQ(got.pages, want.pages) << ops->isa;
      ASSERT_TRUE(same_bits(got.decoded[1], want.decoded[1])) << ops->isa;
    }
  }
}

// Workers whose processors differ may still form one chain.
TEST(Exactness, EveryInstructionSetGivesTheSameBits) {
  TempDir dir;
  write_tiny_llama(dir / "m.gguf", 79);
  expect_the_same_bits_of_every_table(dir / "m.gguf");
  for (const OddModel& odd : {kOddModels[1], *std::rbegin(kOddModels)}) {  // codes and floats
    SCOPED_TRACE(odd.name);
    write_odd_model(dir / odd.name, odd);
    expect_the_same_bits_of_every_table(dir / odd.name);
  }
}

}  // namespace
}  // namespace runahead::test
