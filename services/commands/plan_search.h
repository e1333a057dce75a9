// runahead plan search: the paper's KVR-S, cuts searched for by measuring a running cluster (planner/split_search.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "services/commands/command_line.h"

namespace runahead {

struct PlanSearchOptions {
  std::string url = "127.0.0.1:8000", api_key;
  std::vector<int32_t> tokens;
  int ranks = 0;  // 0: all prefill workers that are ready
  int repetitions = 3;  // of each measurement; the median counts
  std::string table;  // the file; empty: split-table.json of the cache folder
};

Result<void> search_plans(const PlanSearchOptions& options, const CommonOptions& common);

}  // namespace runahead
