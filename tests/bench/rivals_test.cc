// The rivals give the chain's tokens: the logits of every exact scheme are one worker's, bit for bit, over every number of ranks,
// and the token of the others.
#include <gtest/gtest.h>

#include <algorithm>

#include "actors/worker/thread_lane.h"
#include "base/sha256.h"
#include "bench/rivals/rank_run.h"
#include "model/transformer/prefill.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/transport/run_loop.h"
#include "transport/kv/memory_kv_transport.h"
#include "transport/kv/select_transport.h"

namespace runahead::rivals {
namespace {

constexpr int32_t kTokensMax = 1024;

std::vector<TokenId> prompt(int32_t tokens) {
  std::vector<TokenId> ids;
  SeededRng rng(static_cast<uint64_t>(tokens));
  for (int32_t i = 0; i < tokens; ++i) ids.push_back(static_cast<TokenId>(rng.next() % 200));
  return ids;
}

class Rivals : public testing::Test {
 protected:
  struct Rank {
    std::unique_ptr<Transformer> engine;
    std::unique_ptr<KvPool> pool;
    std::unique_ptr<ThreadLane> lane;
    std::unique_ptr<KvTransport> kv;
  };
  struct Outcome {
    std::vector<Result<RankReport>> reports;
    std::vector<std::pair<int32_t, FirstToken>> tokens;
  };

  void SetUp() override { test::write_tiny_llama(dir_ / "m.gguf", 3, {.num_layers = 4}); }

  std::unique_ptr<Transformer> engine() {
    return *Transformer::load({.model = dir_ / "m.gguf", .compute = ComputeMode::kInt8});
  }

  void start(int32_t ranks, const std::string& transport = "memory") {
    const auto hub = std::make_shared<MemoryKvHub>();
    for (int32_t i = 0; i < ranks; ++i) {
      Rank rank{.engine = engine(), .lane = std::make_unique<ThreadLane>(loop_.clock())};
      rank.pool = std::make_unique<KvPool>(rank.engine->page_bytes(), int64_t{4} * pages_for(kTokensMax));
      rank.kv = *make_kv_transport(transport, {.incarnation = static_cast<uint64_t>(i) + 1, .hub = hub},
                                   loop_.executor(), loop_.clock());
      ASSERT_TRUE(rank.kv->register_memory(rank.pool->memory()));
      ranks_.push_back(std::move(rank));
    }
  }
  void TearDown() override {
    for (Rank& rank : ranks_) loop_.run(rank.kv->shutdown());
  }

  asio::awaitable<void> run_one(int32_t rank, RankOrder order, Outcome& outcome) {
    Rank& r = ranks_[static_cast<size_t>(rank)];
    const RankEnv env{loop_.executor(), loop_.clock(), *r.kv, *r.pool, *r.lane, *r.engine};
    order.rank = rank;
    for (const Rank& peer : ranks_) order.peers.push_back(peer.kv->address());
    Result<RankReport> report = co_await run_rank(
        env, std::move(order), [&outcome, rank](const FirstToken& token) { outcome.tokens.emplace_back(rank, token); });
    outcome.reports.push_back(std::move(report));
  }

  Outcome run(RankOrder order) {
    Outcome outcome;
    order.run = ++runs_;
    Gate gate(loop_.executor(), loop_.clock());
    for (int32_t rank = 0; rank < std::ssize(ranks_); ++rank) gate.spawn(run_one(rank, order, outcome));
    loop_.run(gate.close());
    for (const Rank& rank : ranks_) EXPECT_EQ(rank.pool->usage().free, rank.pool->usage().total);
    return outcome;
  }

  FirstToken of_one_worker(const std::vector<TokenId>& tokens) {
    const auto alone = engine();
    SequenceCache cache(*alone, kTokensMax);
    const std::shared_ptr<KvLease> lease = *cache.lease(static_cast<int32_t>(tokens.size()));
    const std::vector<float> logits = prefill(*alone, *lease, tokens);
    return {.token = static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin()),
            .logits_sha256 = hex(sha256(std::as_bytes(std::span(logits))))};
  }

  void expect_one_workers_token(const Scheme& scheme, RankOrder order) {
    order.scheme = scheme.name;
    const Outcome outcome = run(order);
    for (const auto& report : outcome.reports)
      EXPECT_TRUE(report.has_value()) << (report ? "" : report.error().message);
    ASSERT_EQ(outcome.tokens.size(), 1u) << order.scheme;
    EXPECT_EQ(outcome.tokens[0].first + 1, std::ssize(ranks_));
    const FirstToken alone = of_one_worker(order.tokens), together = outcome.tokens[0].second;
    EXPECT_EQ(together.token, alone.token) << order.scheme;
    EXPECT_TRUE(!scheme.exact || together.logits_sha256 == alone.logits_sha256) << order.scheme;
  }

  test::TempDir dir_;
  RunLoop loop_;
  std::vector<Rank> ranks_;
  uint64_t runs_ = 0;
};

TEST_F(Rivals, EverySchemeGivesOneWorkersToken) {
  for (int32_t ranks = 1; ranks <= 4; ++ranks) {
    ranks_.clear();
    start(ranks);
    for (const Scheme& scheme : schemes())
      for (const int32_t tokens : {512, 700, 1001}) expect_one_workers_token(scheme, {.tokens = prompt(tokens)});
  }
}

TEST_F(Rivals, CutsMayBeGiven) {
  start(3);
  for (const Scheme& scheme : schemes()) {
    std::vector<int32_t> cuts = {64, 640};
    if (scheme.chunks_a_rank != 1) cuts = {64, 128, 256, 512, 832};
    expect_one_workers_token(scheme, {.tokens = prompt(900), .cuts = cuts});
  }
}

TEST_F(Rivals, PagesGoOverRealConnections) {
  start(3, "tcp");
  for (const Scheme& scheme : schemes()) expect_one_workers_token(scheme, {.tokens = prompt(500)});
}

TEST_F(Rivals, SendWhatTheyAreKnownToSend) {
  start(4);
  const auto sent = [this](std::string scheme) {
    uint64_t bytes = 0;
    for (const auto& report : run({.scheme = std::move(scheme), .tokens = prompt(1024)}).reports)
      bytes += report->sent_bytes;
    return bytes;
  };
  const uint64_t page = ranks_[0].pool->page_bytes(), cache = 4 * 16 * page;  // 4 layers of 16 pages
  EXPECT_EQ(sent("tsp"), 3 * cache) << "every rank gets what the three others have";
  EXPECT_EQ(sent("tsp-causal"), 3 * cache);
  EXPECT_EQ(sent("ring"), 3 * cache);
  EXPECT_EQ(sent("paper-kvr"), cache * (1 + 2 + 3) / 4) << "the prefix of every rank but the first";
  EXPECT_EQ(sent("chain"), cache * (1 + 2 + 3) / 4);
  EXPECT_EQ(sent("pipeline"), 3u * 1024 * 64 * sizeof(float)) << "rows of 64 values, three times handed on";
}

TEST_F(Rivals, AWrongOrderIsRefusedInWords) {
  start(2);
  const auto refused = [this](RankOrder order) { return run(std::move(order)).reports.front().error().message; };
  EXPECT_EQ(refused({.scheme = "magic", .tokens = prompt(200)}), "there is no scheme 'magic'");
  EXPECT_NE(refused({.scheme = "tsp", .tokens = prompt(200), .cuts = {100}}).find("64"), std::string::npos);
  EXPECT_EQ(refused({.scheme = "tsp", .tokens = prompt(200), .cuts = {64, 128}}),
            "tsp wants 2 chunks for 2 ranks, not 3");
  EXPECT_EQ(refused({.scheme = "tsp", .tokens = prompt(60)}), "tsp wants 2 chunks for 2 ranks, not 1");
  EXPECT_NE(refused({.scheme = "tsp", .tokens = {1, 2, 9999}}).find("outside the vocabulary"), std::string::npos);
}

}  // namespace
}  // namespace runahead::rivals
