// runahead plan: who would get which tokens, and the predicted time to first token. Runs nothing of the cluster.
#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "planner/strategies.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/engine_loading.h"
#include "services/engine_profile.h"

namespace runahead {
namespace {

using nlohmann::json;

struct PlanOptions {
  std::string model = "smollm2", compute = "auto", packed_cache, strategy = "auto";
  std::vector<std::string> override_kv;
  int tokens = 4096, workers = 2, ranks = 0, threads = 1;
  std::vector<int32_t> cuts;
  double seconds_per_token = 0, seconds_per_pair = 0, gigabytes_per_second = 0, latency_ms = -1;
};

ModelDims dims_of(const ModelShape& s) {
  return {s.num_layers, s.model_dim, s.num_heads, s.num_kv_heads, s.head_dim, s.ffn_dim, s.vocab_size};
}

json to_json(const Plan& plan, double single_seconds) {
  json ranks = json::array();
  std::vector<int32_t> cuts;
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    const PlannedRank& rank = plan.ranks[r];
    if (r > 0) cuts.push_back(rank.range.begin);
    ranks.push_back({{"rank", r}, {"begin", rank.range.begin}, {"end", rank.range.end},
                     {"compute_seconds", rank.compute_seconds}, {"kv_wait_seconds", rank.kv_wait_seconds}});
  }
  return {{"strategy", name(plan.strategy)}, {"cuts", cuts}, {"ranks", ranks},
          {"predicted_ttft_seconds", plan.predicted_ttft_seconds},
          {"predicted_single_ttft_seconds", single_seconds}};
}

void print(const PlanOptions& options, const json& plan) {
  std::printf("%d tokens, %s, predicted ttft %.3f s (one worker %.3f s)\n", options.tokens,
              plan["strategy"].get<std::string>().c_str(), plan["predicted_ttft_seconds"].get<double>(),
              plan["predicted_single_ttft_seconds"].get<double>());
  for (const json& rank : plan["ranks"])
    std::printf("  rank %2d  [%6d, %6d)  compute %7.3f s  waits for K/V %7.3f s\n", rank["rank"].get<int>(),
                rank["begin"].get<int>(), rank["end"].get<int>(), rank["compute_seconds"].get<double>(),
                rank["kv_wait_seconds"].get<double>());
}

// Measured on this machine unless both constants are given.
Result<PlanRequest> request_of(const PlanOptions& options) {
  const auto engine = TRY(open_engine(options.model, options.compute, options.threads, options.packed_cache,
                                       false, options.override_kv));
  if (options.tokens > engine->shape().context_len)
    return fail(ErrorCode::kContextOverflow, fmt::format("{} tokens are more than the model's context of {}",
                                                         options.tokens, engine->shape().context_len), "tokens");
  PlanRequest request{.context_len = options.tokens,
                      .model = model_cost(dims_of(engine->shape()), engine->page_bytes()),
                      .cuts = options.cuts, .ranks = options.ranks};
  request.strategy = options.cuts.empty() ? TRY(parse_strategy(options.strategy)) : Strategy::kByHand;
  WorkerProfile worker{.speed = {options.seconds_per_token, options.seconds_per_pair}, .ingress = default_link()};
  if (worker.speed.a <= 0 || worker.speed.b <= 0) {
    const EngineProfile measured = measure_engine(*engine, AsioClock());
    if (worker.speed.a <= 0) worker.speed.a = measured.linear_seconds_per_token;
    if (worker.speed.b <= 0) worker.speed.b = measured.attention_seconds_per_pair;
  }
  if (options.gigabytes_per_second > 0) worker.ingress.bytes_per_second = options.gigabytes_per_second * 1e9;
  if (options.latency_ms >= 0) worker.ingress.latency_seconds = options.latency_ms * 1e-3;
  request.workers.assign(static_cast<size_t>(options.workers), worker);
  return request;
}

Result<void> plan(const PlanOptions& options, const CommonOptions& common) {
  PlanRequest request = TRY(request_of(options));
  const Plan chosen = TRY(make_plan(request));
  request.strategy = Strategy::kSingle;
  request.cuts.clear();
  const Plan single = TRY(make_plan(request));
  const json out = to_json(chosen, single.predicted_ttft_seconds);
  if (common.json()) {
    std::printf("%s\n", out.dump().c_str());
  } else {
    print(options, out);
  }
  return {};
}

}  // namespace

void add_plan(CommandLine& line) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = line.add("plan", "print the partition and the predicted time to first token",
                               [options](const CommonOptions& common) { return plan(*options, common); });
  add_model_flags(*command, options->model, options->override_kv);
  command->add_option("--tokens,--isl", options->tokens, "length of the prompt")->check(CLI::Range(1, 1 << 24));
  command->add_option("-w,--workers", options->workers, "prefill workers")->check(CLI::Range(1, limits::kWorkersMax));
  command->add_option("--strategy", options->strategy, "auto, single, even or balanced");
  command->add_option("--cuts", options->cuts, "token positions where the prompt is cut, multiples of 64")->delimiter(',');
  command->add_option("--ranks", options->ranks, "ranks at most; 0 chooses")->check(CLI::NonNegativeNumber);
  add_packed_cache_flag(*command, options->packed_cache);
  command->add_option("--compute", options->compute, "auto, fp32, bf16, int16 or int8");
  command->add_option("--threads", options->threads, "compute threads of one worker")->check(CLI::Range(1, 256));
  command->add_option("--seconds-per-token", options->seconds_per_token, "cost model a; 0: measured on this machine");
  command->add_option("--seconds-per-pair", options->seconds_per_pair, "cost model b; 0: measured on this machine");
  command->add_option("--gigabytes-per-second", options->gigabytes_per_second, "of a link; 0: the planner's default");
  command->add_option("--latency-ms", options->latency_ms, "of a link");
}

}  // namespace runahead
