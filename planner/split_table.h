// SplitTable: cuts that were searched for by measuring (paper 4.2, KVR-S), and what they say of other lengths (KVR-P). A table
// belongs to one model and one number of workers of one kind: `identity` says which. Pure values; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "planner/partition.h"

namespace runahead {

struct SplitEntry {
  int32_t context_len = 0;
  std::vector<double> shares;  // [ranks] of the prompt, sum 1
  double ttft_seconds = 0;  // measured
};

struct SplitTable {
  std::string identity;
  std::vector<SplitEntry> entries;  // by context_len; all with the same number of ranks
};

// kInvalidArgument with the reason: no entry, shares that sum to something else, unlike numbers of ranks, twice one length.
Result<void> check_table(const SplitTable& table);

// The cuts that were found for this very length; kNotFound with the lengths that there are.
Result<Partition> searched_partition(const SplitTable& table, int32_t context_len);
// KVR-P: shares of the two nearest lengths, interpolated linearly; beyond the ends those of the end.
Partition predicted_partition(const SplitTable& table, int32_t context_len);

// Cuts at the nearest page, each rank with at least one; shares [ranks] in tokens or any other unit, ranks at most ranks_max.
Partition pages_of(std::span<const double> shares, int32_t context_len);

}  // namespace runahead
