// Strategies: who gets which tokens. make_plan answers in under a millisecond (`runahead bench plan`), so every
// request gets its own plan. Pure arithmetic, no clock, any thread.
//
//   single     the worker that is done first, alone
//   even       KVR-E, paper 4.2: equal chunks, all workers in the order given
//   balanced   ours: all ranks are done together, whatever they must do before, and no link carries more than fits into
//              that time; unequal workers and links; as many ranks as minimise the predicted TTFT. Closed form and
//              bisection instead of the paper's search
//   by hand    cuts given by a person; worker r is rank r
//   searched   KVR-S: what `runahead plan search` measured as best for this very length, all workers in the order given
//   predicted  KVR-P: shares between those of the two nearest lengths that were searched
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "planner/chain_timeline.h"
#include "planner/cost_model.h"
#include "planner/partition.h"
#include "planner/profile.h"
#include "planner/split_table.h"

namespace runahead {

enum class Strategy { kSingle, kEven, kBalanced, kByHand, kSearched, kPredicted };

std::string_view name(Strategy strategy);  // "single", "even", "balanced", "cuts", "searched", "predicted"
// "auto" is balanced, which weighs every number of ranks, one included.
Result<Strategy> parse_strategy(std::string_view text);

struct PlanRequest {
  Strategy strategy = Strategy::kBalanced;
  int32_t context_len = 0;
  // Whole pages of K/V that workers[0] has already: it is rank 0 then, and only what is behind them is planned. For kSingle and
  // kBalanced.
  int32_t begin = 0;
  ModelCost model;
  std::vector<WorkerProfile> workers;  // 1 to kPlannedWorkersMax, those that may be used
  std::vector<int32_t> cuts;  // kByHand
  const ChainStretch* stretch = nullptr;  // learnt; null: none
  const SplitTable* table = nullptr;  // kSearched, kPredicted; null: there is none
  int32_t ranks = 0;  // even, balanced: how many, as far as the prompt has pages; 0: even takes all,
      // balanced chooses
};

struct PlannedRank {
  int32_t worker = 0;  // index into PlanRequest::workers
  TokenRange range;
  double compute_seconds = 0;
  double kv_wait_seconds = 0;
  WorkerProfile profile;  // what it was taken for
};

struct Plan {
  Strategy strategy = Strategy::kBalanced;
  std::vector<PlannedRank> ranks;
  double predicted_ttft_seconds = 0;
};

Result<Plan> make_plan(const PlanRequest& request);

// The heart of `balanced`, before rounding to pages: chunk lengths [chain.size()] that sum to its tokens, so that all
// ranks take the same time t and every prefix crosses its link in t. Paper 4.2's two aims, solved. Of [begin, context_len), if
// the first one has K/V of what is before.
std::vector<double> balanced_chunks(const ModelCost& model, std::span<const WorkerProfile> chain, int32_t context_len,
                                    int32_t begin = 0);

}  // namespace runahead
