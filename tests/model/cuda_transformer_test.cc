// The engine on kernels/cuda, over the emulation or on a device (tested_device.h): its tokens are those of the processor's fp32,
// and no cut, call or batch mate changes a bit of it.
#include "model/cuda_transformer/cuda_transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <latch>

#include "model/transformer/transformer.h"
#include "tests/kernels/cuda/tested_device.h"
#include "tests/model/transformer/engine_cases.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead::test {
namespace {

std::unique_ptr<CudaTransformer> load_cuda(const std::filesystem::path& model) {
  return *CudaTransformer::load(cuda::tested_device(), {.model = model});
}

double rms_distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(double{a[i]} - b[i], 2);
  return std::sqrt(squares / static_cast<double>(a.size()));
}

TokenId best_of(const std::vector<float>& logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

// Logits of prompts and of decode steps: no further from the processor's fp32 than its own bf16 mode is, but for a third, and the
// same best token wherever that is ahead by more than the error.
void expect_as_close_as_bf16(const std::filesystem::path& model, std::initializer_list<int32_t> lengths) {
  const std::unique_ptr<CudaTransformer> engine = load_cuda(model);
  const std::unique_ptr<Transformer> fp32 = *Transformer::load({.model = model, .compute = ComputeMode::kFp32});
  const std::unique_ptr<Transformer> bf16 = *Transformer::load({.model = model, .compute = ComputeMode::kBf16});
  double off = 0, bf16_off = 0;
  for (const int32_t tokens : lengths) {
    Case c(static_cast<uint64_t>(tokens));
    const std::vector<TokenId> prompt = prompt_of(c, tokens, 300), continuation = prompt_of(c, 2, 300);
    const auto logits_of = [&](Engine& one) {
      Outcome outcome = run_case(one, prompt, continuation, {}, 0, c);
      outcome.decoded.push_back(outcome.logits);
      return outcome.decoded;
    };
    const auto got = logits_of(*engine), want = logits_of(*fp32), like = logits_of(*bf16);
    for (size_t step = 0; step < want.size(); ++step) {
      const double error = rms_distance(got[step], want[step]);
      off += error, bf16_off += rms_distance(like[step], want[step]);
      std::vector<float> sorted = want[step];
      std::ranges::sort(sorted, std::greater());
      if (sorted[0] - sorted[1] > 6 * error) {
        EXPECT_EQ(best_of(got[step]), best_of(want[step]));
      }
    }
  }
  EXPECT_LT(off, 1.33 * bf16_off);
}

TEST(CudaTransformer, IsAsCloseToFp32AsTheProcessorsBf16OnEveryShape) {
  const TempDir dir;
  for (const OddModel& odd : kOddModels) {
    SCOPED_TRACE(odd.name);
    write_odd_model(dir / "odd.gguf", odd);
    expect_as_close_as_bf16(dir / "odd.gguf", {1, 3, 17});
  }
  write_tiny_llama(dir / "tiny.gguf", 3, {.num_layers = 1});
  expect_as_close_as_bf16(dir / "tiny.gguf", {64, 130});
}

TEST(CudaTransformer, NoCutOrCallOrMateChangesABit) {
  const TempDir dir;
  write_tiny_llama(dir / "tiny.gguf", 5, {.num_layers = 2});
  const std::unique_ptr<CudaTransformer> engine = load_cuda(dir / "tiny.gguf");
  Case c(9);
  const std::vector<TokenId> prompt = prompt_of(c, 200, 300), continuation = prompt_of(c, 2, 300);
  const Outcome want = run_case(*engine, prompt, continuation, {}, 0, c);
  for (uint64_t seed = 0; seed < 3; ++seed) {
    Case variation(100 + seed);
    const Outcome got = run_case(*engine, prompt, continuation, variation.cuts(200), 2, variation);
    EXPECT_TRUE(same_bits(got.logits, want.logits)) << seed;
    EXPECT_EQ(got.pages, want.pages) << seed;
    for (size_t step = 0; step < want.decoded.size(); ++step)
      EXPECT_TRUE(same_bits(got.decoded[step], want.decoded[step])) << seed << " step " << step;
  }
}

int graphs_begun = 0, graphs_run = 0;

// Steps of one to three sequences, one of them on its ninth page, which takes other buffers.
std::vector<std::vector<float>> decode_some(const cuda::CudaOps& ops, const std::filesystem::path& model) {
  const auto engine = *CudaTransformer::load(ops, {.model = model});
  const auto pool = *make_kv_pool(*engine, 2 * 14);
  const auto vocab = static_cast<size_t>(engine->shape().vocab_size);
  const std::shared_ptr<KvLease> kv[] = {*pool->lease(2, 70), *pool->lease(2, 70), *pool->lease(2, 9 * kPageTokens)};
  std::vector<std::vector<float>> all;
  for (int32_t step = 0; step < 6; ++step) {
    const int32_t last = step < 2 ? 0 : step < 4 ? 1 : 2;
    std::vector<DecodeRow> batch;
    for (int32_t r = 0; r <= last; ++r)
      batch.push_back({kv[r].get(), 3 + step + r, (r == 2 ? 8 * kPageTokens : kPageTokens * r) + step});
    all.emplace_back(batch.size() * vocab);
    engine->decode(batch, all.back());
  }
  return all;
}

TEST(CudaTransformer, StepsThatAreKeptAsGraphsGiveTheBitsOfThoseThatAreNot) {
  const TempDir dir;
  write_tiny_llama(dir / "tiny.gguf", 5, {.num_layers = 2, .context_len = 1024});
  cuda::CudaOps counted = cuda::tested_device(), none = counted;
  graphs_begun = graphs_run = 0;
  counted.begin_graph = [] { ++graphs_begun, cuda::tested_device().begin_graph(); };
  counted.run_graph = [](void* graph) { ++graphs_run, cuda::tested_device().run_graph(graph); };
  none.end_graph = []() -> void* {
    cuda::tested_device().free_graph(cuda::tested_device().end_graph());
    return nullptr;
  };
  none.run_graph = [](void*) { FAIL() << "there is none"; };
  const auto with = decode_some(counted, dir / "tiny.gguf"), without = decode_some(none, dir / "tiny.gguf");
  EXPECT_EQ(graphs_begun, 3) << "one a shape";
  EXPECT_EQ(graphs_run, 6);
  for (size_t step = 0; step < with.size(); ++step) EXPECT_TRUE(same_bits(with[step], without[step])) << step;
}

void copy_pages(const KvLease& from, const KvLease& to, int32_t pages) {
  for (int32_t layer = 0; layer < from.num_layers(); ++layer)
    for (int32_t p = 0; p < pages; ++p) std::ranges::copy(from.page(layer, p), to.page(layer, p).begin());
}

void await_pages(Engine& engine) {
  std::latch published(1);
  engine.when_published([&] { published.count_down(); });
  published.wait();
}

// A GPU and a processor in one chain, either of them first: pages go from one to the other as they are.
TEST(CudaTransformer, SharesPagesWithTheProcessorsBf16) {
  const TempDir dir;
  for (const int32_t head_dim : {32, 48}) {
    write_tiny_llama(dir / "tiny.gguf", 4,
                     {.num_layers = 2, .model_dim = 96, .num_heads = 2, .num_kv_heads = 1, .head_dim = head_dim});
    const auto gpu = *CudaTransformer::load(cuda::tested_device(), {.model = dir / "tiny.gguf", .pages_of_bf16 = true});
    const auto cpu = *Transformer::load({.model = dir / "tiny.gguf", .compute = ComputeMode::kBf16});
    const auto fp32 = *Transformer::load({.model = dir / "tiny.gguf", .compute = ComputeMode::kFp32});
    EXPECT_EQ(gpu->fingerprint(), cpu->fingerprint());
    ASSERT_EQ(gpu->page_bytes(), cpu->page_bytes());
    constexpr int32_t kTokens = 150, kCut = 64;
    Case c(5);
    const std::vector<TokenId> prompt = prompt_of(c, kTokens, 300);
    const auto chain_of = [&](Engine& first, Engine& second) {
      const auto pool = *make_kv_pool(first, 8), second_pool = *make_kv_pool(second, 8);
      const auto kv = *pool->lease(2, kTokens), second_kv = *second_pool->lease(2, kTokens);
      run_chunk(first, *kv, prompt, {0, kCut}, false, c);
      await_pages(first);
      copy_pages(*kv, *second_kv, 1);
      const auto x = run_chunk(second, *second_kv, prompt, {kCut, kTokens}, true, c);
      std::vector<float> logits(static_cast<size_t>(second.shape().vocab_size));
      second.logits(*x, logits);
      return logits;
    };
    const std::vector<float> want = chain_of(*fp32, *fp32);
    const double bf16_off = rms_distance(chain_of(*cpu, *cpu), want);
    EXPECT_LT(rms_distance(chain_of(*cpu, *gpu), want), 1.5 * bf16_off) << head_dim;
    EXPECT_LT(rms_distance(chain_of(*gpu, *cpu), want), 1.5 * bf16_off) << head_dim;
    EXPECT_LT(rms_distance(chain_of(*gpu, *gpu), want), 1.5 * bf16_off) << head_dim;
  }
}

TEST(CudaTransformer, AHeadThatNoKernelTakesIsRefused) {
  const TempDir dir;
  write_tiny_llama(dir / "long.gguf", 1,
                   {.num_layers = 1, .model_dim = 320, .num_heads = 1, .num_kv_heads = 1, .head_dim = 320});
  const auto engine = CudaTransformer::load(cuda::tested_device(), {.model = dir / "long.gguf"});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().message,
            "an attention head of 320 is over 256, which a GPU does not run here; use --compute fp32");
}

// The lane takes std::bad_alloc for the attempt that asked (actors/worker/compute_lane.h): the worker lives.
TEST(CudaTransformer, ARequestThatDoesNotFitEndsAloneAndTheNextOneRuns) {
  const TempDir dir;
  write_tiny_llama(dir / "tiny.gguf", 1, {.num_layers = 1});
  static bool full;
  full = false;
  cuda::CudaOps ops = cuda::tested_device();
  ops.allocate = [](size_t bytes) -> void* { return full ? nullptr : cuda::tested_device().allocate(bytes); };
  const auto engine = *CudaTransformer::load(ops, {.model = dir / "tiny.gguf"});
  const std::vector<TokenId> prompt = {5, 6, 7};
  full = true;
  EXPECT_THROW(engine->embed(prompt), std::bad_alloc);
  full = false;
  SequenceCache cache(*engine, 3);
  const auto kv = *cache.lease(3);
  EXPECT_EQ(prefill(*engine, *kv, prompt).size(), 300u);
}

TEST(CudaTransformer, SaysWhatDoesNotFit) {
  const TempDir dir;
  write_tiny_llama(dir / "tiny.gguf", 1);
  cuda::CudaOps full = cuda::tested_device();
  full.allocate = [](size_t) -> void* { return nullptr; };
  const auto engine = CudaTransformer::load(full, {.model = dir / "tiny.gguf"});
  ASSERT_FALSE(engine.has_value());
  EXPECT_EQ(engine.error().code, ErrorCode::kOverloaded);
  EXPECT_NE(engine.error().message.find("the device has no room for a part of the model"), std::string::npos);
}

}  // namespace
}  // namespace runahead::test
