// runahead bench prefill: how fast one worker's prefill is, in this process, as a fraction of the instruction peak that is
// measured in the same run.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "model/bench.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/engine_loading.h"

namespace runahead {
namespace {

using nlohmann::json;

struct BenchOptions {
  std::string what = "prefill", model = "smollm2", compute = "auto", packed_cache;
  std::vector<int> tokens = {512, 2048, 8192};
  int threads = 1, repetitions = 3;
};

Result<void> bench(const BenchOptions& options, const CommonOptions& common) {
  if (options.what != "prefill")
    return fail(ErrorCode::kUnsupported, "bench " + options.what + " is not built; there is: bench prefill", "what");
  const auto engine = TRY(open_engine(options.model, options.compute, options.threads, options.packed_cache,
                                       !common.quiet && !common.json()));
  json results = json::array();
  for (int tokens : options.tokens) {
    const BenchResult r = TRY(bench_prefill(*engine, tokens, options.repetitions));
    results.push_back({{"tokens", tokens}, {"threads", options.threads}, {"compute", engine->compute_name()},
                       {"seconds", r.seconds}, {"tokens_per_second", r.tokens_per_second}, {"peak_fraction", r.peak_fraction}});
    if (!common.json())
      std::printf("%6d tokens  %d thread%s  %s  %8.3f s  %8.1f tokens/s  %4.1f %% of the instruction peak\n", tokens,
                  options.threads, options.threads == 1 ? "" : "s", engine->compute_name().c_str(), r.seconds,
                  r.tokens_per_second, 100 * r.peak_fraction);
  }
  if (common.json()) std::printf("%s\n", json{{"results", results}}.dump().c_str());
  return {};
}

}  // namespace

void add_bench(CommandLine& line) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = line.add("bench", "measure one worker's prefill in this process",
                               [options](const CommonOptions& common) { return bench(*options, common); });
  command->add_option("what", options->what, "prefill");
  command->add_option("-m,--model", options->model, "path of a GGUF file, or a short name (smollm2)");
  command->add_option("--tokens", options->tokens, "prompt lengths")->delimiter(',')->check(CLI::Range(1, 1 << 24));
  command->add_option("--threads", options->threads, "compute threads")->check(CLI::Range(1, 256));
  command->add_option("--compute", options->compute, "auto, fp32, bf16, int16 or int8");
  add_packed_cache_flag(*command, options->packed_cache);
  command->add_option("--repetitions", options->repetitions, "the median counts")->check(CLI::Range(1, 100));
}

}  // namespace runahead
