// The promise of ADR 2 through the real actors: whatever the number of workers, the cuts, the threads, the transport and
// the company, the pages at the decode worker, the first token's logits and every later logit are those of one worker,
// bit for bit.
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <set>

#include "model/cuda_transformer/cuda_transformer.h"
#include "model/transformer/prefill.h"
#include "model/transformer/transformer.h"
#include "services/cluster/actor_cluster.h"
#include "simt_ops.h"
#include "tests/chain/recording_engine.h"
#include "tests/support/architectures/architecture_models.h"
#include "tests/support/naive_score.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace runahead {
namespace {

using namespace std::chrono_literals;
using test::Recording;
using test::RecordingEngine;
constexpr auto kTimeout = 60s;  // a hang shows as a failure; a case takes milliseconds

struct Case {
  int32_t workers = 1;
  int32_t threads = 1;
  std::string transport = "memory";
  std::vector<int32_t> cuts;  // inner cuts; empty: the strategy decides
  Strategy strategy = Strategy::kSingle;
  std::vector<TokenId> prompt;
  int32_t company = 0;  // other requests in flight meanwhile
  int32_t choices = 1;  // of the prompt, each with a seed of its own
  int32_t max_new_tokens = 6;
  uint64_t seed = 7;
  std::optional<int32_t> prompt_logprobs;
  bool compact_pages = false;
  bool cuda = false;  // over the emulation: with pages on a "device", and their twins
};

struct Outcome {
  std::string first_logits_sha256;
  std::vector<TokenId> tokens;
  std::optional<std::vector<SampledToken>> prompt;  // its log-probabilities
  std::vector<std::byte> pages;
  std::vector<float> decode_logits;
  std::vector<Recording::Sequence> sequences;  // [choices], in the order of their first decode step
  size_t ranks = 0;
  int64_t pages_left = 0;
};

InferenceRequest request_of(const Case& c, std::vector<TokenId> prompt) {
  InferenceRequest request{.external_id = "test", .prompt = std::move(prompt), .max_new_tokens = c.max_new_tokens};
  request.sampling.temperature = 0.8f;
  request.sampling.seed = c.seed;
  request.strategy = c.cuts.empty() ? c.strategy : Strategy::kByHand;
  request.cuts = c.cuts;
  request.prompt_logprobs = c.prompt_logprobs;
  return request;
}

Task<void> read(std::shared_ptr<TokenStream> stream, Clock& clock, Outcome& outcome) {
  for (;;) {
    auto next = co_await stream->next(clock.after(kTimeout));
    const StreamEvent event = CO_TRY(next);
    if (const auto* scored = std::get_if<PromptEvent>(&event)) outcome.prompt = scored->tokens;
    if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
      if (tokens->first_index == 0) stream->first_chunk_written();
      for (const SampledToken& token : tokens->tokens) outcome.tokens.push_back(token.token);
    }
    if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
      outcome.first_logits_sha256 = finished->report.first_logits_sha256;
      outcome.ranks = finished->report.ranks.size();
      co_return Result<void>{};
    }
  }
}

Task<void> serve(ActorCluster& cluster, Clock& clock, const Case& c, Outcome& outcome) {
  const auto ready = co_await cluster.ready(clock.after(kTimeout));
  CO_TRY(ready);
  const auto stream = CO_TRY(cluster.coordinator().submit(request_of(c, c.prompt)));
  std::vector<std::shared_ptr<TokenStream>> company;
  for (int32_t i = 1; i < c.choices; ++i) {
    InferenceRequest request = request_of(c, c.prompt);
    request.sampling.seed += static_cast<uint64_t>(i);
    company.push_back(CO_TRY(cluster.coordinator().submit(std::move(request))));
  }
  for (int32_t i = 0; i < c.company; ++i) {
    Case other = c;
    other.cuts.clear();
    other.strategy = Strategy::kEven;
    std::vector<TokenId> prompt(c.prompt.rbegin(), c.prompt.rend() - i);
    company.push_back(CO_TRY(cluster.coordinator().submit(request_of(other, std::move(prompt)))));
  }
  const auto answered = co_await read(stream, clock, outcome);
  CO_TRY(answered);
  for (const auto& other : company) {
    Outcome ignored;
    const auto ended = co_await read(other, clock, ignored);
    CO_TRY(ended);
  }
  for (const Time end = clock.now() + 2s; cluster.pages_in_use() > 0 && clock.now() < end;)
    co_await clock.sleep_for(1ms);
  outcome.pages_left = cluster.pages_in_use();
  co_return Result<void>{};
}

Task<void> serve_and_stop(ActorCluster& cluster, Clock& clock, const Case& c, Outcome& outcome) {
  const auto served = co_await serve(cluster, clock, c, outcome);
  co_await cluster.stop();
  co_return served;
}

Result<std::unique_ptr<Engine>> load_engine(const std::filesystem::path& model, const Case& c) {
  if (c.cuda) return CudaTransformer::load(cuda::simt_device(), {.model = model});
  return Transformer::load(
      {.model = model, .compute = ComputeMode::kFp32, .compact_pages = c.compact_pages, .threads = c.threads});
}

Outcome run(const std::filesystem::path& model, const Case& c) {
  asio::io_context io;
  AsioClock clock;
  SeededRng rng(3);
  CoordinatorSink metrics;
  Recording recording;
  ActorClusterOptions options{.prefill_workers = c.workers, .transport = c.transport, .kv_contexts = 2};
  options.make_engine = [&](int32_t index) -> Result<std::unique_ptr<Engine>> {
    std::unique_ptr<Engine> engine = TRY(load_engine(model, c));
    if (index == c.workers && c.company == 0) engine = std::make_unique<RecordingEngine>(std::move(engine), &recording);
    return engine;
  };
  ActorCluster cluster(io.get_executor(), clock, rng, metrics, options);
  Outcome outcome;
  const Result<void> started = cluster.start();
  EXPECT_TRUE(started) << started.error().message;
  Result<void> served = fail(ErrorCode::kInternal, "not run");
  asio::co_spawn(io, serve_and_stop(cluster, clock, c, outcome), [&](std::exception_ptr error, Result<void> r) {
    if (error) std::rethrow_exception(error);
    served = r;
  });
  io.run();
  EXPECT_TRUE(served) << served.error().message;
  outcome.sequences = std::move(recording.sequences);
  if (outcome.sequences.empty()) return outcome;
  outcome.pages = outcome.sequences.front().prompt_pages;
  outcome.decode_logits = outcome.sequences.front().decode_logits;
  return outcome;
}

void expect_bits(const Outcome& chain, const Outcome& one) {
  ASSERT_EQ(one.tokens.size(), 6u);
  EXPECT_EQ(chain.tokens, one.tokens);
  EXPECT_EQ(chain.first_logits_sha256.size(), 64u);
  EXPECT_EQ(chain.first_logits_sha256, one.first_logits_sha256);
  ASSERT_FALSE(one.pages.empty());
  EXPECT_TRUE(chain.pages == one.pages) << "K/V pages differ";
  ASSERT_FALSE(one.decode_logits.empty());
  ASSERT_EQ(chain.decode_logits.size(), one.decode_logits.size());
  EXPECT_EQ(std::memcmp(chain.decode_logits.data(), one.decode_logits.data(), one.decode_logits.size() * sizeof(float)),
            0);
  EXPECT_EQ(chain.pages_left, 0);
}

std::string describe(const Case& c) {
  std::string text = std::to_string(c.workers) + " workers, " + std::to_string(c.threads) + " threads, " + c.transport +
                     ", " + std::to_string(c.prompt.size()) + " tokens, cuts";
  for (int32_t cut : c.cuts) text += " " + std::to_string(cut);
  return text;
}

class ChainExactness : public ::testing::TestWithParam<std::string> {
 protected:
  static void SetUpTestSuite() {
    directory_ = std::make_unique<test::TempDir>();
    test::write_tiny_llama(*directory_ / "tiny.gguf", 11, {.num_layers = 7, .context_len = 1024},
                           QuantType::kQ4_1);  // two at once
  }
  static void TearDownTestSuite() { directory_.reset(); }
  static std::filesystem::path model() { return *directory_ / "tiny.gguf"; }
  static std::unique_ptr<test::TempDir> directory_;
};
std::unique_ptr<test::TempDir> ChainExactness::directory_;

Case random_case(SeededRng& rng, const std::string& transport) {
  Case c{.workers = 1 + static_cast<int32_t>(rng.next() % 4),
         .threads = 1 + static_cast<int32_t>(rng.next() % 3),
         .transport = transport};
  const auto length = static_cast<size_t>(1 + rng.next() % 700);
  for (size_t i = 0; i < length; ++i) c.prompt.push_back(static_cast<TokenId>(3 + rng.next() % 290));
  const int32_t cuts_max = std::min<int32_t>(c.workers - 1, static_cast<int32_t>(length - 1) / kPageTokens);
  std::vector<int32_t> places;
  for (int32_t page = 1; page <= static_cast<int32_t>(length - 1) / kPageTokens; ++page)
    places.push_back(page * kPageTokens);
  while (std::ssize(c.cuts) < cuts_max) {
    const size_t pick = rng.next() % places.size();
    c.cuts.push_back(places[pick]);
    places.erase(places.begin() + static_cast<ptrdiff_t>(pick));
  }
  std::sort(c.cuts.begin(), c.cuts.end());
  return c;
}

TEST_P(ChainExactness, AnyChainGivesTheBitsOfOneWorker) {
  const int cases = GetParam() == "memory" ? 30 : 8;
  SeededRng rng(2024);
  for (int i = 0; i < cases; ++i) {
    const Case c = random_case(rng, GetParam());
    SCOPED_TRACE(describe(c));
    const Outcome one = run(model(), {.prompt = c.prompt});
    const Outcome chain = run(model(), c);
    EXPECT_EQ(chain.ranks, c.cuts.size() + 1);
    expect_bits(chain, one);
    if (HasFailure()) return;
  }
}

TEST_P(ChainExactness, PagesOf8BitsGiveTheBitsOfOneWorkerToo) {
  SeededRng rng(8);
  for (int i = 0; i < 3; ++i) {
    Case c = random_case(rng, GetParam());
    c.compact_pages = true;
    SCOPED_TRACE(describe(c));
    const Outcome one = run(model(), {.prompt = c.prompt, .compact_pages = true}), chain = run(model(), c);
    EXPECT_NE(chain.first_logits_sha256, run(model(), {.prompt = c.prompt}).first_logits_sha256);
    expect_bits(chain, one);
  }
}

// Engines on a device, here an emulated one. One worker alone, over a transport of the host, is what all are compared with.
void expect_bits_of_one_gpu(const std::filesystem::path& path, const std::string& transport) {
  SeededRng rng(15);
  test::write_tiny_llama(path, 12, {.num_layers = 5, .context_len = 1024});
  Case c{.transport = transport, .cuda = true};
  while (c.prompt.size() < 170) c.prompt.push_back(static_cast<TokenId>(3 + rng.next() % 290));
  const Outcome one = run(path, {.prompt = c.prompt, .cuda = true});
  for (const std::vector<int32_t>& cuts : {std::vector{64}, {64, 128}}) {
    c.workers = static_cast<int32_t>(cuts.size()) + 1, c.cuts = cuts;
    SCOPED_TRACE(describe(c));
    const Outcome chain = run(path, c);
    EXPECT_EQ(chain.ranks, cuts.size() + 1);
    expect_bits(chain, one);
  }
}

// Pages lie on the device, and travel by their twins on the host.
TEST_P(ChainExactness, AChainOfGpusGivesTheBitsOfOne) { expect_bits_of_one_gpu(*directory_ / "cuda.gguf", GetParam()); }

// Pages are the device's alone, and go from one to the next.
TEST(GpuChain, OverCudaIpcGivesTheBitsOfOne) {
  const test::TempDir dir;
  expect_bits_of_one_gpu(dir / "tiny.gguf", "ipc");
}

TEST(GpuChain, OverNcclGivesTheBitsOfOne) {
  const test::TempDir dir;
  setenv("RUNAHEAD_NCCL_LIBRARY", RUNAHEAD_BINARY_DIR "/tests/support/nccl/librunahead_nccl_double.so", 1);
  expect_bits_of_one_gpu(dir / "tiny.gguf", "nccl");
}

// The oracle runs all layers in one process, takes all logits at once and a softmax of its own.
std::vector<SampledToken> local_scores(const std::filesystem::path& model, const std::vector<TokenId>& prompt,
                                       int32_t top) {
  const auto engine = Transformer::load({.model = model, .compute = ComputeMode::kFp32}).value();
  const auto vocab = static_cast<size_t>(engine->shape().vocab_size);
  SequenceCache cache(*engine, static_cast<int32_t>(prompt.size()));
  const auto kv = cache.lease(static_cast<int32_t>(prompt.size())).value();
  const std::unique_ptr<Hidden> x = run_layers(*engine, *kv, prompt);
  std::vector<float> logits(prompt.size() * vocab);
  engine->logits_of_rows(*x, 0, static_cast<int32_t>(prompt.size()), logits);
  std::vector<SampledToken> scores;
  for (size_t i = 0; i + 1 < prompt.size(); ++i)
    scores.push_back(test::naive_score(std::span(logits).subspan(i * vocab, vocab), prompt[i + 1], top));
  return scores;
}

TEST_P(ChainExactness, LogProbabilitiesOfThePromptAreTheBitsOfOneProcessAndChangeNothingElse) {
  const int cases = GetParam() == "memory" ? 20 : 6;
  SeededRng rng(77);
  for (int i = 0; i < cases; ++i) {
    Case c = random_case(rng, GetParam());
    c.company = i % 4 == 3 ? 3 : 0;
    SCOPED_TRACE(describe(c));
    const Outcome one = run(model(), {.prompt = c.prompt});
    ASSERT_FALSE(one.prompt) << "nobody asked";
    c.prompt_logprobs = i % 5;
    const Outcome chain = run(model(), c);
    EXPECT_EQ(chain.ranks, c.cuts.size() + 1);
    ASSERT_TRUE(chain.prompt);
    EXPECT_TRUE(*chain.prompt == local_scores(model(), c.prompt, *c.prompt_logprobs));
    EXPECT_EQ(chain.tokens, one.tokens);
    EXPECT_EQ(chain.first_logits_sha256, one.first_logits_sha256);
    EXPECT_TRUE(c.company > 0 || chain.pages == one.pages) << "K/V pages differ";
    EXPECT_EQ(chain.pages_left, 0);
    if (HasFailure()) return;
  }
}

// Heads of 100 and an FFN of 172; nothing that is a multiple of 32. Their pages are padded, and travel so.
TEST_P(ChainExactness, LengthsThatTheKernelsDoNotTakeGiveTheBitsOfOneWorker) {
  SeededRng rng(31);
  for (const test::OddModel& odd : test::kOddModels) {
    if (GetParam() != "memory" && odd.shape.head_dim != 100) continue;
    const auto path = *directory_ / odd.name;
    test::write_odd_model(path, odd);
    Case c = random_case(rng, GetParam());
    c.prompt.resize(200, 5);
    c.workers = 3, c.cuts = {64, 128};
    SCOPED_TRACE(odd.name + (": " + describe(c)));
    const Outcome one = run(path, {.prompt = c.prompt});
    const Outcome chain = run(path, c);
    EXPECT_EQ(chain.ranks, 3u);
    expect_bits(chain, one);
  }
}

// Layers of every kind; of those with a window only the pages in reach travel.
TEST_P(ChainExactness, EveryArchitectureGivesTheBitsOfOneWorker) {
  SeededRng rng(47);
  for (const test::ArchitectureModel& architecture : test::architecture_models()) {
    if (GetParam() != "memory" && architecture.window == 0) continue;
    const auto path = *directory_ / architecture.name;
    test::write_architecture_model(path, architecture);
    Case c = random_case(rng, GetParam());
    while (c.prompt.size() < 420) c.prompt.push_back(static_cast<TokenId>(3 + rng.next() % 290));
    c.workers = 4, c.cuts = {128, 192, 320};
    SCOPED_TRACE(architecture.name + (": " + describe(c)));
    const Outcome one = run(path, {.prompt = c.prompt});
    const Outcome chain = run(path, c);
    EXPECT_EQ(chain.ranks, 4u);
    expect_bits(chain, one);
  }
}

// Choices of one prompt are decoded behind the same pages, each as if it were alone.
TEST_P(ChainExactness, ChoicesThatShareTheirPromptsPagesAreThoseOfColdRuns) {
  SeededRng rng(41);
  Case c{.workers = 2, .transport = GetParam(), .strategy = Strategy::kBalanced, .max_new_tokens = 150};
  while (c.prompt.size() < 500) c.prompt.push_back(static_cast<TokenId>(3 + rng.next() % 290));
  std::vector<Outcome> alone;
  for (uint64_t seed = 7; seed < 11; ++seed)
    alone.push_back(run(model(), {.prompt = c.prompt, .max_new_tokens = 150, .seed = seed}));
  c.choices = 4;
  const Outcome together = run(model(), c);
  EXPECT_EQ(together.tokens, alone[0].tokens);
  ASSERT_EQ(together.sequences.size(), 4u);
  std::set<size_t> found;
  for (const Recording::Sequence& choice : together.sequences) {
    EXPECT_EQ(choice.first_page, together.sequences[0].first_page) << "one page for all";
    EXPECT_TRUE(choice.prompt_pages == alone[0].pages) << "K/V pages differ";
    for (size_t i = 0; i < alone.size(); ++i)
      if (choice.decode_logits.size() == alone[i].decode_logits.size() &&
          std::memcmp(choice.decode_logits.data(), alone[i].decode_logits.data(),
                      choice.decode_logits.size() * sizeof(float)) == 0)
        found.insert(i);
  }
  EXPECT_EQ(found.size(), 4u) << "every choice, to the bit";
  EXPECT_EQ(together.pages_left, 0);
}

TEST_P(ChainExactness, CompanyChangesNothing) {
  SeededRng rng(5);
  Case c = random_case(rng, GetParam());
  c.prompt.resize(400, 5);
  c.cuts.clear();
  const Outcome alone = run(model(), {.prompt = c.prompt});
  c.workers = 3;
  c.strategy = Strategy::kEven;
  c.company = 4;
  const Outcome crowd = run(model(), c);
  EXPECT_EQ(crowd.tokens, alone.tokens);
  EXPECT_EQ(crowd.first_logits_sha256, alone.first_logits_sha256);
  EXPECT_EQ(crowd.ranks, 3u);
  EXPECT_EQ(crowd.pages_left, 0);
}

INSTANTIATE_TEST_SUITE_P(Transports, ChainExactness, ::testing::Values("memory", "tcp", "ucx"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace runahead
