#include "base/machine_limits.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>

namespace runahead {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kHostShare = 8;
constexpr uint64_t kFreeShare = 2;
constexpr uint64_t kNoLimit = uint64_t{1} << 60;  // cgroup v1 writes "none" as the largest number of whole pages

std::string read_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

std::optional<uint64_t> read_number(const fs::path& path) { return number(read_line(path)); }

// The number behind `key` in a file of "key value" or "key: value kB" lines.
std::optional<uint64_t> read_key(const fs::path& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key) || line.size() <= key.size()) continue;
    const char after = line[key.size()];
    if (after != ' ' && after != ':') continue;
    const size_t digits = line.find_first_of("0123456789", key.size());
    if (digits == std::string::npos) return std::nullopt;
    const auto value = number(std::string_view(line).substr(digits));
    return value && line.ends_with(" kB") ? std::optional(*value << 10) : value;
  }
  return std::nullopt;
}

// One cgroup on the way from the process's own to the root that can be seen from here.
struct Cgroup {
  fs::path folder;
  std::string name;  // as /proc/self/cgroup writes it
  bool unified = false;  // version 2
};

bool lists(std::string_view commas, std::string_view word) {
  while (!commas.empty()) {
    const size_t comma = commas.find(',');
    if (commas.substr(0, comma) == word) return true;
    if (comma == std::string_view::npos) break;
    commas.remove_prefix(comma + 1);
  }
  return false;
}

// The process's path in the hierarchy of `controller`; "" is version 2's.
std::optional<std::string> cgroup_path(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string_view controllers = std::string_view(line).substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : lists(controllers, controller)) return line.substr(second + 1);
  }
  return std::nullopt;
}

struct Mount {
  std::string root, point;
};

std::optional<Mount> cgroup_mount(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream front(line.substr(0, dash)), back(line.substr(dash + 3));
    std::string id, parent, device, type, source, options;
    Mount mount;
    front >> id >> parent >> device >> mount.root >> mount.point;
    back >> type >> source >> options;
    if (controller.empty() ? type == "cgroup2" : type == "cgroup" && lists(options, controller)) return mount;
  }
  return std::nullopt;
}

// A container sees the hierarchy from some cgroup downwards; its own path may be written from above that.
void add_cgroups(const fs::path& root, std::string_view controller, std::vector<Cgroup>& found) {
  const auto mount = cgroup_mount(root, controller);
  const auto path = cgroup_path(root, controller);
  if (!mount || !path) return;
  const std::string below = mount->root == "/" ? "" : mount->root;
  const bool inside = path->starts_with(below) && (path->size() == below.size() || (*path)[below.size()] == '/');
  const fs::path top = root / fs::path(mount->point).relative_path();
  fs::path relative = inside ? fs::path(path->substr(below.size())).relative_path() : fs::path();
  std::error_code ignored;
  if (!fs::exists(top / relative, ignored)) relative.clear();
  for (;;) {
    found.push_back({top / relative, "/" + relative.string(), controller.empty()});
    if (relative.empty()) return;
    relative = relative.parent_path();
  }
}

std::vector<Cgroup> cgroups(const fs::path& root, std::string_view controller) {
  std::vector<Cgroup> found;
  add_cgroups(root, controller, found);
  add_cgroups(root, "", found);
  return found;
}

// What the group cannot give back. Pages of files it can.
uint64_t used_by(const Cgroup& group) {
  const char* const usage = group.unified ? "memory.current" : "memory.usage_in_bytes";
  const std::string prefix = group.unified ? "" : "total_";
  const uint64_t used = read_number(group.folder / usage).value_or(0);
  uint64_t files = 0;
  for (const char* kind : {"active_file", "inactive_file"})
    files += read_key(group.folder / "memory.stat", prefix + kind).value_or(0);
  return used > files ? used - files : 0;
}

void add_memory(const Cgroup& group, std::vector<MemoryBound>& bounds) {
  const auto add = [&](const std::string& file, std::optional<uint64_t> limit) {
    if (limit && *limit < kNoLimit)
      bounds.push_back({MemoryBound::Scope::kGroup, "cgroup " + group.name + " " + file, *limit, used_by(group)});
  };
  if (group.unified) {
    for (const char* file : {"memory.max", "memory.high"}) add(file, read_number(group.folder / file));
    return;
  }
  add("memory.limit_in_bytes", read_number(group.folder / "memory.limit_in_bytes"));
  const auto above = read_key(group.folder / "memory.stat", "hierarchical_memory_limit");
  if (above != read_number(group.folder / "memory.limit_in_bytes")) add("hierarchical_memory_limit", above);
}

void add_cpus(const Cgroup& group, std::vector<CpuBound>& bounds) {
  std::optional<uint64_t> quota, period;
  std::string file = "cpu.max";
  if (group.unified) {
    const std::string line = read_line(group.folder / file);  // "max 100000" or "150000 100000"
    quota = number(line);
    if (const size_t space = line.find(' '); space != std::string::npos)
      period = number(std::string_view(line).substr(space + 1));
  } else {
    file = "cpu.cfs_quota_us";
    quota = read_number(group.folder / file);  // -1: none
    period = read_number(group.folder / "cpu.cfs_period_us");
  }
  if (quota && *quota > 0 && period && *period > 0)
    bounds.push_back({"cgroup " + group.name + " " + file, static_cast<double>(*quota) / static_cast<double>(*period)});
}

MemoryBound host_memory(const fs::path& root, const SystemFacts& facts) {
  const fs::path meminfo = root / "proc/meminfo";
  MemoryBound host{MemoryBound::Scope::kHost, "host", read_key(meminfo, "MemTotal").value_or(facts.host_bytes), 0};
  const uint64_t available = read_key(meminfo, "MemAvailable").value_or(host.limit_bytes);
  host.used_bytes = host.limit_bytes > available ? host.limit_bytes - available : 0;
  return host;
}

}  // namespace

SystemFacts system_facts() {
  SystemFacts facts;
  struct sysinfo info{};
  if (sysinfo(&info) == 0) facts.host_bytes = static_cast<uint64_t>(info.totalram) * info.mem_unit;
  const auto soft = [](int resource) {
    rlimit limit{};
    return getrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0 && limit.rlim_cur != RLIM_INFINITY
               ? static_cast<uint64_t>(limit.rlim_cur)
               : UINT64_MAX;
  };
  facts.address_space_bytes = soft(RLIMIT_AS);
  facts.data_bytes = soft(RLIMIT_DATA);
  for (int cpus = CPU_SETSIZE; cpus <= 64 * CPU_SETSIZE; cpus *= 2) {  // the kernel's mask may be larger than ours
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    const bool read = sched_getaffinity(0, size, set) == 0;
    if (read) facts.affinity_cpus = std::max(1, CPU_COUNT_S(size, set));
    CPU_FREE(set);
    if (read) break;
  }
  return facts;
}

const MemoryBound& MachineLimits::least_memory() const {
  return *std::ranges::min_element(memory, {}, &MemoryBound::free_bytes);
}

const CpuBound& MachineLimits::fewest_cpus() const { return *std::ranges::min_element(cpus, {}, &CpuBound::cpus); }

int MachineLimits::usable_cpus() const { return std::max(1, static_cast<int>(std::floor(fewest_cpus().cpus))); }

MachineLimits read_machine_limits(const fs::path& root, const SystemFacts& facts) {
  MachineLimits limits;
  limits.memory.push_back(host_memory(root, facts));
  for (const Cgroup& group : cgroups(root, "memory")) add_memory(group, limits.memory);
  const fs::path status = root / "proc/self/status";
  const auto add_rlimit = [&](const char* what, uint64_t limit, const char* key) {
    if (limit != UINT64_MAX)
      limits.memory.push_back({MemoryBound::Scope::kProcess, what, limit, read_key(status, key).value_or(0)});
  };
  add_rlimit("RLIMIT_AS", facts.address_space_bytes, "VmSize");
  add_rlimit("RLIMIT_DATA", facts.data_bytes, "VmData");
  limits.cpus.push_back({"affinity", static_cast<double>(facts.affinity_cpus)});
  for (const Cgroup& group : cgroups(root, "cpu")) add_cpus(group, limits.cpus);
  return limits;
}

MachineLimits machine_limits() { return read_machine_limits("/", system_facts()); }

MemoryShare default_kv_share(const MachineLimits& limits, const WorkerMemory& worker) {
  MemoryShare least{UINT64_MAX, nullptr};
  const auto sharers = static_cast<uint64_t>(std::max(1, worker.sharers));
  for (const MemoryBound& bound : limits.memory) {
    // A private copy is counted as used by now, but those of the others may be still to come.
    const uint64_t weights_to_come = worker.weights_bytes * (worker.weights_shared ? 1 : sharers - 1);
    uint64_t bytes = bound.free_bytes() / kFreeShare;
    if (bound.scope != MemoryBound::Scope::kProcess) {
      const uint64_t left = bound.free_bytes() > weights_to_come ? bound.free_bytes() - weights_to_come : 0;
      bytes = left / kFreeShare / sharers;
    }
    if (bound.scope == MemoryBound::Scope::kHost) bytes = std::min(bytes, bound.limit_bytes / kHostShare);
    if (bytes < least.bytes) least = {bytes, &bound};
  }
  return least;
}

std::string to_text_bytes(uint64_t bytes) {
  char text[32];
  const auto mib = static_cast<double>(bytes) / (1 << 20);
  std::snprintf(text, sizeof text, mib < 1024 ? "%.0f MiB" : "%.1f GiB", mib < 1024 ? mib : mib / 1024);
  return text;
}

}  // namespace runahead
