// MachineLimits: how much of its machine this process may use. What the hardware has is not the answer: a container's
// cgroup (version 1 or 2, any ancestor's), a rlimit or a CPU mask may leave far less, and who takes more is killed or
// throttled. Defaults of memory and threads come from here.
//   pure     read_machine_limits() is a function of files below `root` and of SystemFacts, so tests can give it any machine.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace runahead {

// What system calls say, also where there is no /proc.
struct SystemFacts {
  uint64_t host_bytes = 0;
  uint64_t address_space_bytes = UINT64_MAX, data_bytes = UINT64_MAX;  // RLIMIT_AS, RLIMIT_DATA
  int affinity_cpus = 1;
};
SystemFacts system_facts();

struct MemoryBound {
  enum class Scope {
    kHost,  // shared with everything on the machine
    kGroup,  // shared with everything in the cgroup
    kProcess,  // of this process's address space
  };
  Scope scope = Scope::kHost;
  std::string what;  // "host", "cgroup /kubepods/pod1 memory.max", "RLIMIT_AS"
  uint64_t limit_bytes = 0;
  uint64_t used_bytes = 0;  // that nobody can take back: file pages of a cgroup are not counted
  uint64_t free_bytes() const { return limit_bytes > used_bytes ? limit_bytes - used_bytes : 0; }
};

struct CpuBound {
  std::string what;  // "affinity", "cgroup /kubepods/pod1 cpu.max"
  double cpus = 1;
};

struct MachineLimits {
  std::vector<MemoryBound> memory;  // the host first
  std::vector<CpuBound> cpus;  // the affinity first
  const MemoryBound& least_memory() const;
  const CpuBound& fewest_cpus() const;
  // Threads that can run at once: whole CPUs, at least 1.
  int usable_cpus() const;
};

MachineLimits read_machine_limits(const std::filesystem::path& root, const SystemFacts& facts);
MachineLimits machine_limits();  // of this process

// Memory of one worker and of those beside it.
struct WorkerMemory {
  uint64_t weights_bytes = 0;
  bool weights_shared = false;  // all workers map one file, whose pages no bound counts as used
  int sharers = 1;  // workers like this one in the same cgroup, this one included
};

struct MemoryShare {
  uint64_t bytes = 0;
  const MemoryBound* by = nullptr;  // who decides
};
// What a worker may take for its K/V pages by default: of every bound half of what the weights leave, for activations and
// everything else need room too, in equal parts for the sharers; of the host an eighth at most, for it has other work.
MemoryShare default_kv_share(const MachineLimits& limits, const WorkerMemory& worker);

// "512 MiB", "1.5 GiB".
std::string to_text_bytes(uint64_t bytes);

}  // namespace runahead
