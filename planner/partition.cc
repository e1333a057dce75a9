#include "planner/partition.h"

#include <string>

#include "base/check.h"
#include "base/limits.h"

namespace runahead {

Result<void> check_partition(std::span<const TokenRange> partition, int32_t context_len) {
  if (partition.empty()) return fail(ErrorCode::kInvalidArgument, "a partition has at least one rank", "cuts");
  if (partition.size() > static_cast<size_t>(kPlannedWorkersMax))
    return fail(ErrorCode::kInvalidArgument, "a chain has at most " + std::to_string(kPlannedWorkersMax) + " ranks",
                "cuts");
  int32_t next = 0;
  for (const TokenRange& range : partition) {
    if (range.begin != next)
      return fail(ErrorCode::kInvalidArgument,
                  "ranges must touch: one begins at token " + std::to_string(range.begin) + " instead of " +
                      std::to_string(next),
                  "cuts");
    if (range.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "the rank that begins at token " + std::to_string(range.begin) + " would be empty", "cuts");
    if (range.begin % kPageTokens != 0)
      return fail(
          ErrorCode::kInvalidArgument,
          "cut " + std::to_string(range.begin) + " is not a multiple of the page length " + std::to_string(kPageTokens),
          "cuts");
    next = range.end;
  }
  if (next != context_len)
    return fail(ErrorCode::kInvalidArgument,
                "the ranges end at token " + std::to_string(next) + " instead of " + std::to_string(context_len),
                "cuts");
  return {};
}

int32_t ranks_max(int32_t context_len) { return std::min<int32_t>(pages_for(context_len), kPlannedWorkersMax); }

Partition even_partition(int32_t context_len, int32_t ranks) {
  RUNAHEAD_CHECK(context_len > 0 && ranks > 0, "a chain has tokens and ranks");
  ranks = std::min(ranks, ranks_max(context_len));
  const int64_t pages = pages_for(context_len);
  Partition partition;
  for (int32_t rank = 0; rank < ranks; ++rank)
    partition.push_back({.begin = static_cast<int32_t>(pages * rank / ranks) * kPageTokens,
                         .end = std::min(static_cast<int32_t>(pages * (rank + 1) / ranks) * kPageTokens, context_len)});
  return partition;
}

Result<Partition> partition_by_hand(int32_t context_len, std::span<const int32_t> cuts) {
  if (cuts.size() >= static_cast<size_t>(limits::kWorkersMax))
    return fail(ErrorCode::kInvalidArgument,
                std::to_string(cuts.size()) + " cuts make more than " + std::to_string(limits::kWorkersMax) +
                    " ranks; give fewer",
                "cuts");
  Partition partition;
  int32_t begin = 0;
  for (int32_t cut : cuts) {
    if (cut <= begin)
      return fail(ErrorCode::kInvalidArgument,
                  "cut " + std::to_string(cut) + " must be above " + std::to_string(begin) +
                      "; give the cuts in ascending order",
                  "cuts");
    if (cut >= context_len)
      return fail(ErrorCode::kInvalidArgument,
                  "cut " + std::to_string(cut) + " leaves nothing to the last rank; the prompt has " +
                      std::to_string(context_len) + " tokens",
                  "cuts");
    if (cut % kPageTokens != 0) {
      const int32_t below = cut / kPageTokens * kPageTokens;
      return fail(ErrorCode::kInvalidArgument,
                  "cut " + std::to_string(cut) + " is not a multiple of the page length; use " + std::to_string(below) +
                      " or " + std::to_string(below + kPageTokens),
                  "cuts");
    }
    partition.push_back({begin, cut});
    begin = cut;
  }
  if (begin >= context_len) return fail(ErrorCode::kInvalidArgument, "an empty prompt cannot be cut", "cuts");
  partition.push_back({begin, context_len});
  return partition;
}

std::vector<int32_t> cuts_of(std::span<const TokenRange> partition) {
  std::vector<int32_t> cuts;
  for (size_t rank = 1; rank < partition.size(); ++rank) cuts.push_back(partition[rank].begin);
  return cuts;
}

}  // namespace runahead
