#include "planner/strategies.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "base/check.h"

namespace runahead {
namespace {

constexpr int kBisections = 40;      // 2^-40 of the longest time: far below a page
constexpr int kRefineRanksMax = 16;  // one-page moves are tried up to here; beyond, a page is a small part of nothing
constexpr double kWorthRanks = 0.995;  // of TTFT: a chain that gains less than this share leaves its workers to others
constexpr int kRefineRounds = 4;  // each round tries every cut one page up and down

// Seconds a token and a pair with the last layer's savings in, so that the balance is that of the chain we run.
WorkerSpeed effective(const ModelCost& model, const WorkerSpeed& speed) {
  if (!model.skip_last_layer) return speed;
  const double last_layer = 1.0 / model.num_layers;
  return {.seconds_per_token = speed.seconds_per_token * (1 - (1 - model.qkv_share) * last_layer),
          .seconds_per_pair = speed.seconds_per_pair * (1 - last_layer),
          .seconds_per_chunk = speed.seconds_per_chunk,
          .seconds_per_prefix_token = speed.seconds_per_prefix_token};
}

// The n that solves c + w prefix + a n + b n (prefix + g n) = seconds, at least 0 and at most `most`.
double tokens_in(const ModelCost& model, const WorkerSpeed& speed, double prefix, double seconds, double most) {
  seconds = std::max(
      0.0, seconds - speed.seconds_per_chunk - speed.seconds_per_prefix_token * tokens_in_reach(model, prefix));
  if (model.windowed_share > 0) {  // pairs grow with n, but not as one polynomial
    double low = 0, high = most;
    for (int i = 0; i < kBisections; ++i) {
      const double n = (low + high) / 2;
      const double needed = speed.seconds_per_token * n + speed.seconds_per_pair * attention_pairs(model, prefix, n);
      (needed <= seconds ? low : high) = n;
    }
    return high;
  }
  const double g = model.diagonal_share;
  const double linear = speed.seconds_per_token + speed.seconds_per_pair * prefix,
               quadratic = speed.seconds_per_pair * g;
  if (quadratic <= 0) return seconds / linear;
  return 2 * seconds / (linear + std::sqrt(linear * linear + 4 * quadratic * seconds));  // stable for small quadratic
}

double time_left(const WorkerProfile& worker, double seconds) { return std::max(0.0, seconds - worker.busy_seconds); }

// Chunks of the first ranks as large as `seconds` allows, the rest to the last rank. True if that one makes it too.
bool fits(const ModelCost& model, std::span<const WorkerProfile> chain, double begin, double context_len,
          double seconds, std::vector<double>& chunks) {
  double prefix = begin;
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    const double link_tokens = seconds * chain[i + 1].ingress.bytes_per_second / model.kv_bytes_per_token;
    const double left = context_len - prefix;
    const double computed =
        tokens_in(model, effective(model, chain[i].speed), prefix, time_left(chain[i], seconds), left);
    chunks[i] = std::clamp(prefix_of_reach(model, link_tokens) - prefix, 0.0, std::min(computed, left));
    prefix += chunks[i];
  }
  chunks.back() = context_len - prefix;
  return chunks.back() <= tokens_in(model, effective(model, chain.back().speed), prefix,
                                    time_left(chain.back(), seconds), 2 * chunks.back());
}

struct CandidatePlan {
  std::vector<int32_t> workers;
  std::vector<WorkerProfile> chain;
  Partition partition;
  ChainTimeline timeline;
};

ChainTimeline stretched_timeline(const PlanRequest& request, std::span<const WorkerProfile> chain,
                                 const Partition& partition) {
  ChainTimeline timeline = chain_timeline(request.model, chain, partition);
  if (request.stretch != nullptr) timeline.ttft_seconds *= request.stretch->of(static_cast<int32_t>(chain.size()));
  return timeline;
}

CandidatePlan choose(const PlanRequest& request, std::vector<int32_t> workers, Partition partition) {
  CandidatePlan candidate{.workers = std::move(workers), .partition = std::move(partition)};
  for (int32_t worker : candidate.workers) candidate.chain.push_back(request.workers[static_cast<size_t>(worker)]);
  candidate.timeline = stretched_timeline(request, candidate.chain, candidate.partition);
  return candidate;
}

// Worker indices, the one that would be done with this prompt first before the others; equals in the order given.
std::vector<int32_t> by_speed(const PlanRequest& request) {
  std::vector<int32_t> order(request.workers.size());
  std::iota(order.begin(), order.end(), 0);
  const Work whole = chunk_work(request.model, {0, request.context_len}, true);
  std::ranges::stable_sort(order, {}, [&](int32_t w) {
    const WorkerProfile& worker = request.workers[static_cast<size_t>(w)];
    return worker.busy_seconds + compute_seconds(worker.speed, whole);
  });
  return order;
}

CandidatePlan balanced_in_order(const PlanRequest& request, std::vector<int32_t> workers) {
  std::vector<WorkerProfile> chain;
  for (int32_t worker : workers) chain.push_back(request.workers[static_cast<size_t>(worker)]);
  Partition partition = pages_of(balanced_chunks(request.model, chain, request.context_len, request.begin),
                                 request.context_len - request.begin);
  for (TokenRange& range : partition) range = {range.begin + request.begin, range.end + request.begin};
  return choose(request, std::move(workers), std::move(partition));
}

// The first rank receives nothing and the last one most, so the best link comes last; but with few pages the last chunk
// is the one that is not full, and then the slowest worker had better take it.
CandidatePlan balanced_over(const PlanRequest& request, std::vector<int32_t> fastest_first) {
  std::vector<int32_t> best_link_last = fastest_first;
  std::ranges::stable_sort(best_link_last, {},
                           [&](int32_t w) { return request.workers[static_cast<size_t>(w)].ingress.bytes_per_second; });
  const bool same = best_link_last == fastest_first;
  CandidatePlan candidate = balanced_in_order(request, std::move(best_link_last));
  if (same) return candidate;
  CandidatePlan other = balanced_in_order(request, std::move(fastest_first));
  return other.timeline.ttft_seconds < candidate.timeline.ttft_seconds ? other : candidate;
}

// Rounding to pages and the skew of the chain leave a little: move cuts by a page while the prediction gets better.
void refine(const PlanRequest& request, CandidatePlan& candidate) {
  const size_t ranks = candidate.partition.size();
  if (ranks > kRefineRanksMax) return;
  for (int round = 0; round < kRefineRounds; ++round) {
    bool better = false;
    for (size_t rank = 1; rank < ranks; ++rank) {
      for (int32_t step : {-kPageTokens, kPageTokens}) {
        Partition moved = candidate.partition;
        moved[rank - 1].end += step;
        moved[rank].begin += step;
        if (moved[rank - 1].empty() || moved[rank].empty()) continue;
        ChainTimeline timeline = stretched_timeline(request, candidate.chain, moved);
        if (timeline.ttft_seconds >= candidate.timeline.ttft_seconds) continue;
        candidate.partition = std::move(moved);
        candidate.timeline = std::move(timeline);
        better = true;
      }
    }
    if (!better) return;
  }
}

CandidatePlan even(const PlanRequest& request) {
  const auto all = static_cast<int32_t>(request.workers.size());
  Partition partition = even_partition(request.context_len, request.ranks > 0 ? std::min(request.ranks, all) : all);
  std::vector<int32_t> workers(partition.size());
  std::iota(workers.begin(), workers.end(), 0);
  return choose(request, std::move(workers), std::move(partition));
}

CandidatePlan balanced(const PlanRequest& request) {
  const std::vector<int32_t> order = by_speed(request);
  const int32_t most = std::min<int32_t>(static_cast<int32_t>(order.size()), ranks_max(request.context_len));
  auto first = [&](int32_t ranks) { return std::vector<int32_t>(order.begin(), order.begin() + ranks); };
  CandidatePlan best = balanced_over(request, first(request.ranks > 0 ? std::min(request.ranks, most) : 1));
  if (request.ranks <= 0) {
    // Every number up to 8, then in steps of a quarter: TTFT is flat around its minimum.
    for (int32_t ranks = 2; ranks <= most; ranks += ranks < 8 ? 1 : ranks / 4) {
      CandidatePlan next = balanced_over(request, first(ranks));
      if (next.timeline.ttft_seconds < kWorthRanks * best.timeline.ttft_seconds) best = std::move(next);
    }
  }
  // With a handful of pages and very unlike links, who is where counts more than balance: the given order is a
  // candidate.
  CandidatePlan equal = even(request);
  if (equal.timeline.ttft_seconds < kWorthRanks * best.timeline.ttft_seconds) best = std::move(equal);
  refine(request, best);
  return best;
}

// The worker that has the beginning goes on behind it, and others take what comes later: its first pages are on their way to them
// at once.
CandidatePlan behind_kept_pages(PlanRequest request) {
  // To read a kept token's K/V costs no more than to compute them, whatever a law of few samples says.
  WorkerSpeed& first = request.workers.front().speed;
  first.seconds_per_prefix_token =
      std::min(first.seconds_per_prefix_token, request.model.qkv_share * first.seconds_per_token);
  CandidatePlan best = choose(request, {0}, {{request.begin, request.context_len}});
  if (request.strategy == Strategy::kSingle) return best;
  std::vector<int32_t> others = by_speed(request);
  std::erase(others, 0);
  const int32_t most =
      std::min<int32_t>(static_cast<int32_t>(request.workers.size()), ranks_max(request.context_len - request.begin));
  for (int32_t ranks = 2; ranks <= most; ranks += ranks < 8 ? 1 : ranks / 4) {
    std::vector<int32_t> workers{0};
    workers.insert(workers.end(), others.begin(), others.begin() + ranks - 1);
    CandidatePlan next = balanced_in_order(request, std::move(workers));
    if (next.timeline.ttft_seconds < kWorthRanks * best.timeline.ttft_seconds) best = std::move(next);
  }
  refine(request, best);
  return best;
}

// All workers in the order given, one a rank.
Result<CandidatePlan> in_order(const PlanRequest& request, Partition partition, const std::string& what) {
  if (partition.size() > request.workers.size())
    return fail(ErrorCode::kInvalidArgument,
                what + " need " + std::to_string(partition.size()) + " workers, " +
                    std::to_string(request.workers.size()) + " are ready; give fewer cuts or start more workers",
                "cuts");
  std::vector<int32_t> workers(partition.size());
  std::iota(workers.begin(), workers.end(), 0);
  return choose(request, std::move(workers), std::move(partition));
}

Result<CandidatePlan> from_table(const PlanRequest& request) {
  const std::string strategy(name(request.strategy));
  if (request.table == nullptr)
    return fail(ErrorCode::kInvalidArgument,
                "the strategy '" + strategy + "' needs a table of cuts that `runahead plan search` made", "strategy");
  const auto ranks = std::ssize(request.table->entries.front().shares);
  if (ranks > ranks_max(request.context_len))
    return fail(
        ErrorCode::kInvalidArgument,
        "the prompt is too short for the " + std::to_string(ranks) + " ranks of the table; use the strategy 'auto'",
        "strategy");
  Partition partition = request.strategy == Strategy::kPredicted
                            ? predicted_partition(*request.table, request.context_len)
                            : TRY(searched_partition(*request.table, request.context_len));
  return in_order(request, std::move(partition), "the table's cuts");
}

Plan plan_of(const PlanRequest& request, const CandidatePlan& candidate) {
  Plan plan{.strategy = request.strategy, .predicted_ttft_seconds = candidate.timeline.ttft_seconds};
  for (size_t rank = 0; rank < candidate.partition.size(); ++rank)
    plan.ranks.push_back({.worker = candidate.workers[rank],
                          .range = candidate.partition[rank],
                          .compute_seconds = candidate.timeline.ranks[rank].compute_seconds,
                          .kv_wait_seconds = candidate.timeline.ranks[rank].kv_wait_seconds,
                          .profile = candidate.chain[rank]});
  return plan;
}

Result<void> check_request(const PlanRequest& request) {
  if (request.context_len <= 0)
    return fail(ErrorCode::kInvalidArgument, "the prompt is empty; send at least one token", "prompt");
  if (request.workers.empty())
    return fail(ErrorCode::kUnavailable, "no prefill worker is ready; start one or wait for it");
  RUNAHEAD_CHECK(request.workers.size() <= static_cast<size_t>(kPlannedWorkersMax), "plans are for so many workers");
  RUNAHEAD_CHECK(
      request.begin % kPageTokens == 0 && request.begin >= 0 && request.begin < request.context_len &&
          (request.begin == 0 || request.strategy == Strategy::kSingle || request.strategy == Strategy::kBalanced),
      "kept pages are whole, and leave a token to compute");
  RUNAHEAD_CHECK(request.model.num_layers > 0 && request.model.kv_bytes_per_token > 0, "the model is known");
  for (const WorkerProfile& worker : request.workers)
    RUNAHEAD_CHECK(worker.speed.seconds_per_token > 0 && worker.speed.seconds_per_pair >= 0 &&
                       worker.speed.seconds_per_chunk >= 0 && worker.speed.seconds_per_prefix_token >= 0 &&
                       worker.ingress.bytes_per_second > 0 && worker.ingress.latency_seconds >= 0 &&
                       worker.ingress.links > 0 && worker.busy_seconds >= 0,
                   "profiles are positive");
  if (request.strategy != Strategy::kByHand && !request.cuts.empty())
    return fail(ErrorCode::kInvalidArgument, "cuts and a strategy exclude each other; give one of them", "cuts");
  return {};
}

}  // namespace

std::string_view name(Strategy strategy) {
  switch (strategy) {
    case Strategy::kSingle:
      return "single";
    case Strategy::kEven:
      return "even";
    case Strategy::kBalanced:
      return "balanced";
    case Strategy::kByHand:
      return "cuts";
    case Strategy::kSearched:
      return "searched";
    case Strategy::kPredicted:
      return "predicted";
  }
  check_failed("strategy", __FILE__, __LINE__, "unknown strategy");
}

Result<Strategy> parse_strategy(std::string_view text) {
  if (text == "auto") return Strategy::kBalanced;
  for (const Strategy strategy :
       {Strategy::kBalanced, Strategy::kSingle, Strategy::kEven, Strategy::kSearched, Strategy::kPredicted})
    if (text == name(strategy)) return strategy;
  return fail(ErrorCode::kInvalidArgument,
              "unknown strategy '" + std::string(text) + "'; use auto, balanced, even, single, searched or predicted",
              "strategy");
}

std::vector<double> balanced_chunks(const ModelCost& model, std::span<const WorkerProfile> chain, int32_t context_len,
                                    int32_t begin) {
  RUNAHEAD_CHECK(!chain.empty() && begin >= 0 && context_len > begin, "a chain has workers and tokens");
  std::vector<double> chunks(chain.size());
  const double n = context_len - begin;
  double low = 0;
  double high =
      chain.back().busy_seconds +  // the last worker alone always makes it
      compute_seconds(effective(model, chain.back().speed), {.tokens = n,
                                                             .pairs = attention_pairs(model, begin, n),
                                                             .chunks = 1,
                                                             .prefix_tokens = static_cast<double>(context_len)});
  for (int i = 0; i < kBisections; ++i) {
    const double middle = (low + high) / 2;
    (fits(model, chain, begin, context_len, middle, chunks) ? high : low) = middle;
  }
  fits(model, chain, begin, context_len, high, chunks);
  return chunks;
}

Result<Plan> make_plan(const PlanRequest& request) {
  TRY(check_request(request));
  CandidatePlan candidate;
  if (request.begin > 0) return plan_of(request, behind_kept_pages(request));
  switch (request.strategy) {
    case Strategy::kSingle:
      candidate = choose(request, {by_speed(request).front()}, {{0, request.context_len}});
      break;
    case Strategy::kEven:
      candidate = even(request);
      break;
    case Strategy::kBalanced:
      candidate = balanced(request);
      break;
    case Strategy::kByHand:
      candidate = TRY(in_order(request, TRY(partition_by_hand(request.context_len, request.cuts)),
                               std::to_string(request.cuts.size()) + " cuts"));
      break;
    case Strategy::kSearched:
    case Strategy::kPredicted:
      candidate = TRY(from_table(request));
      break;
  }
  return plan_of(request, candidate);
}

}  // namespace runahead
