// runahead bench prefill|decode|kernels|plan: how fast one worker is, in this process, as a share of what the machine's
// instructions and memory allow, measured in the same run (of a GPU: times alone); and how long a plan takes.
// docs/benchmarks.md says what each number means. bench load: a running cluster (bench_load.h); bench rank: a rival's rank
// (bench_rank.h).
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "bench/engine_bench.h"
#include "bench/kernel_bench.h"
#include "planner/strategies.h"
#include "services/commands/bench_load.h"
#include "services/commands/bench_rank.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/engine/engine_loading.h"
#include "services/engine/kernel_timings.h"
#include "services/engine/model_path.h"

namespace runahead {
namespace {

using nlohmann::json;

struct BenchOptions {
  std::string what = "prefill";
  EngineFlags engine;
  std::vector<int> tokens = {512, 2048, 8192}, context = {0, 2048}, batch = {1, 4, 8};
  // A decode step alone, two batches of them, a short chunk, a block of prefill.
  std::vector<int> rows = {1, 4, 16, 128, 512};
  int repetitions = 3, steps = 32;
  bool all = false;
  BenchRankOptions rank;
  BenchLoadOptions load;
};

// An early and two late chunks.
constexpr int32_t kKernelContexts[] = {512, 2048, 8192};

// bench plan: chains of Llama 3 8B, from two workers to the registry's most.
constexpr int32_t kLlama3VocabSize = 128256;
constexpr size_t kLlama3PageBytes = 2 * 64 * 8 * 128 * sizeof(int16_t);  // K and V, 64 tokens, 8 heads of 128
constexpr int32_t kPlanTokens = 32768;
constexpr int kPlanWorkers[] = {2, 8, limits::kWorkersMax};
constexpr int kPlanSamples = 101;

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

json result_json(const BenchResult& r, const WorkerEngine& worker) {
  json fields = seconds_json(r.seconds);
  fields.update({{"device", worker.device},
                 {"compute", worker.engine->compute_name()},
                 {"tokens_per_second", r.tokens_per_second()},
                 {"operations", r.operations},
                 {"giga_ops_per_second", r.per_second(r.operations) / 1e9}});
  const Transformer* cpu = cpu_engine(*worker.engine);
  if (cpu == nullptr) return fields;
  fields.update({{"threads", cpu->threads()},
                 {"isa", cpu->ops().isa},
                 {"peak_giga_ops_per_second", r.peak_operations_per_second / 1e9},
                 {"peak_fraction", r.per_second(r.operations) / r.peak_operations_per_second}});
  return fields;
}

void print_prefill(const BenchResult& r, bool on_cpu) {
  std::printf("%8d %12.1f %8.1f..%9.1f %10.3f %8.1f", r.tokens, r.tokens_per_second(), r.tokens / r.seconds.max,
              r.tokens / r.seconds.min, r.seconds.median, r.per_second(r.operations) / 1e9);
  if (on_cpu) std::printf(" %6.1f %%", 100 * r.per_second(r.operations) / r.peak_operations_per_second);
  std::printf("\n");
  std::fflush(stdout);
}

Result<void> bench_prefill_command(const BenchOptions& options, const CommonOptions& common) {
  const WorkerEngine worker = TRY(open_worker_engine(options.engine, !common.quiet && !common.json()));
  const bool on_cpu = cpu_engine(*worker.engine) != nullptr;
  json results = json::array();
  if (!common.json())
    std::printf("%8s %12s %19s %10s %8s%s\n", "tokens", "tokens/s", "(slowest..fastest)", "seconds", "GOP/s",
                on_cpu ? "  of peak" : "");
  for (int tokens : options.tokens) {
    const BenchResult r = TRY(bench_prefill(*worker.engine, tokens, options.repetitions));
    results.push_back(result_json(r, worker));
    results.back()["tokens"] = tokens;
    if (!common.json()) print_prefill(r, on_cpu);
  }
  if (common.json()) print_json({{"results", results}, {"peak_resident_bytes", peak_resident_bytes()}});
  else
    std::printf("%s; peak resident memory %.0f MiB\n", worker.device.c_str(),
                static_cast<double>(peak_resident_bytes()) / (1 << 20));
  return {};
}

json decode_json(const BenchResult& r, const WorkerEngine& worker) {
  json fields = result_json(r, worker);
  fields.update({{"context", r.context}, {"batch", r.tokens}});
  if (cpu_engine(*worker.engine) == nullptr) return fields;
  fields.update({{"bytes", r.bytes},
                 {"bytes_per_second", r.per_second(r.bytes)},
                 {"read_bytes_per_second", r.peak_bytes_per_second},
                 {"read_fraction", r.per_second(r.bytes) / r.peak_bytes_per_second}});
  return fields;
}

void print_decode(const BenchResult& r, bool on_cpu) {
  std::printf("%8d %6d %12.1f %8.1f..%9.1f %9.2f", r.context, r.tokens, r.tokens_per_second(), r.tokens / r.seconds.max,
              r.tokens / r.seconds.min, 1e3 * r.seconds.median);
  if (on_cpu)
    std::printf(" %8.2f %8.1f %% %6.1f %%", r.per_second(r.bytes) / 1e9,
                100 * r.per_second(r.bytes) / r.peak_bytes_per_second,
                100 * r.per_second(r.operations) / r.peak_operations_per_second);
  std::printf("\n");
  std::fflush(stdout);
}

Result<void> bench_decode_command(const BenchOptions& options, const CommonOptions& common) {
  const WorkerEngine worker = TRY(open_worker_engine(options.engine, !common.quiet && !common.json()));
  const bool on_cpu = cpu_engine(*worker.engine) != nullptr;
  json results = json::array();
  if (!common.json())
    std::printf("%8s %6s %12s %19s %9s%s\n", "context", "batch", "tokens/s", "(slowest..fastest)", "ms/step",
                on_cpu ? "     GB/s  of memory  of peak" : "");
  for (int context : options.context) {
    for (const BenchResult& r : TRY(bench_decode(*worker.engine, context, options.batch, options.steps))) {
      results.push_back(decode_json(r, worker));
      if (!common.json()) print_decode(r, on_cpu);
    }
  }
  if (common.json()) print_json({{"results", results}});
  else std::printf("%s\n", worker.device.c_str());
  return {};
}

json kernel_json(const KernelResult& r, const OpTable& ops) {
  json fields = seconds_json(r.seconds);
  fields.update({{"kernel", r.kernel},
                 {"what", r.what},
                 {"rows", r.rows},
                 {"compute", name(ops.mode)},
                 {"isa", ops.isa},
                 {"operations", r.operations},
                 {"giga_ops_per_second", r.operations / r.seconds.median / 1e9},
                 {"peak_giga_ops_per_second", r.peak_operations_per_second / 1e9},
                 {"peak_fraction", r.peak_fraction()}});
  if (r.pairs > 0) fields.update({{"pairs", r.pairs}, {"pair_rate_of_first_context", r.of_first}});
  return fields;
}

void print_kernel(const KernelResult& r, const OpTable& ops) {
  std::printf("%-10s %-5s %-9s %-47s %5d %11.1f %10.1f..%10.1f %8.1f %6.1f %%", std::string(ops.isa).c_str(),
              std::string(name(ops.mode)).c_str(), r.kernel.c_str(), r.what.c_str(), r.rows, 1e6 * r.seconds.median,
              1e6 * r.seconds.min, 1e6 * r.seconds.max, r.operations / r.seconds.median / 1e9, 100 * r.peak_fraction());
  if (r.pairs > 0) std::printf(" %8.3f %6.3f", 1e9 * r.seconds.median / r.pairs, r.of_first);
  std::printf("\n");
  std::fflush(stdout);
}

// The tables that are measured: of --compute on the instruction set that was chosen for it; with --all on every one
// that runs here but plain C++ (minutes), and in every mode if --compute is auto.
Result<std::vector<const OpTable*>> tables_to_measure(const BenchOptions& options) {
  const ComputeOption compute = TRY(parse_compute_option(options.engine.compute));
  if (compute.cuda) return fail(ErrorCode::kUnsupported, "bench kernels measures the CPU's kernels", "compute");
  const std::optional<ComputeMode> wanted = compute.mode;
  prepare_kernels();
  const OpTable* chosen = TRY(select_ops(wanted.value_or(fastest_mode())));
  if (!options.all) return std::vector{chosen};
  std::vector<const OpTable*> tables;
  for (const OpTable* ops : runnable_ops())
    if ((!wanted || ops->mode == *wanted) && (ops == chosen || ops->isa != "generic")) tables.push_back(ops);
  return tables;
}

Result<void> bench_kernels_command(const BenchOptions& options, const CommonOptions& common) {
  if (options.engine.threads != 1)
    return fail(ErrorCode::kInvalidArgument, "bench kernels measures one core; leave out --threads", "threads");
  const std::vector<const OpTable*> tables = TRY(tables_to_measure(options));
  const Gguf file = TRY(open_model(options.engine.model));
  const ModelShape shape = TRY(read_model_config(file)).shape;
  std::vector<int> rows = options.rows;
  std::sort(rows.begin(), rows.end());
  if (!common.json())
    std::printf("%-10s %-5s %-9s %-47s %5s %11s %22s %8s %8s %8s %6s\n", "isa", "mode", "kernel", "what", "rows",
                "us/call", "(fastest..slowest)", "GOP/s", "of peak", "ns/pair", "late");
  KernelBenchOptions measured{
      .name = "model", .rows = rows, .contexts = kKernelContexts, .repetitions = options.repetitions};
  json results = json::array();
  for (const OpTable* ops : tables) {
    const auto report = [&](const KernelResult& result) {
      if (common.json()) results.push_back(kernel_json(result, *ops));
      else print_kernel(result, *ops);
    };
    measured.name = "model";
    bench_kernels(*ops, shape, measured, report);
    measured.name = "Llama-3-8B";
    bench_kernels(*ops, llama3_8b_shape(), measured, report);
  }
  if (common.json()) print_json({{"results", results}});
  return {};
}

// Planning is arithmetic on profiles: no model is opened, and any speeds will do.
Result<void> bench_plan_command(const CommonOptions& common) {
  ModelShape llama3 = llama3_8b_shape();
  llama3.vocab_size = kLlama3VocabSize;
  PlanRequest request{.context_len = kPlanTokens, .model = model_cost(llama3, kLlama3PageBytes)};
  json results = json::array();
  if (!common.json()) std::printf("%8s %12s %22s\n", "workers", "us/plan", "(fastest..slowest)");
  for (int workers : kPlanWorkers) {
    request.workers.assign(static_cast<size_t>(workers), {.speed = {1e-3, 1e-7}, .ingress = default_link()});
    std::vector<double> seconds;
    for (int i = 0; i < kPlanSamples; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      TRY(make_plan(request));
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    const Spread s = spread_of(std::move(seconds));
    results.push_back(seconds_json(s));
    results.back().update({{"workers", workers}, {"tokens", kPlanTokens}});
    if (!common.json()) std::printf("%8d %12.1f %10.1f..%10.1f\n", workers, 1e6 * s.median, 1e6 * s.min, 1e6 * s.max);
  }
  if (common.json()) print_json({{"results", results}});
  return {};
}

Result<void> bench_here(const BenchOptions& options, const CommonOptions& common) {
  if (options.what == "prefill") return bench_prefill_command(options, common);
  if (options.what == "decode") return bench_decode_command(options, common);
  if (options.what == "kernels") return bench_kernels_command(options, common);
  if (options.what == "plan") return bench_plan_command(common);
  if (options.what == "rank") return bench_rank(options.engine, options.rank);
  return fail(ErrorCode::kInvalidArgument,
              "there is no bench '" + options.what + "'; there are prefill, decode, kernels, plan, load and rank",
              "what");
}

Result<int> bench(const BenchOptions& options, const CommonOptions& common) {
  if (options.what == "load") return bench_load(options.load, common);
  if (!options.load.fail_if.empty())
    return fail(ErrorCode::kUnsupported, "--fail-if is of bench load; leave it out", "fail-if");
  TRY(bench_here(options, common));
  return 0;
}

constexpr const char* kExplanation =
    "prefill  tokens/s of whole prompts\n"
    "decode   tokens/s of single steps, by context and batch; GB/s are of weights and K/V, each read once\n"
    "kernels  one core: the mode's dot instruction, the products of the model and of Llama 3 8B by rows, and the\n"
    "         attention of a page of queries by context: ns a pair of query and key, and pairs/s over those of the\n"
    "         first context (late)\n"
    "plan     the coordinator's planning of one request, by ready workers\n"
    "load     clients against a running cluster (--url): time to first token (ttft), per output token (tpot) and of "
    "the\n"
    "         whole answer (e2e), as the clients see them\n"
    "rank     one rank of a rival scheme (TSP, the paper's chain, ...), driven over stdin by bench/chain.py\n"
    "of peak: operations, counted from the shapes, over those of the mode's dot instruction in the same run. Numbers\n"
    "are medians; docs/benchmarks.md says how to read each column.";

}  // namespace

void add_bench(CommandLine& line) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App* command = line.add_with_code("bench", "measure one worker in this process, or a running cluster under load",
                                         [options](const CommonOptions& common) { return bench(*options, common); });
  command->footer(kExplanation);
  command->add_option("what", options->what, "prefill, decode, kernels, plan, load or rank");
  add_model_flags(*command, options->engine.model);
  add_compute_flag(*command, options->engine.compute);
  add_packed_cache_flag(*command, options->engine.packed_cache);
  command->add_option("--threads", options->engine.threads, "compute threads; kernels: one core only")
      ->check(whole_number(1, 256));
  command->add_option("--tokens", options->tokens, "prefill: prompt lengths")
      ->delimiter(',')
      ->check(whole_number(1, 1 << 24));
  command->add_option("--repetitions", options->repetitions, "prefill, kernels: samples of each; the median counts")
      ->check(whole_number(1, 100));
  command->add_option("--rows", options->rows, "kernels: tokens in a product")
      ->delimiter(',')
      ->check(whole_number(1, 2048));  // the results of Llama 3 8B's largest product are then 235 MB
  command->add_option("--context", options->context, "decode: tokens before the first step")
      ->delimiter(',')
      ->check(whole_number(0, 1 << 24));
  command->add_option("--batch", options->batch, "decode: sequences in one step")
      ->delimiter(',')
      ->check(whole_number(1, 1024));
  command->add_option("--steps", options->steps, "decode: steps measured; the median counts")
      ->check(whole_number(1, 10'000));
  command->add_option("--transport", options->rank.transport, "rank: of what goes between ranks");
  command->add_option("--data-listen", options->rank.data_listen, "rank: host:port for it; port 0 takes a free one");
  command->add_flag("--insecure-network", options->rank.insecure_network, "rank: listen beyond loopback");
  command->add_flag("--all", options->all,
                    "kernels: every instruction set that runs here, and every mode if --compute is auto");
  add_bench_load_flags(*command, options->load);
}

}  // namespace runahead
