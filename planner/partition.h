// Partition: how a context is cut into the chunks of a chain. Rank r owns partition[r]; the ranges touch, in order, and
// cover [0, context_len). Cuts are multiples of kPageTokens, so that a page never straddles two ranks, and no rank is
// empty. Pure values: any thread. Limits: kPlannedWorkersMax ranks; given by hand
// limits::kWorkersMax.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/token_range.h"

namespace runahead {

using Partition = std::vector<TokenRange>;

// kInvalidArgument with what is wrong, if `partition` is none of [0, context_len).
Result<void> check_partition(std::span<const TokenRange> partition, int32_t context_len);

// A cluster has at most limits::kWorkersMax prefill workers; simulations go further.
inline constexpr int32_t kPlannedWorkersMax = 1024;

// The most ranks that a context can have: one page each.
int32_t ranks_max(int32_t context_len);

// KVR-E, paper 4.2: chunks of equal length (to a page). `ranks` is lowered to ranks_max.
Partition even_partition(int32_t context_len, int32_t ranks);

// Cuts given by a person: the first tokens of ranks 1, 2, ...; n cuts make n + 1 ranks.
Result<Partition> partition_by_hand(int32_t context_len, std::span<const int32_t> cuts);

// The other way round: the first tokens of ranks 1, 2, ...
std::vector<int32_t> cuts_of(std::span<const TokenRange> partition);

}  // namespace runahead
