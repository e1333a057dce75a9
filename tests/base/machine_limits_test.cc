#include "base/machine_limits.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

constexpr uint64_t kMiB = 1 << 20, kGiB = 1 << 30;

// A root folder with the files of some machine.
class Machine {
 public:
  Machine& file(const std::string& path, const std::string& text) {
    const auto full = root_ / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text << "\n";
    return *this;
  }
  MachineLimits read(SystemFacts facts = {.host_bytes = 64 * kGiB, .affinity_cpus = 16}) const {
    return read_machine_limits(root_ / ".", facts);
  }

 private:
  test::TempDir root_;
};

constexpr const char* kMountV1 =
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu";
constexpr const char* kMountV2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";

TEST(MachineLimits, WithoutAnyFileAreWhatSystemCallsSay) {
  const MachineLimits limits = Machine().read();
  EXPECT_EQ(limits.least_memory().what, "host");
  EXPECT_EQ(limits.least_memory().free_bytes(), 64 * kGiB);
  EXPECT_EQ(limits.usable_cpus(), 16);
}

TEST(MachineLimits, OfTheHostLeaveWhatIsAvailable) {
  const MachineLimits limits =
      Machine().file("proc/meminfo", "MemTotal:  8388608 kB\nMemFree: 5 kB\nMemAvailable: 2097152 kB").read();
  EXPECT_EQ(limits.least_memory().limit_bytes, 8 * kGiB);
  EXPECT_EQ(limits.least_memory().free_bytes(), 2 * kGiB);
}

TEST(MachineLimits, OfCgroupVersion2AreTheLeastOfAllAncestors) {
  Machine machine;
  machine.file("proc/self/mountinfo", kMountV2)
      .file("proc/self/cgroup", "0::/kubepods/pod1/main")
      .file("sys/fs/cgroup/kubepods/pod1/main/memory.max", "max")
      .file("sys/fs/cgroup/kubepods/pod1/main/cpu.max", "max 100000")
      .file("sys/fs/cgroup/kubepods/pod1/memory.max", std::to_string(512 * kMiB))
      .file("sys/fs/cgroup/kubepods/pod1/memory.high", std::to_string(300 * kMiB))
      .file("sys/fs/cgroup/kubepods/pod1/memory.current", std::to_string(200 * kMiB))
      .file("sys/fs/cgroup/kubepods/pod1/memory.stat", "anon 1\nactive_file 52428800\ninactive_file 104857600")
      .file("sys/fs/cgroup/kubepods/cpu.max", "250000 100000");
  const MachineLimits limits = machine.read();
  EXPECT_EQ(limits.least_memory().what, "cgroup /kubepods/pod1 memory.high");
  EXPECT_EQ(limits.least_memory().used_bytes, 50 * kMiB) << "file pages can be taken back";
  EXPECT_EQ(limits.usable_cpus(), 2);
  EXPECT_EQ(limits.fewest_cpus().what, "cgroup /kubepods cpu.max");
}

TEST(MachineLimits, OfCgroupVersion1LikewiseWithWhatIsHiddenAbove) {
  Machine machine;
  machine.file("proc/self/mountinfo", kMountV1)
      .file("proc/self/cgroup", "4:memory:/docker/a\n1:cpu,cpuacct:/docker/a\n0::/")
      .file("sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes", "9223372036854771712")
      .file("sys/fs/cgroup/memory/docker/a/memory.usage_in_bytes", std::to_string(60 * kMiB))
      .file("sys/fs/cgroup/memory/docker/a/memory.stat",
            "hierarchical_memory_limit 178257920\ntotal_active_file 10485760")
      .file("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us", "50000")
      .file("sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us", "100000")
      .file("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us", "-1")
      .file("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us", "100000");
  const MachineLimits limits = machine.read();
  EXPECT_EQ(limits.least_memory().limit_bytes, 170 * kMiB);
  EXPECT_EQ(limits.least_memory().used_bytes, 50 * kMiB);
  EXPECT_EQ(limits.usable_cpus(), 1) << "half a CPU still runs one thread";
}

// Docker without a cgroup namespace writes the host's path, but mounts the container's own cgroup.
TEST(MachineLimits, AreFoundWhereTheMountBeginsBelowTheRoot) {
  Machine machine;
  machine.file("proc/self/mountinfo", "1 2 0:3 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory")
      .file("proc/self/cgroup", "4:memory:/docker/abc/worker")
      .file("sys/fs/cgroup/memory/worker/memory.limit_in_bytes", std::to_string(100 * kMiB))
      .file("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(200 * kMiB));
  EXPECT_EQ(machine.read().least_memory().limit_bytes, 100 * kMiB);
  Machine elsewhere;
  elsewhere.file("proc/self/mountinfo", kMountV2)
      .file("proc/self/cgroup", "0::/../../outside")
      .file("sys/fs/cgroup/memory.max", std::to_string(64 * kMiB));
  EXPECT_EQ(elsewhere.read().least_memory().limit_bytes, 64 * kMiB);
}

TEST(MachineLimits, OfTheProcessCountItsOwnSpace) {
  Machine machine;
  machine.file("proc/self/status", "Name: x\nVmSize:  1048576 kB\nVmData:\t 262144 kB");
  const MachineLimits limits =
      machine.read({.host_bytes = 64 * kGiB, .address_space_bytes = 4 * kGiB, .data_bytes = kGiB, .affinity_cpus = 1});
  EXPECT_EQ(limits.least_memory().what, "RLIMIT_DATA");
  EXPECT_EQ(limits.least_memory().free_bytes(), 768 * kMiB);
  EXPECT_EQ(limits.memory.at(1).free_bytes(), 3 * kGiB);
}

TEST(MachineLimits, SurviveFilesThatSayNothing) {
  Machine machine;
  machine.file("proc/self/mountinfo", std::string(kMountV2) + "\nrubbish\n - \n")
      .file("proc/self/cgroup", "0::/a\n:\n")
      .file("proc/meminfo", "MemTotal:")
      .file("sys/fs/cgroup/a/memory.max", "")
      .file("sys/fs/cgroup/a/cpu.max", "0 0")
      .file("sys/fs/cgroup/cpu.max", "-5 x");
  EXPECT_EQ(machine.read().least_memory().free_bytes(), 64 * kGiB);
  EXPECT_EQ(machine.read().usable_cpus(), 16);
}

TEST(DefaultKvShare, IsAnEighthOfAHostWithNothingElse) {
  const MachineLimits limits = Machine().read();
  EXPECT_EQ(default_kv_share(limits, {}).bytes, 8 * kGiB);
}

MachineLimits group_of(uint64_t limit, uint64_t used) {
  MachineLimits limits = Machine().read();
  limits.memory.push_back({MemoryBound::Scope::kGroup, "cgroup /x", limit, used});
  return limits;
}

TEST(DefaultKvShare, IsHalfOfWhatTheWeightsLeaveInACgroup) {
  const MachineLimits limits = group_of(170 * kMiB, 10 * kMiB);
  EXPECT_EQ(default_kv_share(limits, {100 * kMiB, true, 1}).bytes, 30 * kMiB);
  EXPECT_EQ(default_kv_share(limits, {100 * kMiB, true, 1}).by->what, "cgroup /x");
  EXPECT_EQ(default_kv_share(limits, {100 * kMiB, false, 1}).bytes, 80 * kMiB)
      << "a private copy is among what is used";
  EXPECT_EQ(default_kv_share(limits, {200 * kMiB, true, 1}).bytes, 0u);
}

TEST(DefaultKvShare, IsDividedAmongWorkersOfOneCgroup) {
  const MachineLimits limits = group_of(1000 * kMiB, 100 * kMiB);
  EXPECT_EQ(default_kv_share(limits, {300 * kMiB, true, 3}).bytes, 100 * kMiB);
  EXPECT_EQ(default_kv_share(limits, {300 * kMiB, false, 3}).bytes, 50 * kMiB) << "two copies are still to come";
}

TEST(DefaultKvShare, OfARlimitIsOneProcesssOwn) {
  MachineLimits limits = Machine().read();
  limits.memory.push_back({MemoryBound::Scope::kProcess, "RLIMIT_AS", kGiB, 512 * kMiB});
  EXPECT_EQ(default_kv_share(limits, {300 * kMiB, true, 3}).bytes, 256 * kMiB);
}

TEST(MachineLimits, OfThisProcessAreThere) {
  const MachineLimits limits = machine_limits();
  EXPECT_GT(limits.least_memory().free_bytes(), kMiB);
  EXPECT_GE(limits.usable_cpus(), 1);
  EXPECT_LE(limits.usable_cpus(), system_facts().affinity_cpus);
}

}  // namespace
}  // namespace runahead
