#include "planner/plan_reasons.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace runahead {
namespace {

ModelCost model() { return {.num_layers = 32, .kv_bytes_per_token = 5e5, .qkv_share = 0.25, .head_tokens = 0.5}; }

WorkerProfile worker(double seconds_per_token, double bytes_per_second) {
  return {.speed = {.seconds_per_token = seconds_per_token, .seconds_per_pair = seconds_per_token * 1e-4},
          .ingress = {.latency_seconds = 1e-4, .bytes_per_second = bytes_per_second}};
}

PlanRequest request_of(int32_t context_len, std::vector<WorkerProfile> workers) {
  return {.context_len = context_len, .model = model(), .workers = std::move(workers)};
}

double between(SeededRng& rng, double low, double high) {
  return low * std::pow(high / low, static_cast<double>(rng.next() >> 11) * 0x1.0p-53);
}

TEST(PlanReasons, NoPlanOfRandomClustersIsBelowTheBound) {
  SeededRng rng(1);
  double closest = 2;
  for (int i = 0; i < 300; ++i) {
    std::vector<WorkerProfile> workers;
    for (uint64_t w = 0; w < 1 + rng.next() % 8; ++w)
      workers.push_back(worker(between(rng, 1e-5, 1e-3), between(rng, 1e7, 1e11)));
    const PlanRequest request = request_of(static_cast<int32_t>(64 + rng.next() % 30000), workers);
    const Plan plan = *make_plan(request);
    const PlanReasons reasons = explain(request, plan, 32768);
    EXPECT_GE(plan.predicted_ttft_seconds, 0.99 * reasons.bound_seconds);
    closest = std::min(closest, plan.predicted_ttft_seconds / reasons.bound_seconds);
  }
  EXPECT_LT(closest, 1.02) << "a bound that nothing comes near says nothing";
}

TEST(PlanReasons, NamesTheSlowLinkOrTheWorkerThatDecides) {
  std::vector<WorkerProfile> workers(4, worker(1e-4, 1e11));
  PlanRequest request = request_of(16384, workers);
  request.strategy = Strategy::kByHand;
  request.cuts = {4096, 8192, 14336};  // the third rank has half as much again
  PlanReasons reasons = explain(request, *make_plan(request), 16384);
  EXPECT_EQ(reasons.critical_rank, 2);
  EXPECT_FALSE(reasons.critical_is_link);
  workers[3].ingress.bytes_per_second = 1e9;
  request.workers = workers;
  request.cuts = {6400, 10368, 13568};
  const Plan plan = *make_plan(request);
  reasons = explain(request, plan, 16384);
  EXPECT_EQ(reasons.critical_rank, 3);
  EXPECT_TRUE(reasons.critical_is_link);
  EXPECT_NE(text(reasons, plan).find("the link into rank 3 of 4 decides"), std::string::npos) << text(reasons, plan);
}

TEST(PlanReasons, TheCrossoverIsWhereTheBalancedPlanTakesTwo) {
  PlanRequest request = request_of(8192, std::vector<WorkerProfile>(4, worker(1e-4, 2e9)));
  for (WorkerProfile& worker : request.workers) worker.speed.seconds_per_chunk = 0.05;
  const PlanReasons reasons = explain(request, *make_plan(request), 32768);
  ASSERT_GT(reasons.crossover_tokens, 64);
  for (const auto& [tokens, ranks_at_least] :
       {std::pair{reasons.crossover_tokens, 2}, {reasons.crossover_tokens - 64, 1}}) {
    request.context_len = tokens;
    const auto ranks = static_cast<int>(make_plan(request)->ranks.size());
    EXPECT_EQ(ranks > 1, ranks_at_least > 1) << tokens;
  }
  request.workers.resize(1);
  EXPECT_EQ(explain(request, *make_plan(request), 32768).crossover_tokens, 0);
}

}  // namespace
}  // namespace runahead
