// ADR 2: logits and pages are bit-identical for every partition, grouping of pages, thread count and batch
// mate.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "model/transformer/prefill.h"
#include "tests/support/default_model.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

struct Outcome {
  std::vector<float> logits;                  // of the prompt's last token
  std::vector<std::vector<float>> decoded;    // of each decode step
  std::vector<std::vector<std::byte>> pages;  // all layers, after the prompt
};

class Case {
 public:
  explicit Case(uint64_t seed) : rng_(seed) {}
  int32_t below(int32_t n) { return static_cast<int32_t>(rng_.next() % static_cast<uint64_t>(n)); }
  // Increasing multiples of the page length inside (0, tokens).
  std::vector<int32_t> cuts(int32_t tokens) {
    std::vector<int32_t> result;
    for (int32_t at = kPageTokens; at < tokens; at += kPageTokens)
      if (below(3) == 0) result.push_back(at);
    return result;
  }

 private:
  SeededRng rng_;
};

std::vector<TokenId> prompt_of(Case& c, int32_t tokens, int32_t vocab) {
  std::vector<TokenId> prompt;
  for (int32_t i = 0; i < tokens; ++i) prompt.push_back(c.below(vocab));
  return prompt;
}

// Rows cut into calls by chance: anywhere, or between tiles only.
std::vector<RowRange> cut_rows(int32_t rows, int32_t unit, Case& c) {
  std::vector<RowRange> parts;
  for (int32_t begin = 0; begin < rows; begin = parts.back().end)
    parts.push_back({begin, std::min(rows, begin + unit * (1 + c.below(1 + rows / unit)))});
  return parts;
}

// One rank of a chain, in this process: pages before `chunk` are in the lease already.
std::unique_ptr<Hidden> run_chunk(Engine& engine, KvLease& kv, std::span<const TokenId> prompt, TokenRange chunk,
                                  bool last, Case& c) {
  std::unique_ptr<Hidden> x =
      engine.embed(prompt.subspan(static_cast<size_t>(chunk.begin), static_cast<size_t>(chunk.size())));
  for (int32_t layer = 0; layer < engine.shape().num_layers; ++layer) {
    for (const RowRange part : cut_rows(chunk.size(), 1, c)) engine.project_qkv(layer, *x, kv, chunk, part);
    const bool final_layer = layer + 1 == engine.shape().num_layers;
    if (final_layer && !last) break;
    int32_t rows = chunk.size();
    if (final_layer && c.below(2) == 0) {
      engine.keep_last_row(*x);
      rows = 1;
    }
    for (int32_t page = 0; page < chunk.end_page();) {
      const int32_t end = std::min(chunk.end_page(), page + 1 + c.below(4));
      for (const RowRange part : cut_rows(rows, kPageTokens, c)) engine.attend(layer, *x, kv, chunk, {page, end}, part);
      page = end;
    }
    for (const RowRange part : cut_rows(rows, 1, c)) engine.finish_layer(layer, *x, part);
  }
  return x;
}

std::vector<std::vector<std::byte>> copy_pages(const KvLease& kv) {
  std::vector<std::vector<std::byte>> pages;
  for (int32_t layer = 0; layer < kv.num_layers(); ++layer)
    for (int32_t p = 0; p < kv.num_pages(); ++p) pages.emplace_back(kv.page(layer, p).begin(), kv.page(layer, p).end());
  return pages;
}

Outcome run_case(Engine& engine, const std::vector<TokenId>& prompt, const std::vector<TokenId>& continuation,
                 const std::vector<int32_t>& cuts, int32_t mates, Case& c) {
  const auto tokens = static_cast<int32_t>(prompt.size()), more = static_cast<int32_t>(continuation.size());
  SequenceCache cache(engine, tokens + more, 1 + mates);
  auto kv = *cache.lease(tokens + more);
  Outcome outcome;
  outcome.logits.resize(static_cast<size_t>(engine.shape().vocab_size));
  std::vector<int32_t> ends = cuts;
  ends.push_back(tokens);
  int32_t begin = 0;
  for (int32_t end : ends) {
    const std::unique_ptr<Hidden> x = run_chunk(engine, *kv, prompt, {begin, end}, end == tokens, c);
    if (end == tokens) engine.logits(*x, outcome.logits);
    begin = end;
  }
  outcome.pages = copy_pages(*kv);

  // Mates decode other tokens at other positions beside ours; ours is at a random place of the batch.
  std::vector<std::shared_ptr<KvLease>> mate_kv;
  for (int32_t m = 0; m < mates; ++m) mate_kv.push_back(*cache.lease(tokens + more));
  for (int32_t step = 0; step < more; ++step) {
    std::vector<DecodeRow> batch;
    for (int32_t m = 0; m < mates; ++m)
      batch.push_back({mate_kv[static_cast<size_t>(m)].get(), c.below(engine.shape().vocab_size), step});
    const int32_t place = c.below(mates + 1);
    batch.insert(batch.begin() + place, {kv.get(), continuation[static_cast<size_t>(step)], tokens + step});
    std::vector<float> out(batch.size() * outcome.logits.size());
    engine.decode(batch, out);
    const auto* mine = out.data() + static_cast<size_t>(place) * outcome.logits.size();
    outcome.decoded.emplace_back(mine, mine + outcome.logits.size());
  }
  return outcome;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

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

// A retry after a crash prefills what was decoded before: the answer must continue as if nothing had happened.
TEST_P(Exactness, ARetryThatPrefillsEmittedTokensContinuesExactly) {
  TempDir dir;
  write_tiny_llama(dir / "m.gguf", 78);
  auto engine = load(dir / "m.gguf", GetParam(), 2);
  for (int32_t tokens : {1, 60, 63, 64, 65, 130}) {
    Case c(static_cast<uint64_t>(tokens));
    std::vector<TokenId> prompt = prompt_of(c, tokens, 300);
    const std::vector<TokenId> emitted = prompt_of(c, 5, 300);
    const Outcome decoded = run_case(*engine, prompt, emitted, {}, 0, c);
    for (size_t step = 0; step < emitted.size(); ++step) {
      prompt.push_back(emitted[step]);
      const Outcome again = run_case(*engine, prompt, {}, {}, 0, c);
      ASSERT_TRUE(same_bits(again.logits, decoded.decoded[step])) << tokens << " tokens, step " << step;
    }
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
