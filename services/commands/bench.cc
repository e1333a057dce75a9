// runahead bench prefill|decode|kernels: how fast one worker is, in this process, as a share of what the machine's
// instructions and memory allow, measured in the same run. docs/benchmarks.md says what each number means.
#include "model/bench.h"

#include <sys/resource.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "services/commands/commands.h"
#include "services/engine_loading.h"

namespace runahead {
namespace {

using nlohmann::json;

struct BenchOptions {
  std::string what = "prefill", model = "smollm2", compute = "auto";
  std::vector<int> tokens = {512, 2048, 8192}, context = {0, 2048}, batch = {1, 4, 8};
  int threads = 1, repetitions = 3, steps = 32;
};

// The largest resident set that this process has had, in bytes.
int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;  // Linux counts in KiB
}

json seconds_json(const Spread& s) {
  return {{"seconds", s.median},
          {"seconds_min", s.min},
          {"seconds_lower_quartile", s.lower_quartile},
          {"seconds_upper_quartile", s.upper_quartile},
          {"seconds_max", s.max}};
}

json result_json(const BenchResult& r, const Transformer& engine) {
  json fields = seconds_json(r.seconds);
  fields.update({{"threads", engine.threads()},
                 {"compute", engine.compute_name()},
                 {"isa", engine.ops().isa},
                 {"tokens_per_second", r.tokens_per_second()},
                 {"operations", r.operations},
                 {"giga_ops_per_second", r.per_second(r.operations) / 1e9},
                 {"peak_giga_ops_per_second", r.peak_operations_per_second / 1e9},
                 {"peak_fraction", r.per_second(r.operations) / r.peak_operations_per_second}});
  return fields;
}

void print_json(const json& fields) {
  std::printf("%s\n", fields.dump().c_str());
}

Result<void> bench_prefill_command(const BenchOptions& options, const CommonOptions& common) {
  const auto engine =
      TRY(open_engine(options.model, options.compute, options.threads, !common.quiet && !common.json()));
  json results = json::array();
  if (!common.json())
    std::printf("%8s %12s %19s %10s %8s %8s\n", "tokens", "tokens/s", "(slowest..fastest)", "seconds", "GOP/s",
                "of peak");
  for (int tokens : options.tokens) {
    const BenchResult r = TRY(bench_prefill(*engine, tokens, options.repetitions));
    results.push_back(result_json(r, *engine));
    results.back()["tokens"] = tokens;
    if (common.json()) continue;
    std::printf("%8d %12.1f %8.1f..%9.1f %10.3f %8.1f %6.1f %%\n", tokens, r.tokens_per_second(),
                tokens / r.seconds.max, tokens / r.seconds.min, r.seconds.median, r.per_second(r.operations) / 1e9,
                100 * r.per_second(r.operations) / r.peak_operations_per_second);
    std::fflush(stdout);
  }
  if (common.json())
    print_json({{"results", results}, {"peak_resident_bytes", peak_resident_bytes()}});
  else
    std::printf("%s; peak resident memory %.0f MiB\n", device_text(*engine).c_str(),
                static_cast<double>(peak_resident_bytes()) / (1 << 20));
  return {};
}

Result<void> bench_decode_command(const BenchOptions& options, const CommonOptions& common) {
  const auto engine =
      TRY(open_engine(options.model, options.compute, options.threads, !common.quiet && !common.json()));
  json results = json::array();
  if (!common.json())
    std::printf("%8s %6s %12s %19s %9s %8s %10s %8s\n", "context", "batch", "tokens/s", "(slowest..fastest)", "ms/step",
                "GB/s", "of memory", "of peak");
  for (int context : options.context) {
    for (const BenchResult& r : TRY(bench_decode(*engine, context, options.batch, options.steps))) {
      results.push_back(result_json(r, *engine));
      results.back().update({{"context", context},
                             {"batch", r.tokens},
                             {"bytes", r.bytes},
                             {"bytes_per_second", r.per_second(r.bytes)},
                             {"read_bytes_per_second", r.peak_bytes_per_second},
                             {"read_fraction", r.per_second(r.bytes) / r.peak_bytes_per_second}});
      if (common.json()) continue;
      std::printf("%8d %6d %12.1f %8.1f..%9.1f %9.2f %8.2f %8.1f %% %6.1f %%\n", context, r.tokens,
                  r.tokens_per_second(), r.tokens / r.seconds.max, r.tokens / r.seconds.min, 1e3 * r.seconds.median,
                  r.per_second(r.bytes) / 1e9, 100 * r.per_second(r.bytes) / r.peak_bytes_per_second,
                  100 * r.per_second(r.operations) / r.peak_operations_per_second);
      std::fflush(stdout);
    }
  }
  if (common.json())
    print_json({{"results", results}});
  else
    std::printf("%s\n", device_text(*engine).c_str());
  return {};
}

Result<void> bench(const BenchOptions& options, const CommonOptions& common) {
  if (options.what == "prefill") return bench_prefill_command(options, common);
  if (options.what == "decode") return bench_decode_command(options, common);
  return fail(ErrorCode::kUnsupported,
              "bench " + options.what + " is not built; there are: bench prefill, bench decode", "what");
}

}  // namespace

void add_bench(CommandLine& line) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = line.add("bench", "measure one worker in this process against what the machine allows",
                               [options](const CommonOptions& common) { return bench(*options, common); });
  command->add_option("what", options->what, "prefill or decode");
  command->add_option("-m,--model", options->model, "path of a GGUF file, or a short name (smollm2)");
  command->add_option("--compute", options->compute, "auto, fp32, bf16, int16 or int8");
  command->add_option("--threads", options->threads, "compute threads")->check(CLI::Range(1, 256));
  command->add_option("--tokens", options->tokens, "prefill: prompt lengths")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 24));
  command->add_option("--repetitions", options->repetitions, "prefill: of each length; the median counts")
      ->check(CLI::Range(1, 100));
  command->add_option("--context", options->context, "decode: tokens before the first step")
      ->delimiter(',')
      ->check(CLI::Range(0, 1 << 24));
  command->add_option("--batch", options->batch, "decode: sequences in one step")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024));
  command->add_option("--steps", options->steps, "decode: steps measured; the median counts")
      ->check(CLI::Range(1, 10'000));
}

}  // namespace runahead
