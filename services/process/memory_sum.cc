#include "services/process/memory_sum.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <numeric>

namespace runahead {
namespace {

constexpr double kStep = 0.95;  // between two sizes that are tried

// "VmExe:      32000 kB" of /proc/self/status; 0 where it is not there.
uint64_t status_bytes(std::string_view text, std::string_view key) {
  const size_t at = text.find("\n" + std::string(key) + ":");
  if (at == std::string_view::npos) return 0;
  const size_t digits = text.find_first_of("0123456789", at);
  return std::strtoull(text.data() + digits, nullptr, 10) << 10;
}

void scale(GatewayOptions& options, const GatewayOptions& full, double part, size_t upload_bytes) {
  const auto of = [&](size_t bytes, size_t least) {
    return std::min(bytes, std::max(least, static_cast<size_t>(part * static_cast<double>(bytes))));
  };
  options.http.connections_max = of(full.http.connections_max, 1);
  options.http.bodies_bytes_max = of(full.http.bodies_bytes_max, std::max(limits::kApiPoolBytesLeast, upload_bytes));
  options.http.answers_bytes_max = of(full.http.answers_bytes_max, limits::kApiPoolBytesLeast);
  options.generation_bytes_max = of(full.generation_bytes_max, limits::kApiPoolBytesLeast);
}

}  // namespace

uint64_t MemorySum::total() const {
  return std::accumulate(parts.begin(), parts.end(), uint64_t{0},
                         [](uint64_t sum, const Part& part) { return sum + part.bytes; });
}

std::string to_text(const MemorySum& sum) {
  std::string text = to_text_bytes(sum.total());
  for (const MemorySum::Part& part : sum.parts)
    text += (&part == &sum.parts.front() ? ": " : ", ") + part.name + " " + to_text_bytes(part.bytes);
  return text;
}

uint64_t held_bytes() {
  std::ifstream file("/proc/self/status");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  uint64_t bytes = 0;
  for (const char* key : {"RssAnon", "RssShmem", "VmExe", "VmLib"}) bytes += status_bytes(text, key);
  return bytes;
}

MemoryBudget memory_budget(const MachineLimits& limits, uint64_t held) {
  MemoryBudget least{UINT64_MAX, ""};
  for (const MemoryBound& bound : limits.memory) {
    const bool own = bound.scope == MemoryBound::Scope::kProcess;
    const uint64_t bytes = own ? bound.free_bytes() + held : bound.limit_bytes;
    if (bytes < least.bytes) least = {bytes, bound.what};
  }
  return least;
}

MemorySum coordinator_memory(const GatewayOptions& options, const ApiLoad& load) {
  const uint64_t growing_body = std::max(limits::kJsonBodyBytesMax, load.upload_bytes);  // old and new buffer at once
  const uint64_t jobs = limits::kJobsRunningMax * static_cast<uint64_t>(load.context_len) * limits::kJobTokenBytes +
                        limits::kJobsWaitingMax * limits::kWaitingJobBytes;
  return {{{"program", load.program_bytes},
           {"connections", options.http.connections_max * limits::kHttpConnectionBytes},
           {"bodies", options.http.bodies_bytes_max + growing_body},
           {"texts", limits::kTextWorkBytes},
           {"answers", options.http.answers_bytes_max},
           {"requests", options.generation_bytes_max},
           {"jobs", jobs},
           {"messages", limits::kControlInboxBytesMax + limits::kLinkQueueBytesMax}}};
}

Result<MemorySum> fit_coordinator(GatewayOptions& options, const ApiLoad& load, const MemoryBudget& budget) {
  const GatewayOptions full = options;
  for (double part = 1;; part = std::max(limits::kApiBoundsLeast, part * kStep)) {
    scale(options, full, part, load.upload_bytes);
    MemorySum sum = coordinator_memory(options, load);
    if (sum.total() <= budget.bytes) return sum;
    if (part > limits::kApiBoundsLeast) continue;
    return fail(ErrorCode::kInvalidConfig,
                fmt::format("{} allows {}, and a coordinator may need {}: raise it to that, or to {} for all the "
                            "connections and requests that it can take",
                            budget.by, to_text_bytes(budget.bytes), to_text_bytes(sum.total()),
                            to_text_bytes(coordinator_memory(full, load).total())));
  }
}

Result<MemorySum> fit_worker(const WorkerLoad& load, const MemoryBudget& budget) {
  const uint64_t beside = load.program_bytes + load.weights_bytes;
  if (beside + load.pool_bytes <= budget.bytes)
    return MemorySum{{{"program", load.program_bytes},
                      {"weights", load.weights_bytes},
                      {"kv_pages", load.pool_bytes},
                      {"work", load.work_bytes}}};
  const uint64_t fits = budget.bytes > beside ? budget.bytes - beside : 0;
  const std::string way_out = fits >= uint64_t{1} << 20 ? fmt::format("--kv-memory-mib {} would fit", fits >> 20)
                                                        : "raise it, for no K/V page would fit";
  return fail(ErrorCode::kInvalidConfig,
              fmt::format("{} of K/V pages do not fit beside {} of weights and {} of the program: {} allows {}; {}",
                          to_text_bytes(load.pool_bytes), to_text_bytes(load.weights_bytes),
                          to_text_bytes(load.program_bytes), budget.by, to_text_bytes(budget.bytes), way_out),
              "kv-memory-mib");
}

}  // namespace runahead
