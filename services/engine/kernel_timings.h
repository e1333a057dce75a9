// The start-up timing of the kernels, kept in <cache folder>/kernel-timings.json: processes of one machine start 30 ms
// sooner, and choose alike though the machine be busy. Another build or processor measures anew and replaces the file; a
// folder that cannot be written costs nothing but that. `runahead doctor` shows what is used and from where.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kernels/ops.h"

namespace runahead {

struct KernelTimings {
  std::vector<KernelTiming> timings;
  std::filesystem::path file;
  bool measured = true;  // by this process; else read from the file
};

// Call it before the kernels are first used, on the thread that loads the engine. The first call of a process decides;
// later ones give the same.
const KernelTimings& prepare_kernels();

// The file's text. `machine` is what the timings are of: the build and the processor.
std::string encode_kernel_timings(const std::vector<KernelTiming>& timings, std::string_view machine);
// kCorrupt with the reason if it is no such text, or of another machine.
Result<std::vector<KernelTiming>> parse_kernel_timings(std::string_view text, std::string_view machine);

// The build and the processor: what a kept measurement is of.
std::string machine_text();

// A kept file's text, as far as it can be one; nothing if it cannot be read: then it is made anew.
std::string read_kept(const std::filesystem::path& path);

// As /proc/cpuinfo names it.
std::string processor_name();

}  // namespace runahead
