#include "planner/strategies.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/limits.h"
#include "base/rng.h"
#include "small_model.h"

namespace runahead {
namespace {

constexpr WorkerProfile kWorker{.speed = {.seconds_per_token = 1e-4, .seconds_per_pair = 2e-8},
                                .ingress = {.latency_seconds = 1e-4, .bytes_per_second = 1e10}};

PlanRequest request(int32_t context_len, size_t workers, Strategy strategy = Strategy::kBalanced) {
  return {.strategy = strategy,
          .context_len = context_len,
          .model = small_model(),
          .workers = std::vector(workers, kWorker)};
}

Partition ranges(const Plan& plan) {
  Partition partition;
  for (const PlannedRank& rank : plan.ranks) partition.push_back(rank.range);
  return partition;
}

TEST(Strategies, NamesAreParsed) {
  EXPECT_EQ(parse_strategy("auto"), Strategy::kBalanced);
  for (Strategy strategy :
       {Strategy::kSingle, Strategy::kEven, Strategy::kBalanced, Strategy::kSearched, Strategy::kPredicted})
    EXPECT_EQ(parse_strategy(name(strategy)), strategy);
  EXPECT_EQ(parse_strategy("fastest").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(parse_strategy("").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(parse_strategy("cuts").error().code, ErrorCode::kInvalidArgument) << "cuts are given, not named";
}

TEST(Strategies, BehindKeptPagesTheirWorkerIsFirstAndTheRestIsShared) {
  PlanRequest whole = request(8192, 4), rest = whole;
  rest.begin = 4096;
  const Plan cold = *make_plan(whole), warm = *make_plan(rest);
  ASSERT_EQ(warm.ranks.size(), 4u);
  EXPECT_EQ(warm.ranks.front().worker, 0);
  int32_t at = 4096;
  for (const PlannedRank& rank : warm.ranks) {
    EXPECT_EQ(rank.range.begin, at);
    at = rank.range.end;
  }
  EXPECT_EQ(at, 8192);
  EXPECT_LT(warm.predicted_ttft_seconds, cold.predicted_ttft_seconds);
  EXPECT_GT(warm.predicted_ttft_seconds, 0.5 * cold.predicted_ttft_seconds) << "the later half attends to the first";
  rest.begin = 8128;  // a page is left
  EXPECT_EQ(make_plan(rest)->ranks.size(), 1u);
  rest.begin = 4096;
  rest.strategy = Strategy::kSingle;
  ASSERT_EQ(make_plan(rest)->ranks.size(), 1u);
  EXPECT_EQ(make_plan(rest)->ranks.front().range, (TokenRange{4096, 8192}));
  for (size_t i = 1; i < rest.workers.size(); ++i) rest.workers[i].speed.seconds_per_token /= 100;
  EXPECT_EQ(make_plan(rest)->ranks.front().worker, 0) << "the others do not have the beginning";
}

// Whatever has been learnt of walking through a prefix: to begin behind kept pages is never predicted to be later.
TEST(Strategies, BehindKeptPagesIsNeverLaterThanFromTheFirstTokenOnTheSameWorker) {
  SeededRng rng(8);
  for (int round = 0; round < 300; ++round) {
    PlanRequest whole = request(static_cast<int32_t>(65 + rng.next() % 8000), 1, Strategy::kSingle);
    whole.workers[0].speed.seconds_per_prefix_token = log_uniform(rng, 1e-7, 1e-2);
    PlanRequest rest = whole;
    rest.begin = static_cast<int32_t>(1 + rng.next() % static_cast<uint64_t>((whole.context_len - 1) / 64)) * 64;
    EXPECT_LE(make_plan(rest)->predicted_ttft_seconds, make_plan(whole)->predicted_ttft_seconds * (1 + 1e-9));
  }
}

// Slow links: the pages that the others need first cost more than they save.
TEST(Strategies, BehindKeptPagesSlowLinksLeaveTheRestToTheirWorker) {
  PlanRequest rest = request(8192, 4);
  rest.begin = 4096;
  for (WorkerProfile& worker : rest.workers) worker.ingress.bytes_per_second = 1e8;
  EXPECT_EQ(make_plan(rest)->ranks.size(), 1u);
}

TEST(Strategies, ATableOfSearchedCutsIsTakenOrRefusedClearly) {
  const SplitTable table{.identity = "m", .entries = {{1024, {0.625, 0.375}, 1}, {2048, {0.75, 0.25}, 2}}};
  PlanRequest r = request(1024, 3, Strategy::kSearched);
  EXPECT_NE(make_plan(r).error().message.find("needs a table"), std::string::npos);
  r.table = &table;
  EXPECT_EQ(ranges(*make_plan(r)), (Partition{{0, 640}, {640, 1024}})) << "two ranks, as in the table";
  r.context_len = 1536;
  EXPECT_NE(make_plan(r).error().message.find("only for 1024, 2048"), std::string::npos);
  r.strategy = Strategy::kPredicted;
  EXPECT_EQ(ranges(*make_plan(r)), (Partition{{0, 1088}, {1088, 1536}})) << "0.6875 of it is 1056: half a page up";
  r.context_len = 64;
  EXPECT_NE(make_plan(r).error().message.find("too short for the 2 ranks"), std::string::npos);
  r = request(1024, 1, Strategy::kPredicted);
  r.table = &table;
  EXPECT_EQ(make_plan(r).error().message,
            "the table's cuts need 2 workers, 1 are ready; give fewer cuts or start more workers");
}

// Any workers, links, lengths and strategies: the plan is one that a chain can run.
TEST(Strategies, EveryPlanCoversThePromptWithDistinctWorkers) {
  SeededRng rng(11);
  for (int round = 0; round < 600; ++round) {
    PlanRequest r = request(static_cast<int32_t>(log_uniform(rng, 1, 100000)), 1 + rng.next() % 20,
                            static_cast<Strategy>(rng.next() % 3));
    r.ranks = static_cast<int32_t>(rng.next() % 6);
    for (WorkerProfile& worker : r.workers)
      worker = {.speed = {.seconds_per_token = log_uniform(rng, 1e-6, 1e-3),
                          .seconds_per_pair = log_uniform(rng, 1e-10, 1e-6)},
                .ingress = {.latency_seconds = log_uniform(rng, 1e-6, 1e-2),
                            .bytes_per_second = log_uniform(rng, 1e6, 1e11)}};
    const auto plan = make_plan(r);
    ASSERT_TRUE(plan);
    ASSERT_TRUE(check_partition(ranges(*plan), r.context_len)) << "round " << round;
    std::set<int32_t> workers;
    for (const PlannedRank& rank : plan->ranks) {
      ASSERT_TRUE(rank.worker >= 0 && rank.worker < static_cast<int32_t>(r.workers.size()));
      ASSERT_TRUE(workers.insert(rank.worker).second) << "a worker has one rank";
      ASSERT_GE(rank.kv_wait_seconds, 0);
      ASSERT_GT(rank.compute_seconds, 0);
    }
    ASSERT_TRUE(std::isfinite(plan->predicted_ttft_seconds) && plan->predicted_ttft_seconds > 0);
  }
}

// But for the half percent that a further rank must be worth.
TEST(Strategies, BalancedIsNeverPredictedWorseThanSingleOrEven) {
  SeededRng rng(12);
  for (int round = 0; round < 400; ++round) {
    PlanRequest r = request(static_cast<int32_t>(log_uniform(rng, 1, 60000)), 1 + rng.next() % 8);
    for (WorkerProfile& worker : r.workers)
      worker = {
          .speed = {.seconds_per_token = uniform(rng, 0.5e-4, 2e-4), .seconds_per_pair = uniform(rng, 1e-8, 4e-8)},
          .ingress = {.latency_seconds = 1e-4, .bytes_per_second = log_uniform(rng, 1e6, 1e11)}};
    const double ours = make_plan(r)->predicted_ttft_seconds;
    for (Strategy rival : {Strategy::kSingle, Strategy::kEven}) {
      r.strategy = rival;
      EXPECT_LE(ours, make_plan(r)->predicted_ttft_seconds / 0.994)
          << name(rival) << " round " << round << " tokens " << r.context_len;
    }
  }
}

// The optimum over all cuts of a small case, by trying them all, with links from free to hopeless.
TEST(Strategies, BalancedIsWithinTwoPercentOfTheBestOfAllCuts) {
  for (double bandwidth : {1e7, 3e7, 1e8, 3e8, 1e9, 1e10}) {
    PlanRequest r = request(40 * kPageTokens, 3);
    for (WorkerProfile& worker : r.workers) worker.ingress.bytes_per_second = bandwidth;
    r.workers[1].speed.seconds_per_token *= 1.4;
    double best =
        make_plan({.strategy = Strategy::kSingle, .context_len = r.context_len, .model = r.model, .workers = r.workers})
            ->predicted_ttft_seconds;
    std::vector<int32_t> order = {0, 1, 2};
    do {
      PlanRequest trial = r;
      trial.strategy = Strategy::kByHand;
      for (size_t i = 0; i < 3; ++i) trial.workers[i] = r.workers[static_cast<size_t>(order[i])];
      for (int32_t first = 1; first < 40; ++first) {
        trial.cuts = {first * kPageTokens};
        best = std::min(best, make_plan(trial)->predicted_ttft_seconds);
        for (int32_t second = first + 1; second < 40; ++second) {
          trial.cuts = {first * kPageTokens, second * kPageTokens};
          best = std::min(best, make_plan(trial)->predicted_ttft_seconds);
        }
      }
    } while (std::ranges::next_permutation(order).found);
    EXPECT_LE(make_plan(r)->predicted_ttft_seconds, best * 1.02) << bandwidth;
  }
}

TEST(Strategies, AShortPromptUsesFewerRanksAndNoneIsEmpty) {
  EXPECT_EQ(make_plan(request(1, 8))->ranks.size(), 1u);
  EXPECT_EQ(make_plan(request(64, 8))->ranks.size(), 1u);
  EXPECT_EQ(make_plan(request(65, 8, Strategy::kEven))->ranks.size(), 2u);
  EXPECT_LE(make_plan(request(200, 8))->ranks.size(), 4u);
  PlanRequest forced = request(129, 8);
  forced.ranks = 8;
  EXPECT_EQ(make_plan(forced)->ranks.size(), 3u);
}

TEST(Strategies, SlowLinksMeanFewerRanks) {
  size_t last = 0;
  for (double bandwidth : {1e5, 1e7, 1e8, 1e10}) {
    PlanRequest r = request(8192, 8);
    for (WorkerProfile& worker : r.workers) worker.ingress.bytes_per_second = bandwidth;
    const size_t ranks = make_plan(r)->ranks.size();
    EXPECT_GE(ranks, last) << bandwidth;
    last = ranks;
  }
  EXPECT_EQ(last, 8u);
  PlanRequest hopeless = request(8192, 8);
  for (WorkerProfile& worker : hopeless.workers) worker.ingress.bytes_per_second = 1e4;
  EXPECT_EQ(make_plan(hopeless)->ranks.size(), 1u);
}

TEST(Strategies, ASlowerWorkerGetsFewerTokens) {
  PlanRequest r = request(8192, 4);
  r.workers[2].speed = {.seconds_per_token = 2e-4, .seconds_per_pair = 4e-8};
  const Plan plan = *make_plan(r);
  ASSERT_EQ(plan.ranks.size(), 4u);
  double least = 1e9, most = 0;
  for (const PlannedRank& rank : plan.ranks) {
    least = std::min(least, rank.compute_seconds);
    most = std::max(most, rank.compute_seconds);
  }
  EXPECT_LT(most / least, 1.06);  // a page is 64 of about 2,000 tokens
}

TEST(Strategies, ABusyWorkerGetsFewerTokensOrNone) {
  PlanRequest plan = request(2048, 2);
  plan.workers[0].busy_seconds = 0.05;
  const Plan some = *make_plan(plan);
  ASSERT_EQ(some.ranks.size(), 2u);
  const size_t busy = some.ranks[0].worker == 0 ? 0 : 1;
  EXPECT_LT(some.ranks[busy].range.size(), some.ranks[1 - busy].range.size());
  plan.workers[0].busy_seconds = 100;
  const Plan alone = *make_plan(plan);
  ASSERT_EQ(alone.ranks.size(), 1u);
  EXPECT_EQ(alone.ranks[0].worker, 1);
  plan.strategy = Strategy::kSingle;
  EXPECT_EQ(make_plan(plan)->ranks[0].worker, 1) << "the one that is done first";
}

TEST(Strategies, WaitingIsPartOfThePrediction) {
  PlanRequest plan = request(1000, 1);
  const double idle = make_plan(plan)->predicted_ttft_seconds;
  plan.workers[0].busy_seconds = 3;
  EXPECT_NEAR(make_plan(plan)->predicted_ttft_seconds, idle + 3, 1e-9);
}

TEST(Strategies, BusyWorkersEndTogether) {
  SeededRng rng(11);
  for (int i = 0; i < 100; ++i) {
    PlanRequest plan = request(8192, 4);
    for (WorkerProfile& worker : plan.workers) worker.busy_seconds = uniform(rng, 0, 0.2);
    const Plan best = *make_plan(plan);
    double least = 0;  // all work divided without loss among workers that begin when they are free
    for (const WorkerProfile& worker : plan.workers) least += worker.busy_seconds;
    const Work whole = chunk_work(plan.model, {0, 8192}, true);
    least = (least + compute_seconds(kWorker.speed, whole)) / 4;
    EXPECT_GE(best.predicted_ttft_seconds, 0.95 * least);
    EXPECT_LE(best.predicted_ttft_seconds, 1.25 * least) << i;
  }
}

TEST(Strategies, CutsByHandAreTakenAsGivenOrRefusedClearly) {
  PlanRequest r = request(1000, 2, Strategy::kByHand);
  r.cuts = {640};
  const Plan plan = *make_plan(r);
  EXPECT_EQ(ranges(plan), (Partition{{0, 640}, {640, 1000}}));
  EXPECT_EQ(plan.ranks[1].worker, 1);
  r.cuts = {320, 640};
  EXPECT_EQ(make_plan(r).error().message, "2 cuts need 3 workers, 2 are ready; give fewer cuts or start more workers");
  r.strategy = Strategy::kEven;
  EXPECT_EQ(make_plan(r).error().code, ErrorCode::kInvalidArgument);
}

TEST(Strategies, NoWorkersAndNoTokensAreErrors) {
  EXPECT_EQ(make_plan(request(100, 0)).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(make_plan(request(0, 2)).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace runahead
