#include "services/commands/plan_profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "planner/partition.h"
#include "planner/split_table.h"
#include "services/commands/cluster_probe.h"
#include "services/commands/doctor_cluster.h"
#include "services/commands/output.h"
#include "services/engine/progress_bar.h"

namespace runahead {
namespace {

using nlohmann::json;

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values.empty() ? 0 : values[values.size() / 2];
}

// How far the last round's predictions were off.
double prediction_error(const std::vector<json>& reports) {
  std::vector<double> errors;
  for (const json& report : reports) {
    const double predicted = report.value("plan", json::object()).value("predicted_ttft_seconds", 0.0);
    errors.push_back(std::abs(predicted / report.at("ttft_seconds").get<double>() - 1));
  }
  return median(errors);
}

Result<std::vector<json>> run_rounds(ClusterProbe& probe, const PlanProfileOptions& options, int32_t ranks,
                                     const CommonOptions& common) {
  std::vector<std::pair<int32_t, std::vector<int32_t>>> ways;
  for (const int32_t tokens : options.tokens)
    for (std::vector<int32_t>& cuts : profile_cuts(tokens, ranks)) ways.emplace_back(tokens, std::move(cuts));
  ProgressBar bar("profile", !common.quiet);
  std::vector<json> last;
  for (int round = 0; round < options.repetitions; ++round) {
    last.clear();
    for (const auto& [tokens, cuts] : ways) {
      last.push_back(TRY(probe.ask(tokens, cuts)));
      const auto done =
          static_cast<double>(round) * static_cast<double>(ways.size()) + static_cast<double>(last.size());
      bar.show(done / (options.repetitions * static_cast<double>(ways.size())),
               fmt::format("{} tokens, {:.3f} s", tokens, last.back().at("ttft_seconds").get<double>()));
    }
  }
  bar.clear();
  return last;
}

}  // namespace

std::vector<std::vector<int32_t>> profile_cuts(int32_t tokens, int32_t ranks) {
  std::vector<std::vector<int32_t>> all;
  for (const double slope : {0.0, 1.0, -1.0}) {
    std::vector<double> chunks;
    for (int32_t rank = 0; rank < ranks; ++rank)
      chunks.push_back(ranks + slope * (ranks - 1 - 2.0 * rank) / 2);  // shrinks to a third of the first at most
    const double whole = std::accumulate(chunks.begin(), chunks.end(), 0.0);
    for (double& chunk : chunks) chunk *= tokens / whole;
    std::vector<int32_t> cuts = cuts_of(pages_of(chunks, tokens));
    if (std::ssize(cuts) + 1 == ranks && std::ranges::find(all, cuts) == all.end()) all.push_back(std::move(cuts));
  }
  return all;
}

Result<void> profile_cluster(const PlanProfileOptions& options, const CommonOptions& common) {
  ClusterProbe probe(options.url, options.api_key);
  const int32_t ranks = ClusterProbe::ready_prefill_workers(TRY(probe.cluster()));
  for (const int32_t tokens : options.tokens)
    if (ranks > ranks_max(tokens))
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("{} tokens have {} pages, too few for {} workers", tokens, ranks_max(tokens), ranks),
                  "tokens");
  const std::vector<json> reports = TRY(run_rounds(probe, options, ranks, common));
  const json cluster = TRY(probe.cluster());
  const std::string metrics = TRY(probe.metrics());
  const double error = prediction_error(reports);
  if (common.json()) {
    print_json({{"workers", cluster.at("workers")},
                {"prediction_error", error},
                {"requests", reports.size() * static_cast<size_t>(options.repetitions)}});
    return {};
  }
  for (const Finding& finding : findings_of_cluster(cluster, links_in(metrics)))
    std::printf("%-8s %s\n", finding.what.c_str(), finding.detail.c_str());
  std::printf("predictions of the last round are off by %.1f %% (median); the coordinator keeps what it has learnt\n",
              100 * error);
  return {};
}

}  // namespace runahead
