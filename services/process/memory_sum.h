// MemorySum: what a process may come to hold at the very most, part by part, against what its machine leaves it. It is computed
// from the bounds before work comes, printed, exported as runahead_memory_bound_bytes, and held: what does not fit is made
// smaller, or refused, at the start.
//   parts    what is there already (measured), and each bound that grows with work. Not in it: pages of files, which the kernel
//            takes back, and the kernel's own buffers of sockets.
//   pure     but for held_bytes(), which asks the system. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/machine_limits.h"
#include "base/result.h"
#include "services/gateway/gateway_options.h"

namespace runahead {

struct MemorySum {
  struct Part {
    std::string name;  // "connections": the label of the metric
    uint64_t bytes = 0;
  };
  std::vector<Part> parts;
  uint64_t total() const;
};

// "891 MiB: program 45 MiB, connections 256 MiB, ..."
std::string to_text(const MemorySum& sum);

// What the process holds now, with all of its code: that comes into memory as it runs.
uint64_t held_bytes();

struct MemoryBudget {
  uint64_t bytes = 0;
  std::string by;  // who sets it: "host", "cgroup /a memory.max", "RLIMIT_AS"
};
// The least of the bounds: of the whole limit of machine and cgroup, for what others use comes and goes, and of what a limit of
// the process's own leaves beside `held`, which it counts already.
MemoryBudget memory_budget(const MachineLimits& limits, uint64_t held);

struct ApiLoad {
  uint64_t program_bytes = 0;
  int64_t context_len = 0;
  size_t upload_bytes = 0;  // of the largest file that is taken whole
};
// Of a coordinator with the bounds of `options`.
MemorySum coordinator_memory(const GatewayOptions& options, const ApiLoad& load);
// Makes the four bounds of `options` that follow memory fit: all of them alike, down to limits::kApiBoundsLeast of what they
// are. kInvalidConfig with what would fit.
Result<MemorySum> fit_coordinator(GatewayOptions& options, const ApiLoad& load, const MemoryBudget& budget);

struct WorkerLoad {
  uint64_t program_bytes = 0;  // and all that is loaded beside the weights
  uint64_t weights_bytes = 0, pool_bytes = 0;
  uint64_t work_bytes = 0;  // activations, logits and grammars of what is in work
};
// What is there from the start on must fit, else kInvalidConfig with the K/V memory that would; what work may come to is in the
// sum, which may then be more than the budget.
Result<MemorySum> fit_worker(const WorkerLoad& load, const MemoryBudget& budget);

}  // namespace runahead
