#include "planner/plan_reasons.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace runahead {
namespace {

constexpr double kFaster = 0.9;  // a tenth less time

struct Chain {
  std::vector<WorkerProfile> workers;
  Partition partition;
};

Chain chain_of(const Plan& plan) {
  Chain chain;
  for (const PlannedRank& rank : plan.ranks) {
    chain.workers.push_back(rank.profile);
    chain.partition.push_back(rank.range);
  }
  return chain;
}

double ttft(const ModelCost& model, const Chain& chain) {
  return chain_timeline(model, chain.workers, chain.partition).ttft_seconds;
}

WorkerSpeed faster(const WorkerSpeed& speed) { return scaled(speed, kFaster); }

// Whoever owns the last chunk computes it and receives the K/V of all before it: the least of the longer of the two over every
// length of that chunk, on the best worker.
double last_owner_bound(const PlanRequest& request) {
  std::optional<double> least;
  for (const WorkerProfile& worker : request.workers) {
    int32_t low = 0,
            high = request.context_len;  // where the chunk begins: the link's part grows with it, the compute falls
    while (low < high) {
      const int32_t begin = low + (high - low) / 2;
      const double compute =
          compute_seconds(worker.speed, chunk_work(request.model, {begin, request.context_len}, true));
      const double link = request.model.kv_bytes_per_token * tokens_in_reach(request.model, begin) / worker.ingress.bytes_per_second;
      if (compute <= link) high = begin;
      else low = begin + 1;
    }
    // At `low` the link takes longer, or everything is computed here; one token before, the compute does.
    const auto longer = [&](int32_t begin) {
      return std::max(compute_seconds(worker.speed, chunk_work(request.model, {begin, request.context_len}, true)),
                      request.model.kv_bytes_per_token * tokens_in_reach(request.model, begin) / worker.ingress.bytes_per_second);
    };
    const double here = std::min(longer(low), longer(std::max(0, low - 1)));
    least = std::min(least.value_or(here), here);
  }
  return *least;
}

bool takes_a_chain(PlanRequest request, int32_t context_len) {
  request.context_len = context_len;
  const Result<Plan> plan = make_plan(request);
  return plan && plan->ranks.size() > 1;
}

int32_t crossover(PlanRequest request, int32_t context_max) {
  request.strategy = Strategy::kBalanced;
  request.cuts.clear();
  request.ranks = 0;
  if (request.workers.size() < 2 || !takes_a_chain(request, context_max)) return 0;
  int32_t low = 0, high = pages_for(context_max);  // pages; high takes a chain
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    (takes_a_chain(request, std::min(middle * kPageTokens, context_max)) ? high : low) = middle;
  }
  return std::min(high * kPageTokens, context_max);
}

}  // namespace

PlanReasons explain(const PlanRequest& request, const Plan& plan, int32_t context_max) {
  const Chain chain = chain_of(plan);
  PlanReasons reasons{.bound_seconds = std::max(service_seconds(request.model, request.workers, request.context_len),
                                                last_owner_bound(request)),
                      .crossover_tokens = crossover(request, context_max)};
  const double now = ttft(request.model, chain);
  for (size_t rank = 0; rank < chain.workers.size(); ++rank)
    for (const bool is_link : {false, true}) {
      if (is_link && rank == 0) continue;
      Chain changed = chain;
      WorkerProfile& worker = changed.workers[rank];
      if (is_link)
        worker.ingress = {worker.ingress.latency_seconds * kFaster, worker.ingress.bytes_per_second / kFaster};
      else worker.speed = faster(worker.speed);
      const double gain = now - ttft(request.model, changed);
      if (gain <= reasons.critical_gain) continue;
      reasons.critical_rank = static_cast<int32_t>(rank);
      reasons.critical_is_link = is_link;
      reasons.critical_gain = gain;
    }
  return reasons;
}

std::string text(const PlanReasons& reasons, const Plan& plan) {
  const size_t ranks = plan.ranks.size();
  const PlannedRank& rank = plan.ranks[static_cast<size_t>(reasons.critical_rank)];
  std::string sentence = reasons.critical_is_link
                             ? fmt::format("the link into rank {} of {} decides: {} tokens of K/V come through it",
                                           reasons.critical_rank, ranks, rank.range.begin)
                             : fmt::format("the worker of rank {} of {} decides: it computes for {:.3g} s",
                                           reasons.critical_rank, ranks, rank.compute_seconds);
  sentence += fmt::format(
      "; a tenth faster, it would save {:.3g} s. No plan is faster than {:.3g} s here, this one is within "
      "{:.1f} % of that.",
      reasons.critical_gain, reasons.bound_seconds, 100 * (plan.predicted_ttft_seconds / reasons.bound_seconds - 1));
  sentence += reasons.crossover_tokens > 0
                  ? fmt::format(" From {} tokens on a chain is faster than one worker.", reasons.crossover_tokens)
                  : " One worker is faster than a chain at every length.";
  return sentence;
}

}  // namespace runahead
