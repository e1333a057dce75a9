// runahead plan profile: teaches a running cluster its own speeds before the first user comes. Prompts of several lengths, each
// cut in several ways, so that every worker computes unlike chunks behind unlike prefixes and every link carries unlike sizes;
// what the coordinator learnt from them it uses and keeps (planner/profile.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "services/commands/command_line.h"

namespace runahead {

struct PlanProfileOptions {
  std::string url = "127.0.0.1:8000", api_key;
  std::vector<int32_t> tokens;
  int repetitions = 3;  // rounds; of each, every length in every way
};

// Inner cuts of `tokens` tokens for so many ranks: as even as pages allow, then with chunks that shrink and that grow. Pure.
std::vector<std::vector<int32_t>> profile_cuts(int32_t tokens, int32_t ranks);

Result<void> profile_cluster(const PlanProfileOptions& options, const CommonOptions& common);

}  // namespace runahead
