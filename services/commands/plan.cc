// runahead plan: who would get which tokens, and the predicted time to first token. Runs nothing of a
// cluster; `plan search` and `plan profile` measure one that runs (services/commands/plan_search.h, plan_profile.h).
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "base/limits.h"
#include "base/utf8.h"
#include "planner/plan_reasons.h"
#include "services/commands/api_client.h"
#include "services/commands/commands.h"
#include "services/commands/input.h"
#include "services/commands/output.h"
#include "services/commands/plan_profile.h"
#include "services/commands/plan_search.h"
#include "services/engine/engine_loading.h"
#include "services/engine/kept_profile.h"
#include "services/engine/split_table_file.h"

namespace runahead {
namespace {

using nlohmann::json;

struct PlanOptions {
  std::string what;  // empty, "search" or "profile"
  PlanSearchOptions search;
  EngineFlags engine;
  std::string strategy = "auto";
  std::vector<int32_t> lengths = {4096};
  int tokens = 0, workers = 2, ranks = 0;
  std::vector<int32_t> cuts;
  double seconds_per_token = 0, seconds_per_pair = 0;
  double gigabytes_per_second = default_link().bytes_per_second / 1e9,
         latency_ms = default_link().latency_seconds * 1e3;
  bool simulate = false;  // beyond what the model's context and a cluster hold
  int links = 1;
  Jitter jitter;
};

// What is asked, and what the answer rests on.
struct PlanQuestion {
  PlanRequest request;
  std::optional<SplitTable> table;
  int32_t context_max = 0;
  std::string speed_origin, device;
};

constexpr uint64_t kJitterSeeds = 200;

// How the plan fares where workers and links are unsteady; nothing where they are not.
json jitter_json(const PlanQuestion& question, const Plan& plan, const Jitter& jitter) {
  if (jitter.stall_probability <= 0 && jitter.compute_spread <= 0) return {};
  std::vector<WorkerProfile> chain;
  Partition partition;
  for (const PlannedRank& rank : plan.ranks) {
    chain.push_back(rank.profile);
    partition.push_back(rank.range);
  }
  std::vector<double> seconds;
  for (Jitter one = jitter; one.seed <= kJitterSeeds; ++one.seed)
    seconds.push_back(chain_timeline(question.request.model, chain, partition, one).ttft_seconds);
  std::ranges::sort(seconds);
  return {{"stall_probability", jitter.stall_probability},
          {"stall_factor", jitter.stall_factor},
          {"compute_spread", jitter.compute_spread},
          {"median_ttft_seconds", seconds[kJitterSeeds / 2]},
          {"p95_ttft_seconds", seconds[kJitterSeeds * 95 / 100]}};
}

json to_json(const PlanReasons& reasons, const Plan& plan) {
  return {{"bound_seconds", reasons.bound_seconds},
          {"critical_rank", reasons.critical_rank},
          {"critical", reasons.critical_is_link ? "link" : "worker"},
          {"critical_gain_seconds", reasons.critical_gain},
          {"crossover_tokens", reasons.crossover_tokens > 0 ? json(reasons.crossover_tokens) : json()},
          {"why", text(reasons, plan)}};
}

json to_json(const Plan& plan, double single_seconds, const PlanQuestion& question) {
  json ranks = json::array();
  std::vector<int32_t> cuts;
  for (size_t r = 0; r < plan.ranks.size(); ++r) {
    const PlannedRank& rank = plan.ranks[r];
    if (r > 0) cuts.push_back(rank.range.begin);
    ranks.push_back({{"rank", r},
                     {"begin", rank.range.begin},
                     {"end", rank.range.end},
                     {"compute_seconds", rank.compute_seconds},
                     {"kv_wait_seconds", rank.kv_wait_seconds}});
  }
  const WorkerProfile& worker = question.request.workers.front();
  return {{"strategy", name(plan.strategy)},
          {"cuts", cuts},
          {"ranks", ranks},
          {"predicted_ttft_seconds", plan.predicted_ttft_seconds},
          {"predicted_single_ttft_seconds", single_seconds},
          {"reasons", to_json(explain(question.request, plan, question.context_max), plan)},
          {"premises",
           {{"seconds_per_token", worker.speed.seconds_per_token},
            {"seconds_per_pair", worker.speed.seconds_per_pair},
            {"speed", question.speed_origin},
            {"device", question.device},
            {"workers", question.request.workers.size()},
            {"link_gigabytes_per_second", worker.ingress.bytes_per_second / 1e9},
            {"link_latency_ms", worker.ingress.latency_seconds * 1e3}}}};
}

std::string text_of(const PlanOptions& options, const json& plan) {
  std::string text = fmt::format("{} tokens, {}, predicted ttft {:.3f} s (one worker {:.3f} s)\n", options.tokens,
                                 plan["strategy"].get<std::string>(), plan["predicted_ttft_seconds"].get<double>(),
                                 plan["predicted_single_ttft_seconds"].get<double>());
  for (const json& rank : plan["ranks"])
    text += fmt::format("  rank {:2}  [{:6}, {:6})  compute {:7.3f} s  waits for K/V {:7.3f} s\n",
                        rank["rank"].get<int>(), rank["begin"].get<int>(), rank["end"].get<int>(),
                        rank["compute_seconds"].get<double>(), rank["kv_wait_seconds"].get<double>());
  text += plan["reasons"]["why"].get<std::string>() + "\n";
  if (const json& jitter = plan["jitter"]; !jitter.is_null())
    text += fmt::format("with jitter: {:.3f} s (median), {:.3f} s (95 % are sooner)\n",
                        jitter["median_ttft_seconds"].get<double>(), jitter["p95_ttft_seconds"].get<double>());
  const json& premises = plan["premises"];
  return text + fmt::format(
                    "premises: {} equal workers, each with cores of its own ({}); {:.3g} s a token and {:.3g} s a "
                    "pair, {}; links of {:.3g} GB/s and {:.3g} ms, as given or by default, not measured\n",
                    premises["workers"].get<int>(), premises["device"].get<std::string>(),
                    premises["seconds_per_token"].get<double>(), premises["seconds_per_pair"].get<double>(),
                    premises["speed"].get<std::string>(), premises["link_gigabytes_per_second"].get<double>(),
                    premises["link_latency_ms"].get<double>());
}

// The speed of one worker: as given, else as measured on this machine, now or before.
WorkerSpeed speed_of(const PlanOptions& options, Transformer& engine, std::string& origin) {
  WorkerSpeed speed{options.seconds_per_token, options.seconds_per_pair};
  if (speed.seconds_per_token > 0 && speed.seconds_per_pair > 0) {
    origin = "as given";
    return speed;
  }
  const KeptProfile kept = kept_profile(engine, AsioClock());
  origin = (kept.measured ? "measured on this machine now and kept in " : "measured on this machine before, from ") +
           valid_utf8(kept.file.string()) + (kept.measured ? "" : " (delete it to measure anew)");
  if (speed.seconds_per_token > 0 || speed.seconds_per_pair > 0) origin = "one as given, one " + origin;
  if (speed.seconds_per_token <= 0) speed.seconds_per_token = kept.profile.seconds_per_token;
  if (speed.seconds_per_pair <= 0) speed.seconds_per_pair = kept.profile.seconds_per_pair;
  return speed;
}

Result<PlanQuestion> question_of(const PlanOptions& options) {
  const auto engine = TRY(open_engine(options.engine, false));
  if (options.tokens > engine->shape().context_len && !options.simulate)
    return fail(ErrorCode::kContextOverflow,
                fmt::format("{} tokens are more than the model's context of {}; --simulate plans them all the same",
                            options.tokens, engine->shape().context_len),
                "tokens");
  if (options.workers > limits::kWorkersMax && !options.simulate)
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("a cluster has at most {} prefill workers; --simulate plans for up to {}",
                            limits::kWorkersMax, kPlannedWorkersMax),
                "workers");
  PlanQuestion question;
  question.device = device_text(*engine);
  question.context_max = std::max(options.tokens, engine->shape().context_len);
  PlanRequest& request = question.request;
  request.context_len = options.tokens;
  request.model = model_cost(engine->shape(), engine->page_bytes());
  request.cuts = options.cuts;
  request.ranks = options.ranks;
  request.strategy = options.cuts.empty() ? TRY(parse_strategy(options.strategy)) : Strategy::kByHand;
  if (request.strategy == Strategy::kSearched || request.strategy == Strategy::kPredicted) {
    if (options.search.table.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "the strategy '" + options.strategy + "' needs --table, a file of plan search", "table");
    question.table = TRY(read_split_table(options.search.table));
    if (question.table->identity != engine->fingerprint())
      return fail(ErrorCode::kInvalidArgument,
                  "the table was searched with " + question.table->identity + ", this model and mode are " +
                      engine->fingerprint(),
                  "table");
  }
  WorkerProfile worker{.speed = speed_of(options, *engine, question.speed_origin), .ingress = default_link()};
  worker.ingress.bytes_per_second = options.gigabytes_per_second * 1e9;
  worker.ingress.latency_seconds = options.latency_ms * 1e-3;
  worker.ingress.links = options.links;
  worker.ingress.bytes_per_second *= options.links;
  request.workers.assign(static_cast<size_t>(options.workers), worker);
  return question;
}

Result<void> search(const PlanOptions& options, const CommonOptions& common) {
  PlanSearchOptions search = options.search;
  search.tokens = options.lengths;
  search.ranks = options.ranks;
  return search_plans(search, common);
}

Result<void> plan(PlanOptions options, const CommonOptions& common) {
  if (options.what == "search") return search(options, common);
  if (options.what == "profile")
    return profile_cluster({options.search.url, options.search.api_key, options.lengths, options.search.repetitions},
                           common);
  if (!options.what.empty())
    return fail(ErrorCode::kInvalidArgument,
                "there is no plan '" + options.what + "'; there are plan search and plan profile", "what");
  if (options.lengths.size() != 1)
    return fail(ErrorCode::kInvalidArgument, "give one length; only plan search and profile take several", "tokens");
  options.tokens = options.lengths.front();
  PlanQuestion question = TRY(question_of(options));
  question.request.table = question.table ? &*question.table : nullptr;
  const Plan chosen = TRY(make_plan(question.request));
  PlanRequest alone = question.request;
  alone.strategy = Strategy::kSingle;
  alone.cuts.clear();
  const Plan single = TRY(make_plan(alone));
  json out = to_json(chosen, single.predicted_ttft_seconds, question);
  out["jitter"] = jitter_json(question, chosen, options.jitter);
  if (common.json()) {
    print_json(out);
  } else {
    print_text(text_of(options, out));
  }
  return {};
}

// 0 asks for a measurement; what is positive must be a speed that a machine can have.
CLI::Validator speed_number() {
  CLI::Validator plausible = real_number(1e-15, 1e3), nothing = real_number(0, 0);
  return CLI::Validator([=](std::string& text) { return nothing(text).empty() ? std::string() : plausible(text); },
                        "0, or 1e-15 to 1000");
}

void add_simulation_flags(CLI::App& command, PlanOptions& options) {
  command.add_flag("--simulate", options.simulate,
                   "prompts beyond the model's context, and more workers than a cluster has");
  command.add_option("--links", options.links, "side by side into a worker")->check(whole_number(1, 64));
  command
      .add_option("--stalls", options.jitter.stall_probability,
                  "share of a layer's transfers that take 5 times as long")
      ->check(real_number(0, 1));
  command.add_option("--spread", options.jitter.compute_spread, "of a rank's time for a layer, 0.05: by 5 %")
      ->check(real_number(0, 1));
}

}  // namespace

void add_plan(CommandLine& line) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* command = line.add("plan", "print the partition and the predicted time to first token",
                               [options](const CommonOptions& common) { return plan(*options, common); });
  add_model_flags(*command, options->engine.model);
  command
      ->add_option(
          "what", options->what,
          "search: measure a running cluster for the best cuts, the paper's KVR-S; profile: teach it the speeds "
          "of its workers and links")
      ->default_str("");
  command->add_option("--tokens,--isl", options->lengths, "length of the prompt; search, profile: all lengths")
      ->delimiter(',')
      ->check(whole_number(1, 1 << 24));
  command->add_option("--url", options->search.url, "search, profile: host:port of the cluster's API");
  add_api_key_flag(*command, options->search.api_key);
  command
      ->add_option("--repetitions", options->search.repetitions,
                   "search: of each measurement, the median counts; profile: rounds")
      ->check(whole_number(1, 100));
  command->add_option(
      "--table", options->search.table,
      "search: file that keeps what was measured and found; default: split-table.json of the cache folder");
  command->add_option("-w,--workers", options->workers, "prefill workers")->check(whole_number(1, kPlannedWorkersMax));
  add_partition_flags(*command, options->strategy, options->cuts);
  command->add_option("--ranks", options->ranks, "ranks at most; 0 chooses; search: all ready workers")
      ->check(whole_number(0, kPlannedWorkersMax));
  add_packed_cache_flag(*command, options->engine.packed_cache);
  add_compute_flag(*command, options->engine.compute);
  add_threads_flag(*command, options->engine.threads);
  command
      ->add_option("--seconds-per-token", options->seconds_per_token,
                   "of all that is linear; 0: measured on this machine")
      ->check(speed_number());
  command
      ->add_option("--seconds-per-pair", options->seconds_per_pair,
                   "of attention to a key; 0: measured on this machine")
      ->check(speed_number());
  command->add_option("--gigabytes-per-second", options->gigabytes_per_second, "of a link")
      ->check(real_number(1e-6, 1e6));
  command->add_option("--latency-ms", options->latency_ms, "of a link")->check(real_number(0, 1e6));
  add_simulation_flags(*command, *options);
}

}  // namespace runahead
