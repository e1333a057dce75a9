// run_seed: one seed from start to rest. safety phase (everything may fail) -> heal -> liveness (what was accepted
// ends, what is asked now succeeds) -> rest (nothing runs, every page is back) -> take-down (stop() ends in every
// process).
#pragma once

#include <cstdint>
#include <string>

#include "scenario.h"

namespace runahead::test {

struct SeedResult {
  std::string failure;  // "" is well; the first word says what kind
  uint64_t trace = 0, steps = 0;
  double virtual_seconds = 0;
  int32_t requests = 0, finished = 0, failed = 0, cancelled = 0, broken = 0, retried = 0;  // retried: took > 1 attempt
  int32_t kills = 0, pauses = 0, cuts = 0, sticks = 0;
  int64_t corrupted_pages = 0;
};

// verbose: the actors' log on stderr, with the world's time.
SeedResult run_seed(uint64_t seed, const Mutant& mutant, bool verbose = false);

// How a person sees that failure again.
std::string replay_command(uint64_t seed, std::string_view mutant);

}  // namespace runahead::test
