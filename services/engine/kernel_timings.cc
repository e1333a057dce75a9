#include "services/engine/kernel_timings.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "base/cache_file.h"
#include "base/json_text.h"
#include "base/log.h"
#include "services/engine/model_path.h"
#include "services/version.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr size_t kFileBytesMax = 64 << 10;  // a table takes 100 bytes

bool is_rate(const json& fields, const char* key) {
  return fields.contains(key) && fields[key].is_number() && std::isfinite(fields[key].get<double>()) &&
         fields[key].get<double>() >= 0;
}

KernelTimings load_or_measure() {
  KernelTimings result{.timings = {}, .file = cache_folder() / "kernel-timings.json"};
  const std::string machine = machine_text();
  auto known = parse_kernel_timings(read_kept(result.file), machine);
  if (known && use_kernel_timings(std::move(*known))) {
    result.measured = false;
    result.timings = kernel_report();
    return result;
  }
  result.timings = kernel_report();
  const std::string text = encode_kernel_timings(result.timings, machine);
  std::error_code ignored;  // the write says what is wrong
  std::filesystem::create_directories(result.file.parent_path(), ignored);
  const auto written = write_whole_file(result.file, {std::as_bytes(std::span(text))});
  if (!written) log::debug("the kernels' timings are not kept: {}", written.error().message);
  return result;
}

}  // namespace

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(std::min(line.size(), line.find(':') + 2));
  return "unknown processor";
}

std::string read_kept(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kFileBytesMax, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return text;
}

std::string machine_text() { return std::string(kVersion) + " " + kRevision + ", " + processor_name(); }

const KernelTimings& prepare_kernels() {
  static const KernelTimings timings = load_or_measure();
  return timings;
}

std::string encode_kernel_timings(const std::vector<KernelTiming>& timings, std::string_view machine) {
  json tables = json::array();
  for (const KernelTiming& timing : timings)
    tables.push_back({{"isa", timing.isa},
                      {"compute", name(timing.mode)},
                      {"dot_giga_ops_per_second", timing.giga_ops_per_second},
                      {"product_giga_ops_per_second", timing.gemm_giga_ops_per_second}});
  return to_text({{"machine", machine}, {"tables", tables}}, 1) + "\n";
}

Result<std::vector<KernelTiming>> parse_kernel_timings(std::string_view text, std::string_view machine) {
  const json file = json::parse(text, nullptr, false);
  if (!file.is_object() || !file.contains("tables") || !file["tables"].is_array())
    return fail(ErrorCode::kCorrupt, "no kernel timings");
  if (file.value("machine", json()) != machine) return fail(ErrorCode::kCorrupt, "kernel timings of another machine");
  std::vector<KernelTiming> timings;
  for (const json& table : file["tables"]) {
    if (!table.is_object() || !table.value("isa", json()).is_string() || !table.value("compute", json()).is_string() ||
        !is_rate(table, "dot_giga_ops_per_second") || !is_rate(table, "product_giga_ops_per_second"))
      return fail(ErrorCode::kCorrupt, "a table of the kernel timings is incomplete");
    const ComputeMode mode = TRY(parse_compute_mode(table["compute"].get<std::string>()));
    timings.push_back({.isa = table["isa"],
                       .mode = mode,
                       .giga_ops_per_second = table["dot_giga_ops_per_second"],
                       .gemm_giga_ops_per_second = table["product_giga_ops_per_second"]});
  }
  return timings;
}

}  // namespace runahead
